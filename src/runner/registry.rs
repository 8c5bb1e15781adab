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
use super::gate::Gate;
use super::{core::RunnerRef, inbox::Inbox, spare, state::Active, values::Context};
use crate::{
    account::{self, Extra, Finished},
    report::Outcome,
    task::{Link, Queue},
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
    pub(crate) fn given(runner: impl Into<RunnerRef>) -> Self {
        Registry {
            runner: Cell::new(runner.into()),
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

    /// Collects a task, if that takes no more than the plain path; otherwise it is given back.
    #[inline]
    pub(crate) fn collect(&self, node: Link) -> Result<(), Link> {
        let mut active = self.open();
        if active.special {
            self.put(active);
            return Err(node);
        }
        active.collect(node);
        self.put(active);
        Ok(())
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
                account::discard(&runner.get().observers, outcome, node);
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

    /// What is collected here may come from elsewhere from now on, through this.
    pub(crate) fn share(&self) -> Arc<Inbox> {
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
                return inbox;
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
