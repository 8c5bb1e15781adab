//! What a scope collects once somebody holds a [`Handle`](crate::Handle): shared, from wherever the work comes.

use std::{mem, sync::Arc, task::Waker};

use super::{
    core::RunnerRef,
    runtime::DetectedRuntime,
    values::{Past, Values},
};
use crate::{
    account::{self, Joining, Unpublished},
    platform::Instant,
    report::{KeptWaker, Label, Outcome, drop_waker, wake},
    sync::{Mutex, MutexGuard, lock},
    task::{Backlog, BoxedTask, Order, Queue},
};

/// What a scope collects once somebody holds a [`Handle`] to it.
pub(crate) struct Inbox {
    pub(crate) runner: RunnerRef,
    /// That of the request, if this is one that was split off for attached code.
    root: Option<Arc<Inbox>>,
    state: Mutex<InboxState>,
}

/// A task that came when its scope's batch was over: a batch of one, with the scope's outcome, order and context.
#[must_use = "nobody else hands it over"]
pub(crate) struct Late {
    pub(crate) runner: RunnerRef,
    pub(crate) runtime: DetectedRuntime,
    pub(crate) order: Order,
    pub(crate) context: Values,
    pub(crate) outcome: Outcome,
    pub(crate) task: BoxedTask,
}

/// Keeps the values of a request for this code, beyond the end of the request's tasks.
pub(crate) struct ValuesGuard {
    inbox: Arc<Inbox>,
}

impl ValuesGuard {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        ValuesGuard { inbox }
    }
}

impl Drop for ValuesGuard {
    fn drop(&mut self) {
        self.inbox.release();
    }
}

struct InboxState {
    phase: Phase,
    backlog: Backlog,
    context: Values,
    /// The context after the end, for attached code that goes on, while there is any.
    kept: Values,
    holds: usize,
    /// The context after the end, for what comes while a task that was split off still runs.
    past: Past,
    outcome: Option<Outcome>,
    order: Order,
    runtime: DetectedRuntime,
    /// The batch's, while it waits for its tasks.
    waker: KeptWaker,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request runs: what comes is collected for the hand-over.
    Request,
    /// The batch runs: what comes joins it.
    Batch,
    /// Nobody will look into `backlog` again: what comes is a batch of its own. The context is the tasks' that were split
    /// off, and goes with the last of them.
    Over,
    /// Of attached code, after the end of its request: as `Over`, with a context that the code may change.
    Own,
}

impl Inbox {
    pub(crate) fn new(
        runner: RunnerRef,
        runtime: DetectedRuntime,
        backlog: Backlog,
        context: Values,
        outcome: Option<Outcome>,
        order: Order,
    ) -> Self {
        Inbox {
            runner,
            root: None,
            state: Mutex::new(InboxState {
                phase: match outcome {
                    None => Phase::Request,
                    Some(_) => Phase::Batch,
                },
                backlog,
                context,
                kept: Values::default(),
                holds: 0,
                past: Past::default(),
                outcome,
                order,
                runtime,
                waker: KeptWaker::default(),
            }),
        }
    }

    /// What is in it, for its scope, when no handle is left.
    pub(super) fn give_up(self) -> (Backlog, Values) {
        let mut state = self.lock();
        (mem::take(&mut state.backlog), mem::take(&mut state.context))
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        lock(&self.state)
    }

    /// Takes in a task that is prepared, from attached code or from a handle by itself. What comes when nobody will
    /// look any more is given back, to be handed over at once.
    pub(crate) fn store(&self, mut task: BoxedTask, attached: bool) -> Option<Late> {
        let account = &self.runner.get().account;
        let mut state = self.lock();
        if let (Phase::Over | Phase::Own, Some(outcome)) = (state.phase, state.outcome) {
            // It replaces nothing: its key is for reports and observers.
            return Some(Late {
                runner: self.runner.clone(),
                runtime: state.runtime.clone(),
                order: state.order,
                context: state.context(attached),
                outcome,
                task,
            });
        }
        if state.outcome.is_some() {
            // Its hook may have run before the hand-over.
            task.as_mut().could_start_from(Instant::now);
        }
        // Counted before it is stored, under the lock that the batch needs to find it: a task that ended before it was
        // counted would make the account wrong. Nobody is woken by it: a task of ours is pending.
        account.open();
        let replaced = match task.key() {
            None => {
                state.backlog.push(task);
                None
            }
            Some(_) => state.backlog.push_keyed(task),
        };
        let waker = state.waker.take();
        drop(state);
        if replaced.is_some() {
            self.discard(replaced);
        }
        if let Some(waker) = waker {
            wake(waker);
        }
        None
    }

    pub(crate) fn forget(&self, key: &str) -> bool {
        let removed = self.lock().backlog.remove(key);
        let was_there = removed.is_some();
        self.discard(removed);
        was_there
    }

    fn discard(&self, task: Option<BoxedTask>) {
        if let Some(task) = task {
            let core = self.runner.get();
            account::discard(&core.observers, self.outcome(), task);
            core.account.publish(&Unpublished {
                discarded: 1,
                ..Unpublished::default()
            });
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().backlog.len()
    }

    /// The end of the request: what was collected so far. With nothing there, nobody will look again, unless the batch
    /// waits for something else: it is over, and the context is given back too, to be dropped when nothing of ours is
    /// locked.
    pub(crate) fn hand_over(
        &self,
        outcome: Outcome,
        order: Order,
        runtime: &DetectedRuntime,
        waits: bool,
    ) -> (Queue, Values) {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        state.order = order;
        if state.runtime.is_nothing() {
            state.runtime = runtime.clone();
        }
        if state.backlog.is_empty() && !waits {
            return (Queue::default(), state.end());
        }
        state.phase = Phase::Batch;
        (state.backlog.take(), Values::default())
    }

    /// The batch begins to look after its own: what comes now needs no wake-up.
    pub(crate) fn batch_runs(&self) -> Queue {
        let mut state = self.lock();
        let waker = state.waker.take();
        let joined = state.backlog.take();
        drop(state);
        drop_waker(waker);
        joined
    }

    /// The batch has nothing more to do for now: what came meanwhile, or else `waker` is woken by what will come.
    pub(crate) fn batch_waits(&self, waker: &Waker) -> Queue {
        let waker = waker.clone();
        let mut state = self.lock();
        if state.backlog.is_empty() {
            let before = state.waker.replace(waker);
            drop(state);
            drop_waker(before);
            return Queue::default();
        }
        let joined = state.backlog.take();
        drop(state);
        drop_waker(Some(waker));
        joined
    }

    /// The batch has no task left: what came meanwhile, or else it is over, as at `hand_over`.
    pub(crate) fn batch_ends(&self) -> (Queue, Values) {
        let mut state = self.lock();
        // Under one lock: what is there now may be taken back by its key at any time.
        if !state.backlog.is_empty() {
            return (state.backlog.take(), Values::default());
        }
        (Queue::default(), self.ends(state))
    }

    /// As `batch_ends`, for a batch of which all was split off or shed. `None` if it is not over.
    pub(crate) fn ends_if_empty(&self) -> Option<Values> {
        let state = self.lock();
        (state.backlog.is_empty()).then(|| self.ends(state))
    }

    fn ends(&self, mut state: MutexGuard<'_, InboxState>) -> Values {
        let context = state.end();
        let waker = state.waker.take();
        drop(state);
        drop_waker(waker);
        context
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().phase == Phase::Over
    }

    /// From here on the context outlives the end, for attached code. `None` when it is over.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<ValuesGuard> {
        let mut state = self.lock();
        if state.phase == Phase::Over {
            return None;
        }
        state.holds += 1;
        Some(ValuesGuard::new(self.clone()))
    }

    /// A `ValuesGuard` is given up.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        state.holds -= 1;
        let gone = match state.holds {
            0 => mem::take(&mut state.kept),
            _ => Values::default(),
        };
        // Values go here, whose destructors are the user's code.
        drop(state);
        drop(gone);
    }

    /// An inbox for attached code alone, which goes on after the end: with the values as they stand, or, if it holds none,
    /// with those of its snapshot.
    pub(crate) fn split_off(self: &Arc<Self>, snapshot: Values) -> Arc<Inbox> {
        let state = self.lock();
        let context = state.context(true);
        let own = InboxState {
            phase: Phase::Own,
            backlog: Backlog::default(),
            context: if context.is_empty() {
                snapshot
            } else {
                context
            },
            kept: Values::default(),
            holds: 0,
            past: Past::default(),
            outcome: state.outcome,
            order: state.order,
            runtime: state.runtime.clone(),
            waker: KeptWaker::default(),
        };
        drop(state);
        Arc::new(Inbox {
            runner: self.runner.clone(),
            root: Some(self.root().clone()),
            state: Mutex::new(own),
        })
    }

    /// The attached code has ended whose own this is.
    pub(crate) fn end_own(&self) {
        let context = self.lock().end();
        drop(context);
    }

    /// The request's.
    pub(crate) fn root(self: &Arc<Self>) -> &Arc<Inbox> {
        self.root.as_ref().unwrap_or(self)
    }

    /// The spawner that was current when the handle was made, or at the hand-over.
    pub(crate) fn runtime(&self) -> DetectedRuntime {
        self.lock().runtime.clone()
    }

    /// The batch goes to another, because that one has gone.
    pub(crate) fn follow(&self, runtime: DetectedRuntime) {
        // The one before goes when nothing is locked.
        let _before = mem::replace(&mut self.lock().runtime, runtime);
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome
    }

    /// As attached code sees it, or others.
    pub(crate) fn context(&self, attached: bool) -> Values {
        self.lock().context(attached)
    }

    pub(crate) fn change_context<C, R>(
        &self,
        change: C,
        apply: impl FnOnce(&mut Values, C) -> R,
    ) -> Result<R, C> {
        let mut state = self.lock();
        if state.outcome.is_some() && state.phase != Phase::Own {
            return Err(change);
        }
        Ok(apply(&mut state.context, change))
    }
}

impl Joining for Inbox {
    fn labels(&self) -> Vec<Label> {
        self.lock().backlog.labels()
    }
}

impl InboxState {
    /// Nobody will look again. What is given back is to be dropped when this is not locked any more: its values'
    /// destructors are the user's code.
    fn end(&mut self) -> Values {
        if self.phase == Phase::Over {
            // `past` stays what it is.
            return Values::default();
        }
        self.phase = Phase::Over;
        let context = mem::take(&mut self.context);
        self.past = context.past();
        if self.holds > 0 && !context.is_empty() {
            self.kept = context.clone();
        }
        context
    }

    fn context(&self, attached: bool) -> Values {
        match self.phase {
            Phase::Over if attached => self.kept.clone(),
            Phase::Over => self.past.context(),
            _ => self.context.clone(),
        }
    }
}
