//! What one scope has collected, and everything code inside a scope may ask of it.
//!
//! A [`Registry`] is what "current" points to. It sits in the `Scope` itself, or in the `Batch`, and costs two words to
//! initialise; the rest, [`ScopeState`], is one box made by the first use and moved on, as it is, to the batch.
//!
//! Each of the two words has a cell of its own: an enum of both is written word by word and read as a whole, which the
//! processor can't forward from one to the other, so that each look at it waited for the write before.
//!
//! Invariant 1: `ScopeState` is taken out of its registry only across our own code. Whenever a user's code runs (a task, a
//! destructor, a waker, the spawner) it is back in its place, so that such code may defer, and no borrow is held.

use std::{cell::Cell, mem, sync::Arc};

use super::gate::Gate;
use super::{core::RunnerRef, inbox::Inbox, spare, state::ScopeState, values::Values};
use crate::{
    account::{self, EndedSet, Extra},
    report::Outcome,
    task::{BoxedTask, Queue},
};

/// What is current while a scope's future, one of its tasks, or a destructor of either runs.
pub(crate) struct Registry {
    /// Whose the state will be. Unused once there is one.
    runner: Cell<RunnerRef>,
    /// `None` until something is collected, and once the scope is over.
    state: Cell<Option<Box<ScopeState>>>,
}

/// What has become of a task that was to be collected.
pub(crate) enum Collected {
    Done,
    /// Its Runner is to prepare it, and to be given back.
    Lent(RunnerRef, Option<Outcome>, BoxedTask),
    /// There is an inbox, to which it belongs.
    Shared(Arc<Inbox>, BoxedTask),
}

impl Registry {
    #[inline]
    pub(crate) fn global() -> Self {
        Registry {
            runner: Cell::default(),
            state: Cell::new(None),
        }
    }

    #[inline]
    pub(crate) fn given(runner: impl Into<RunnerRef>) -> Self {
        Registry {
            runner: Cell::new(runner.into()),
            state: Cell::new(None),
        }
    }

    #[inline]
    pub(crate) fn of(state: Box<ScopeState>) -> Self {
        Registry {
            runner: Cell::default(),
            state: Cell::new(Some(state)),
        }
    }

    #[inline]
    pub(crate) fn state_mut(&mut self) -> Option<&mut Box<ScopeState>> {
        self.state.get_mut().as_mut()
    }

    /// Takes out what has been collected, and ends the registry: see invariant 1.
    #[inline]
    pub(crate) fn close(&self) -> Option<Box<ScopeState>> {
        drop(self.runner.take());
        self.state.take()
    }

    /// Puts back what was taken out. Nothing is there meanwhile (invariant 1), so there is nothing to drop, and to look
    /// whether there is would cost something each time.
    #[inline]
    pub(crate) fn put(&self, state: Box<ScopeState>) {
        let gap = self.state.replace(Some(state));
        debug_assert!(gap.is_none(), "somebody has used what was taken out");
        mem::forget(gap);
    }

    #[inline]
    fn open(&self) -> Box<ScopeState> {
        match self.state.take() {
            Some(state) => state,
            None => spare::take(self.runner.take()),
        }
    }

    /// Runs `f`, which must not call a user's code, on the state, made if need be.
    #[inline]
    pub(crate) fn with_state<R>(&self, f: impl FnOnce(&mut ScopeState) -> R) -> R {
        let mut state = self.open();
        let result = f(&mut state);
        self.put(state);
        result
    }

    /// As `with_state`, if there is a state.
    #[inline]
    pub(crate) fn peek<R>(&self, f: impl FnOnce(&mut ScopeState) -> R) -> Option<R> {
        let mut state = self.state.take()?;
        let result = f(&mut state);
        self.put(state);
        Some(result)
    }

    /// Collects a task without options, if that takes no more than the fast path; otherwise it is given back.
    #[inline]
    pub(crate) fn collect(&self, task: BoxedTask) -> Result<(), BoxedTask> {
        let mut state = self.open();
        if state.slow_path {
            self.put(state);
            return Err(task);
        }
        state.collect(task);
        self.put(state);
        Ok(())
    }

    /// As `collect`, for any task, in one look: each is as dear as what it sees.
    #[inline]
    pub(crate) fn collect_or_lend(&self, task: BoxedTask) -> Collected {
        let mut state = self.open();
        if let Some((runner, outcome)) = self.lend(&state) {
            self.put(state);
            return Collected::Lent(runner, outcome, task);
        }
        let collected = state.collect_unless_shared(task);
        self.put(state);
        self.discard_replaced(collected)
    }

    /// As `collect`, for a task as its Runner wants it.
    #[inline]
    pub(crate) fn collect_prepared(&self, task: BoxedTask) -> Collected {
        let collected = self.with_state(|state| state.collect_unless_shared(task));
        self.discard_replaced(collected)
    }

    #[inline]
    fn discard_replaced(
        &self,
        collected: Result<Option<BoxedTask>, (Arc<Inbox>, BoxedTask)>,
    ) -> Collected {
        match collected {
            Ok(None) => Collected::Done,
            Ok(Some(replaced)) => {
                self.discard(replaced);
                Collected::Done
            }
            Err((inbox, task)) => Collected::Shared(inbox, task),
        }
    }

    pub(crate) fn forget(&self, key: &str) -> bool {
        let forgotten = self.peek(|state| match state.inbox() {
            Some(inbox) => Err(inbox.clone()),
            None => Ok(state.forget(key)),
        });
        match forgotten {
            Some(Ok(Some(task))) => {
                self.discard(task);
                true
            }
            Some(Err(inbox)) => inbox.forget(key),
            Some(Ok(None)) | None => false,
        }
    }

    /// Drops a task that was replaced or taken back.
    fn discard(&self, task: BoxedTask) {
        let told = self.peek(|state| {
            let told = !state.runner.get().observers.is_empty();
            told.then(|| (state.runner.clone(), state.outcome_now()))
        });
        match told.flatten() {
            Some((runner, outcome)) => account::discard(&runner.get().observers, outcome, task),
            // As a rule.
            None => account::discard_untold(task),
        }
    }

    /// Everything that has not ended, for a batch that is dropped.
    pub(crate) fn take_tasks(&self) -> Queue {
        let mut tasks = self.take_running();
        tasks.extend(self.take_backlog());
        tasks
    }

    /// What is in the batch and does not wait for a permit.
    pub(crate) fn take_running(&self) -> Queue {
        let taken = self.peek(|state| {
            let tasks = mem::take(&mut state.queue);
            (tasks, state.ready.take())
        });
        let (mut tasks, ready) = taken.unwrap_or_default();
        // Apart, because the batch's waker goes with it, which is the user's code.
        if let Some(ready) = ready {
            tasks.extend(ready.into_tasks());
        }
        tasks
    }

    /// What was deferred since the last look.
    #[inline]
    pub(crate) fn take_backlog(&self) -> Queue {
        self.peek(|state| match state.backlog.is_empty() {
            true => None,
            false => Some(state.backlog.take()),
        })
        .flatten()
        .unwrap_or_default()
    }

    pub(crate) fn inbox(&self) -> Option<Arc<Inbox>> {
        self.peek(|state| state.inbox().cloned()).flatten()
    }

    /// What is collected here may come from elsewhere from now on, through this.
    pub(crate) fn share(&self) -> Arc<Inbox> {
        // As a rule it was made before, by code of the request itself.
        let made = self.peek(|state| {
            let extras = state.extras()?;
            extras.inbox.clone().filter(|_| extras.attached.is_none())
        });
        made.flatten().unwrap_or_else(|| self.make_shared())
    }

    fn make_shared(&self) -> Arc<Inbox> {
        if self.is_attached() && self.inbox().is_some_and(|inbox| inbox.is_over()) {
            // Through it others see what this code sees, as long as this code lasts.
            self.split_off();
        }
        loop {
            let inbox = self.with_state(|state| match state.inbox() {
                Some(inbox) => Some(inbox.clone()),
                None if state.has_unpublished() => None,
                None => Some(state.make_inbox()),
            });
            if let Some(inbox) = inbox {
                return inbox;
            }
            // Whom this wakes may defer here, so look again.
            self.publish();
        }
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.peek(|state| state.outcome_now()).flatten()
    }

    pub(crate) fn context(&self) -> Values {
        match self.inbox() {
            Some(inbox) => inbox.context(self.is_attached()),
            None => self.peek(|state| state.context()).unwrap_or_default(),
        }
    }

    /// The inbox was asked whether more is to come. Once it is over, its values go with the batch.
    pub(crate) fn take_back(&self, (joined, context): (Queue, Values)) -> Queue {
        if !context.is_empty() {
            self.peek(|state| state.set_context(context));
        }
        joined
    }

    /// Changes the context; of code that goes on after its request, its own. After the end of the request `change` is
    /// given back to others.
    #[inline]
    pub(crate) fn change_context<C, R>(
        &self,
        change: C,
        apply: impl Fn(&mut Values, C) -> R,
    ) -> Result<R, C> {
        let mut state = self.open();
        // In the request itself, and nothing else to look at: what a handle has brought along has an inbox.
        if state.inbox().is_none() && state.outcome.is_none() {
            let result = apply(&mut state.extras_mut().context, change);
            self.put(state);
            return Ok(result);
        }
        self.put(state);
        self.change_shared_context(change, apply)
    }

    #[cold]
    fn change_shared_context<C, R>(
        &self,
        change: C,
        apply: impl Fn(&mut Values, C) -> R,
    ) -> Result<R, C> {
        let Some(inbox) = self.inbox() else {
            return Err(change);
        };
        if self.is_frozen() {
            return Err(change);
        }
        match inbox.change_context(change, &apply) {
            Err(change) if self.split_off() => match self.inbox() {
                Some(own) => own.change_context(change, &apply),
                None => Err(change),
            },
            result => result,
        }
    }

    /// Whether anything was deferred or set here, or a handle taken.
    pub(crate) fn is_used(&self) -> bool {
        self.peek(|_| ()).is_some()
    }

    /// The batch is not to start before this is open. Nothing to do for a scope that was not used.
    pub(crate) fn wait_for(&self, gate: Arc<Gate>) {
        self.peek(|state| state.extras_mut().gate = Some(gate));
    }

    /// The Runner of this scope.
    pub(crate) fn runner(&self) -> RunnerRef {
        self.peek(|state| state.runner.clone()).unwrap_or_else(|| {
            let runner = self.runner.take();
            self.runner.set(runner.clone());
            runner
        })
    }

    /// The Runner, if its defers need anything of it, and how the request has ended. It is to be given back, and lent to the
    /// next: a clone costs more than the rest of the look.
    #[inline]
    fn lend(&self, state: &ScopeState) -> Option<(RunnerRef, Option<Outcome>)> {
        if !state.runner.get().prepares() {
            return None;
        }
        let runner = self.runner.take().or_clone_of(&state.runner);
        Some((runner, state.outcome_now()))
    }

    pub(crate) fn take_back_runner(&self, runner: RunnerRef) {
        self.runner.set(runner);
    }

    /// Lets the account know what this scope still keeps to itself.
    pub(crate) fn publish(&self) {
        let unpublished = self.peek(|state| (state.runner.clone(), state.take_unpublished()));
        if let Some((runner, counts)) = unpublished {
            runner.get().account.publish(&counts);
        }
    }

    /// Tells the account what has ended, what has joined, and the counts. Not inside `peek`: if this was the last of
    /// all, those who wait for that are woken.
    pub(crate) fn record(&self, ended_set: &mut EndedSet, joined: &Queue) {
        let state = self.peek(|state| {
            state.allow_polls(joined.len());
            let counts = state.take_unpublished();
            // The roster knows the inbox of a batch that is on it.
            let inbox = state.inbox().filter(|_| state.roster_key.is_none());
            let extra = match state.keyed || state.inbox().is_some() {
                true => Extra::of(joined, inbox),
                false => None,
            };
            (state.runner.clone(), state.roster_key, counts, extra)
        });
        let Some((runner, roster_key, counts, extra)) = state else {
            return;
        };
        let account = &runner.get().account;
        match roster_key {
            Some(roster_key) => account.update(roster_key, &counts, ended_set, joined, extra),
            None => {
                let roster_key = account.register(&counts, joined, extra);
                self.peek(|state| state.roster_key = Some(roster_key));
            }
        }
        *ended_set = EndedSet::default();
    }
}
