//! What one scope has collected, and everything code inside a scope may ask of it.
//!
//! A [`Registry`] is what "current" points to. It sits in the `Scope` itself, or on the stack of `Batch::poll`, and costs
//! two words to initialise; the rest, [`Active`], is one box made by the first use and moved on, as it is, to the batch.
//!
//! Each of the two words has a cell of its own: an enum of both is written word by word and read as a whole, which the
//! processor can't forward from one to the other, so that each look at it waited for the write before.
//!
//! Invariant 1: `Active` is taken out of its registry only across our own code. Whenever a user's code runs (a task, a
//! destructor, a waker, the spawner) it is back in its place, so that such code may defer, and no borrow is held.

use std::{cell::Cell, mem, sync::Arc};

#[cfg(feature = "tower")]
use crate::gate::Gate;
use crate::{
    active::Active,
    context::Context,
    ending,
    finished::Finished,
    handle::Handle,
    inbox::Inbox,
    key::Key,
    limit::Room,
    node::{Link, Queue},
    outcome::Outcome,
    roster::Extra,
    runner::{Runner, RunnerRef},
    spare,
};

/// What is current while a scope's future, one of its tasks, or a destructor of either runs.
pub(crate) struct Registry {
    /// Whose the active part will be. Unused once there is one.
    runner: Cell<RunnerRef>,
    /// `None` until something is collected, and once the scope is over.
    active: Cell<Option<Box<Active>>>,
}

impl Registry {
    #[inline]
    pub(crate) fn global() -> Self {
        Registry {
            runner: Cell::default(),
            active: Cell::new(None),
        }
    }

    #[inline]
    pub(crate) fn given(runner: Runner) -> Self {
        Registry {
            runner: Cell::new(RunnerRef::given(runner)),
            active: Cell::new(None),
        }
    }

    #[inline]
    pub(crate) fn active(active: Box<Active>) -> Self {
        Registry {
            runner: Cell::default(),
            active: Cell::new(Some(active)),
        }
    }

    /// Takes out what has been collected, and ends the registry: see invariant 1.
    #[inline]
    pub(crate) fn close(&self) -> Option<Box<Active>> {
        drop(self.runner.take());
        self.active.take()
    }

    /// Puts back what was taken out. Nothing is there meanwhile (invariant 1), so there is nothing to drop, and to look
    /// whether there is would cost something each time.
    #[inline]
    pub(crate) fn put(&self, active: Box<Active>) {
        let gap = self.active.replace(Some(active));
        debug_assert!(gap.is_none(), "somebody has used what was taken out");
        mem::forget(gap);
    }

    #[inline]
    fn open(&self) -> Box<Active> {
        match self.active.take() {
            Some(active) => active,
            None => spare::active(self.runner.take()),
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
        let mut active = self.active.take()?;
        let result = f(&mut active);
        self.put(active);
        Some(result)
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
    pub(crate) fn place(&self, key: Option<Key>, mut node: Link) {
        let runner = self.with_active(|active| active.runner.clone());
        let outcome = self.outcome();
        node.as_mut().show_key(key.as_ref(), runner.get().special);
        let node = runner.get().prepare(node, outcome);
        if let Some(inbox) = self.inbox() {
            return inbox.store(key, node, self.is_attached());
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
        let mut tasks = self.take_running();
        tasks.append(self.take_collected());
        tasks
    }

    /// What is in the batch and does not wait for a permit.
    pub(crate) fn take_running(&self) -> Queue {
        let taken = self.peek(|active| {
            let tasks = mem::take(&mut active.queue);
            (tasks, active.ready.take())
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
        if self.is_attached() && self.inbox().is_some_and(|inbox| inbox.is_over()) {
            // Through it others see what this code sees, as long as this code lasts.
            self.split_off();
        }
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
        match self.inbox() {
            Some(inbox) => inbox.context(self.is_attached()),
            None => self
                .peek(|active| active.context.clone())
                .unwrap_or_default(),
        }
    }

    /// The inbox was asked whether more is to come. Once it is over, its values go with the batch.
    pub(crate) fn take_back(&self, (joined, context): (Queue, Context)) -> Queue {
        if !context.is_empty() {
            self.peek(|active| active.context = context);
        }
        joined
    }

    /// Changes the context; of code that goes on after its request, its own. After the end of the request `change` is
    /// given back to others.
    pub(crate) fn change_context<C, R>(
        &self,
        change: C,
        apply: impl Fn(&mut Context, C) -> R,
    ) -> Result<R, C> {
        if self.is_frozen() {
            return Err(change);
        }
        match self.try_change_context(change, &apply) {
            Err(change) if self.split_off() => self.try_change_context(change, &apply),
            result => result,
        }
    }

    fn try_change_context<C, R>(
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

    /// Whether anything was deferred or set here, or a handle taken.
    #[cfg(feature = "tower")]
    pub(crate) fn is_used(&self) -> bool {
        self.peek(|_| ()).is_some()
    }

    /// The batch is not to start before this is open. Nothing to do for a scope that was not used.
    #[cfg(feature = "tower")]
    pub(crate) fn wait_for(&self, gate: Arc<Gate>) {
        self.peek(|active| active.gate = Some(gate));
    }

    /// Room for what was collected so far, if the Runner makes its scopes wait for it before their answer.
    #[cfg(feature = "tower")]
    #[inline]
    pub(crate) fn room(&self) -> Option<Room> {
        self.room_beyond(0).map(|(_, room)| room)
    }

    /// As `room`, for those beyond so many that have waited before. And how many tasks there are now.
    #[inline]
    pub(crate) fn room_beyond(&self, ready: usize) -> Option<(usize, Room)> {
        let (tasks, runner) = self
            .peek(|active| {
                if !active.special {
                    return None;
                }
                let tasks = match &active.inbox {
                    Some(inbox) => inbox.len(),
                    None => active.collected.len(),
                };
                Some((tasks, active.runner.clone()))
            })
            .flatten()?;
        match tasks.saturating_sub(ready) {
            0 => None,
            rest => Some((tasks, runner.get().room(rest)?)),
        }
    }

    /// The Runner of this scope.
    pub(crate) fn runner(&self) -> RunnerRef {
        self.peek(|active| active.runner.clone())
            .unwrap_or_else(|| {
                let runner = self.runner.take();
                self.runner.set(runner.clone());
                runner
            })
    }

    /// Lets the account know what this scope still keeps to itself.
    pub(crate) fn publish(&self) {
        let unpublished =
            self.peek(|active| (active.runner.clone(), mem::take(&mut active.unpublished)));
        if let Some((runner, counts)) = unpublished {
            runner.get().account.publish(&counts);
        }
    }

    /// Tells the account what has ended, what has joined, and the counts. Not inside `peek`: if this was the last of
    /// all, those who wait for that are woken.
    pub(crate) fn record(&self, finished: &mut Finished, joined: &Queue) {
        let state = self.peek(|active| {
            active.joined += joined.len() as u64;
            let counts = std::mem::take(&mut active.unpublished);
            // The roster knows the inbox of a batch that is on it.
            let inbox = active.inbox.as_ref().filter(|_| active.seat.is_none());
            let extra = match active.special || active.keyed {
                true => Extra::of(joined, inbox),
                false => None,
            };
            (active.runner.clone(), active.seat, counts, extra)
        });
        let Some((runner, seat, counts, extra)) = state else {
            return;
        };
        let account = &runner.get().account;
        match seat {
            Some(seat) => account.update(seat, &counts, finished, joined, extra),
            None => {
                let seat = account.seat(&counts, joined, extra);
                self.peek(|active| active.seat = Some(seat));
            }
        }
        *finished = Finished::default();
    }
}
