//! What one scope has collected, and everything code inside a scope may ask of it.
//!
//! A [`Registry`] is what "current" points to. It sits in the `Scope` itself, or on the stack of `Batch::poll`, and costs
//! one word to initialise; the rest, [`Active`], is one box made by the first use and moved on, as it is, to the batch.
//!
//! Invariant 1: `Active` is taken out of its registry only across our own code. Whenever a user's code runs (a task, a
//! destructor, a waker, the spawner) it is back in its place, so that such code may defer, and no borrow is held.

use std::{borrow::Cow, cell::Cell, sync::Arc};

use crate::{
    account::{Counts, Seat},
    admission::Group,
    batch::Batch,
    collected::Collected,
    context::Context,
    ending,
    handle::{Handle, Inbox},
    limit::Permits,
    node::{Link, Queue},
    outcome::{Order, Outcome},
    ready::Ready,
    runner::{Runner, RunnerRef},
    spare,
    spawner::Found,
    timers::Timers,
};

/// What is current while a scope's future, one of its tasks, or a destructor of either runs.
pub(crate) struct Registry {
    state: Cell<State>,
}

enum State {
    /// Nothing was collected; the Runner is the global one, which need not exist yet.
    Global,
    /// Nothing was collected, on a Runner of the user's.
    Given(Runner),
    Active(Box<Active>),
    /// The scope is over. No user code sees this.
    Over,
}

/// A scope that has been used, from the first defer to the end of its batch.
pub(crate) struct Active {
    pub(crate) runner: RunnerRef,
    /// Where the batch will go, if that was known at the first defer.
    pub(crate) found: Found,
    /// Deferred, and not in `queue` yet. Unused once there is an inbox.
    pub(crate) collected: Collected,
    /// Handed over, and not finished, but for the one that is being polled.
    pub(crate) queue: Queue,
    /// Polls left before a new round over the queue begins.
    pub(crate) round: usize,
    /// Whether the round takes more than one turn: what was woken in one is not seen in the next.
    pub(crate) split: bool,
    /// Polls so far, and tasks so far: when the first outgrow the second, every task gets a waker of its own.
    pub(crate) polls: u64,
    pub(crate) joined: u64,
    /// All tasks with a lower number have been polled.
    pub(crate) fresh: u64,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) order: Order,
    pub(crate) started: bool,
    /// Awaited where it was held, instead of handed to the spawner: it waits for what is split off it.
    pub(crate) awaited: bool,
    /// Whether anything but the plain path is needed: the Runner has limits, observers or a hook, a task has a condition,
    /// a time limit or a closure, the order is Parallel, or there is an inbox.
    pub(crate) special: bool,
    /// What the account does not know yet.
    pub(crate) unpublished: Counts,
    pub(crate) seat: Option<Seat>,
    pub(crate) context: Context,
    /// Made by the first `handle()`; from then on it holds what is collected, and the context.
    pub(crate) inbox: Option<Arc<Inbox>>,
    uncommon: Option<Box<Uncommon>>,
    pub(crate) on_account: bool,
    /// While this is not in use: see `spare`.
    pub(crate) next_spare: Option<Box<Active>>,
}

/// What few batches have.
#[derive(Default)]
pub(crate) struct Uncommon {
    /// The tasks, once each has a waker of its own.
    pub(crate) ready: Option<Ready>,
    /// Split off at the hand-over, and not handed to the spawner yet.
    pub(crate) apart: Vec<Batch>,
    /// Split off and waited for.
    pub(crate) group: Option<Arc<Group>>,
    /// This one was split off, and somebody waits for it.
    pub(crate) member_of: Option<Arc<Group>>,
    pub(crate) permits: Option<Permits>,
    pub(crate) timers: Timers,
}

impl Active {
    pub(crate) fn new(runner: RunnerRef) -> Active {
        Active {
            special: runner.get().special,
            runner,
            found: Found::Nothing,
            collected: Collected::default(),
            queue: Queue::default(),
            round: 0,
            split: false,
            polls: 0,
            joined: 0,
            fresh: 0,
            outcome: None,
            order: Order::default(),
            started: false,
            awaited: false,
            unpublished: Counts::default(),
            seat: None,
            context: Context::default(),
            inbox: None,
            uncommon: None,
            on_account: false,
            next_spare: None,
        }
    }

    /// What `Handle::scope` enters: everything it is asked goes to the inbox.
    pub(crate) fn attached(runner: RunnerRef, inbox: Arc<Inbox>) -> Box<Active> {
        let mut active = spare::active(runner);
        active.inbox = Some(inbox);
        active.special = true;
        active.on_account = true;
        active
    }

    /// A batch of one that is on the account already.
    pub(crate) fn of_one(runner: RunnerRef, found: Found, node: Link) -> Box<Active> {
        let mut active = spare::active(runner);
        active.found = found;
        active.special = true;
        active.on_account = true;
        active.joined = 1;
        active.queue.push_back(node);
        active
    }

    /// What a late `Handle::defer` hands over: a batch of one, with the scope's outcome, order and context.
    pub(crate) fn late(
        runner: RunnerRef,
        found: Found,
        order: Order,
        context: Context,
        node: Link,
    ) -> Box<Active> {
        let mut active = spare::active(runner);
        active.found = found;
        active.order = order;
        active.context = context;
        active.special = true;
        active.collect(node);
        active
    }

    #[inline]
    pub(crate) fn uncommon(&mut self) -> &mut Uncommon {
        self.uncommon.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn look_uncommon(&self) -> Option<&Uncommon> {
        self.uncommon.as_deref()
    }

    pub(crate) fn uncommon_if_any(&mut self) -> Option<&mut Uncommon> {
        self.uncommon.as_deref_mut()
    }

    pub(crate) fn take_apart(&mut self) -> Vec<Batch> {
        let uncommon = self.uncommon.as_mut();
        uncommon.map_or_else(Vec::new, |uncommon| std::mem::take(&mut uncommon.apart))
    }

    pub(crate) fn take_permits(&mut self) -> Option<Permits> {
        self.uncommon.as_mut()?.permits.take()
    }

    pub(crate) fn is_in_line(&self) -> bool {
        let permits = self.look_uncommon().and_then(|rare| rare.permits.as_ref());
        permits.is_some_and(|permits| permits.entered)
    }

    /// Room for so many tasks was promised.
    pub(crate) fn promise(&mut self, tasks: usize) {
        let permits = &mut self.uncommon().permits;
        permits.get_or_insert_default().promised = tasks;
    }

    #[inline]
    pub(crate) fn leave_group(&mut self) -> Option<Arc<Group>> {
        self.uncommon.as_mut()?.member_of.take()
    }

    #[inline]
    fn collect(&mut self, node: Link) {
        self.collected.push(node);
        self.unpublished.deferred += 1;
        if !self.on_account {
            self.open_account();
        }
    }

    fn collect_keyed(&mut self, key: Cow<'static, str>, node: Link) -> Option<Link> {
        let replaced = self.collected.push_keyed(key, node);
        self.unpublished.deferred += 1;
        self.unpublished.discarded += u64::from(replaced.is_some());
        if !self.on_account {
            self.open_account();
        }
        replaced
    }

    /// The first defer: from here on the scope is pending, and the spawner is looked for while a runtime is current.
    fn open_account(&mut self) {
        self.on_account = true;
        if self.found.is_nothing() {
            self.found = Found::current(self.runner.get());
        }
        // Its first task is published by this; the others follow in a group.
        self.unpublished.deferred -= 1;
        self.runner.get().account.open();
    }

    /// Makes the inbox. The account must know of everything that goes into it, because the inbox counts for itself.
    fn make_inbox(&mut self) -> Arc<Inbox> {
        if self.found.is_nothing() {
            // From now on other threads may defer, also where no runtime is current: look while this one can.
            self.found = Found::current(self.runner.get());
        }
        self.on_account = true;
        self.special = true;
        let inbox = Arc::new(Inbox::new(
            self.runner.clone(),
            self.found.clone(),
            std::mem::take(&mut self.collected),
            std::mem::take(&mut self.context),
            self.outcome,
            self.order,
        ));
        self.inbox = Some(inbox.clone());
        inbox
    }

    fn context(&self) -> Context {
        match &self.inbox {
            Some(inbox) => inbox.context(),
            None => self.context.clone(),
        }
    }
}

impl Registry {
    #[inline]
    pub(crate) fn global() -> Self {
        Registry {
            state: Cell::new(State::Global),
        }
    }

    #[inline]
    pub(crate) fn given(runner: Runner) -> Self {
        Registry {
            state: Cell::new(State::Given(runner)),
        }
    }

    #[inline]
    pub(crate) fn active(active: Box<Active>) -> Self {
        Registry {
            state: Cell::new(State::Active(active)),
        }
    }

    /// Takes out what has been collected, and ends the registry: see invariant 1.
    #[inline]
    pub(crate) fn close(&self) -> Option<Box<Active>> {
        match self.state.replace(State::Over) {
            State::Active(active) => Some(active),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn put(&self, active: Box<Active>) {
        self.state.set(State::Active(active));
    }

    #[inline]
    fn open(&self) -> Box<Active> {
        match self.state.replace(State::Over) {
            State::Active(active) => active,
            State::Given(runner) => spare::active(RunnerRef::given(runner)),
            State::Global | State::Over => spare::active(RunnerRef::global()),
        }
    }

    /// Runs `f`, which must not call a user's code, on the active part, made if need be.
    #[inline]
    pub(crate) fn with_active<R>(&self, f: impl FnOnce(&mut Active) -> R) -> R {
        let mut active = self.open();
        let result = f(&mut active);
        self.put(active);
        result
    }

    /// As `with_active`, if there is an active part.
    #[inline]
    pub(crate) fn peek<R>(&self, f: impl FnOnce(&mut Active) -> R) -> Option<R> {
        match self.state.replace(State::Over) {
            State::Active(mut active) => {
                let result = f(&mut active);
                self.put(active);
                Some(result)
            }
            other => {
                self.state.set(other);
                None
            }
        }
    }

    #[inline]
    pub(crate) fn defer(&self, node: Link) {
        let mut active = self.open();
        if active.special {
            self.put(active);
            return self.place(None, node);
        }
        active.collect(node);
        self.put(active);
    }

    /// As `defer`, for tasks with a key or with rare things, and for scopes that need more than the plain path.
    #[cold]
    pub(crate) fn place(&self, key: Option<Cow<'static, str>>, node: Link) {
        let (runner, outcome) = self.with_active(|active| (active.runner.clone(), active.outcome));
        let node = runner.get().prepare(node, outcome);
        if let Some(inbox) = self.inbox() {
            return inbox.store(key, node);
        }
        let replaced = self.with_active(|active| {
            active.special |= node.rare().is_some();
            match key {
                None => {
                    active.collect(node);
                    None
                }
                Some(key) => active.collect_keyed(key, node),
            }
        });
        if let Some(replaced) = replaced {
            ending::discard(runner.get(), outcome, replaced);
        }
    }

    pub(crate) fn forget(&self, key: &str) -> bool {
        if let Some(inbox) = self.inbox() {
            return inbox.forget(key);
        }
        let removed = self.peek(|active| {
            let removed = active.collected.remove(key)?;
            active.unpublished.discarded += 1;
            Some((removed, active.runner.clone(), active.outcome))
        });
        match removed.flatten() {
            Some((node, runner, outcome)) => {
                ending::discard(runner.get(), outcome, node);
                true
            }
            None => false,
        }
    }

    /// Everything that has not ended, for a batch that is dropped.
    pub(crate) fn take_tasks(&self) -> Queue {
        let taken = self.peek(|active| {
            let mut tasks = std::mem::take(&mut active.queue);
            tasks.append(active.collected.take());
            let ready = active.uncommon.as_mut().and_then(|rare| rare.ready.take());
            (tasks, ready)
        });
        let (mut tasks, ready) = taken.unwrap_or_default();
        // Apart, because the batch's waker goes with it, which is the user's code.
        if let Some(ready) = ready {
            tasks.append(ready.into_tasks());
        }
        tasks
    }

    /// What was deferred since the last look.
    pub(crate) fn take_collected(&self) -> Queue {
        self.peek(|active| active.collected.take())
            .unwrap_or_default()
    }

    pub(crate) fn inbox(&self) -> Option<Arc<Inbox>> {
        self.peek(|active| active.inbox.clone()).flatten()
    }

    pub(crate) fn handle(&self) -> Handle {
        loop {
            let inbox = self.with_active(|active| match &active.inbox {
                Some(inbox) => Some(inbox.clone()),
                None if active.unpublished.is_empty() => Some(active.make_inbox()),
                None => None,
            });
            if let Some(inbox) = inbox {
                return Handle::new(inbox);
            }
            // Whom this wakes may defer here, so look again.
            self.publish();
        }
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.peek(|active| match &active.inbox {
            Some(inbox) => inbox.outcome(),
            None => active.outcome,
        })
        .flatten()
    }

    pub(crate) fn context(&self) -> Context {
        self.peek(|active| active.context()).unwrap_or_default()
    }

    /// Changes the context, unless the request is over: then `change` is given back.
    pub(crate) fn change_context<C, R>(
        &self,
        change: C,
        apply: impl FnOnce(&mut Context, C) -> R,
    ) -> Result<R, C> {
        self.with_active(|active| match &active.inbox {
            Some(inbox) => inbox.change_context(change, apply),
            None if active.outcome.is_some() => Err(change),
            None => Ok(apply(&mut active.context, change)),
        })
    }

    /// The Runner of this scope.
    pub(crate) fn runner(&self) -> RunnerRef {
        let state = self.state.replace(State::Over);
        let runner = match &state {
            State::Active(active) => active.runner.clone(),
            State::Given(runner) => RunnerRef::given(runner.clone()),
            State::Global | State::Over => RunnerRef::global(),
        };
        self.state.set(state);
        runner
    }

    /// Lets the account know what this scope still keeps to itself.
    pub(crate) fn publish(&self) {
        let unpublished = self.peek(|active| {
            (
                active.runner.clone(),
                std::mem::take(&mut active.unpublished),
            )
        });
        if let Some((runner, counts)) = unpublished {
            runner.get().account.publish(counts);
        }
    }
}
