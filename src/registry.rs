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
    collected::Collected,
    context::Context,
    handle::{Handle, Inbox},
    node::{Link, Queue},
    outcome::{Order, Outcome},
    ready::Ready,
    report,
    runner::{Runner, RunnerRef},
    spare,
    spawner::Found,
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
    /// Polls so far, and tasks so far: when the first outgrow the second, every task gets a waker of its own.
    pub(crate) polls: u64,
    pub(crate) joined: u64,
    pub(crate) ready: Option<Box<Ready>>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) order: Order,
    pub(crate) started: bool,
    /// What the account does not know yet.
    pub(crate) unpublished: Counts,
    pub(crate) seat: Option<Seat>,
    pub(crate) context: Context,
    /// Made by the first `handle()`; from then on it holds what is collected, and the context.
    pub(crate) inbox: Option<Arc<Inbox>>,
    pub(crate) on_account: bool,
    /// While this is not in use: see `spare`.
    pub(crate) next_spare: Option<Box<Active>>,
}

impl Active {
    pub(crate) fn new(runner: RunnerRef) -> Active {
        Active {
            runner,
            found: Found::Nothing,
            collected: Collected::default(),
            queue: Queue::default(),
            round: 0,
            polls: 0,
            joined: 0,
            ready: None,
            outcome: None,
            order: Order::default(),
            started: false,
            unpublished: Counts::default(),
            seat: None,
            context: Context::default(),
            inbox: None,
            on_account: false,
            next_spare: None,
        }
    }

    /// What `Handle::scope` enters: everything it is asked goes to the inbox.
    pub(crate) fn attached(runner: RunnerRef, inbox: Arc<Inbox>) -> Box<Active> {
        let mut active = spare::active(runner);
        active.inbox = Some(inbox);
        active.on_account = true;
        active
    }

    /// What a late `Handle::defer` hands over: a batch of one, with the scope's outcome and context.
    pub(crate) fn late(
        runner: RunnerRef,
        found: Found,
        outcome: Option<Outcome>,
        context: Context,
        node: Link,
    ) -> Box<Active> {
        let mut active = spare::active(runner);
        active.found = found;
        active.outcome = outcome;
        active.context = context;
        active.collect(node);
        active
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

    /// The inbox, made if need be; `unpublished` must be empty then, because the inbox counts for itself.
    fn inbox(&mut self) -> &Arc<Inbox> {
        if self.found.is_nothing() {
            // From now on other threads may defer, also where no runtime is current: look while this one can.
            self.found = Found::current(self.runner.get());
        }
        self.inbox.get_or_insert_with(|| {
            self.on_account = true;
            Arc::new(Inbox::new(
                self.runner.clone(),
                self.found.clone(),
                std::mem::take(&mut self.collected),
                self.context.clone(),
                self.outcome,
            ))
        })
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
        if let Some(inbox) = &active.inbox {
            let inbox = inbox.clone();
            self.put(active);
            inbox.defer(None, node);
            return;
        }
        active.collect(node);
        self.put(active);
    }

    pub(crate) fn defer_keyed(&self, key: Cow<'static, str>, node: Link) {
        if let Some(inbox) = self.inbox() {
            return inbox.defer(Some(key), node);
        }
        if let Some(replaced) = self.with_active(|active| active.collect_keyed(key, node)) {
            report::drop_quietly(replaced);
        }
    }

    pub(crate) fn forget(&self, key: &str) -> bool {
        if let Some(inbox) = self.inbox() {
            return inbox.forget(key);
        }
        let removed = self.peek(|active| {
            let removed = active.collected.remove(key);
            active.unpublished.discarded += u64::from(removed.is_some());
            removed
        });
        match removed.flatten() {
            Some(node) => {
                report::drop_quietly(node);
                true
            }
            None => false,
        }
    }

    pub(crate) fn inbox(&self) -> Option<Arc<Inbox>> {
        self.peek(|active| active.inbox.clone()).flatten()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.publish();
        Handle::new(self.with_active(|active| active.inbox().clone()))
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
