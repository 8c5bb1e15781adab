//! What a scope collects once somebody holds a [`Handle`](crate::Handle): shared, from wherever the work comes.

use std::{borrow::Cow, sync::PoisonError, task::Waker};

use crate::{
    account::Counts,
    active::Active,
    batch::Batch,
    collected::Collected,
    context::Context,
    ending,
    node::{Link, Queue},
    outcome::{Order, Outcome},
    runner::RunnerRef,
    signal::{Kept, drop_waker, wake},
    spawner::Found,
    sync::{Mutex, MutexGuard},
};

/// What a scope collects once somebody holds a [`Handle`] to it.
pub(crate) struct Inbox {
    pub(crate) runner: RunnerRef,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    collected: Collected,
    context: Context,
    outcome: Option<Outcome>,
    order: Order,
    found: Found,
    /// The batch's, while it waits for its tasks.
    waker: Kept,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request runs: what comes is collected for the hand-over.
    Request,
    /// The batch runs: what comes joins it.
    Batch,
    /// Nobody will look into `collected` again: what comes is a batch of its own.
    Over,
}

impl Inbox {
    pub(crate) fn new(
        runner: RunnerRef,
        found: Found,
        collected: Collected,
        context: Context,
        outcome: Option<Outcome>,
        order: Order,
    ) -> Self {
        Inbox {
            runner,
            state: Mutex::new(State {
                phase: match outcome {
                    None => Phase::Request,
                    Some(_) => Phase::Batch,
                },
                collected,
                context,
                outcome,
                order,
                found,
                waker: Kept::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No user code runs under this lock, so nothing can panic there and poison means nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a task that is prepared.
    pub(crate) fn store(&self, key: Option<Cow<'static, str>>, node: Link) {
        let account = &self.runner.get().account;
        let mut state = self.lock();
        if let (Phase::Over, Some(outcome)) = (state.phase, state.outcome) {
            let late = Active::late(
                self.runner.clone(),
                state.found.clone(),
                state.order,
                state.context.clone(),
                node,
            );
            drop(state);
            return Batch::late(late, outcome).release();
        }
        // Counted before it is stored, under the lock that the batch needs to find it: a task that ended before it was
        // counted would make the account wrong. Nobody is woken by it: a task of ours is pending.
        account.publish(&Counts {
            deferred: 1,
            ..Counts::default()
        });
        let replaced = match key {
            None => {
                state.collected.push(node);
                None
            }
            Some(key) => state.collected.push_keyed(key, node),
        };
        let waker = state.waker.take();
        drop(state);
        self.discard(replaced);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    pub(crate) fn forget(&self, key: &str) -> bool {
        let removed = self.lock().collected.remove(key);
        let found = removed.is_some();
        self.discard(removed);
        found
    }

    fn discard(&self, node: Option<Link>) {
        if let Some(node) = node {
            let core = self.runner.get();
            ending::discard(core, self.outcome(), node);
            core.account.publish(&Counts {
                discarded: 1,
                ..Counts::default()
            });
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().collected.len()
    }

    /// The end of the request: what was collected so far. With nothing there, nobody will look again, unless the batch waits
    /// for something else.
    pub(crate) fn hand_over(
        &self,
        outcome: Outcome,
        order: Order,
        found: &Found,
        waits: bool,
    ) -> Queue {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        state.order = order;
        if state.found.is_nothing() {
            state.found = found.clone();
        }
        if state.collected.len() == 0 && !waits {
            state.phase = Phase::Over;
        } else {
            state.phase = Phase::Batch;
        }
        state.collected.take()
    }

    /// The batch begins to look after its own: what comes now needs no wake-up.
    pub(crate) fn batch_runs(&self) -> Queue {
        let mut state = self.lock();
        let waker = state.waker.take();
        let joined = state.collected.take();
        drop(state);
        drop_waker(waker);
        joined
    }

    /// The batch has nothing more to do for now: what came meanwhile, or else `waker` is woken by what will come.
    pub(crate) fn batch_waits(&self, waker: &Waker) -> Queue {
        let waker = waker.clone();
        let mut state = self.lock();
        if state.collected.len() == 0 {
            let before = state.waker.replace(waker);
            drop(state);
            drop_waker(before);
            return Queue::default();
        }
        let joined = state.collected.take();
        drop(state);
        drop_waker(Some(waker));
        joined
    }

    /// The batch has no task left: what came meanwhile, or else it is over.
    pub(crate) fn batch_ends(&self) -> Queue {
        let mut state = self.lock();
        if state.collected.len() == 0 {
            state.phase = Phase::Over;
        }
        state.collected.take()
    }

    /// As `batch_ends`, for a batch of which all was split off or shed. Returns whether it is over.
    pub(crate) fn ends_if_empty(&self) -> bool {
        let mut state = self.lock();
        if state.collected.len() == 0 {
            state.phase = Phase::Over;
        }
        state.phase == Phase::Over
    }

    /// The spawner that was current when the handle was made, or at the hand-over.
    pub(crate) fn found(&self) -> Found {
        self.lock().found.clone()
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome
    }

    pub(crate) fn context(&self) -> Context {
        self.lock().context.clone()
    }

    pub(crate) fn change_context<C, R>(
        &self,
        change: C,
        apply: impl FnOnce(&mut Context, C) -> R,
    ) -> Result<R, C> {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return Err(change);
        }
        Ok(apply(&mut state.context, change))
    }
}
