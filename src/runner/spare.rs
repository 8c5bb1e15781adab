//! Boxes of ended batches, kept for the next: making and dropping one is the dearest part of a scope with one task.

use super::{core::RunnerRef, extras::Extras, runtime::DetectedRuntime, state::ScopeState};
use crate::{pool::Pool, task::Order};

thread_local! {
    /// About 10 kB, and half of that more where tasks had keys; and a list of tasks each, 512 bytes at most.
    static STATES: Pool<ScopeState, 64> = const { Pool::new() };
    /// About 6 kB.
    static EXTRAS: Pool<Extras, 16> = const { Pool::new() };
}

/// A box from an ended batch, or a new one.
#[inline]
pub(crate) fn take(runner: RunnerRef) -> Box<ScopeState> {
    // An error where this thread's locals are being destroyed.
    let mut state = match STATES.try_with(Pool::take) {
        Ok(Some(state)) => state,
        // Written where it is, as in `TaskCell::boxed`.
        _ => Box::write(Box::new_uninit(), ScopeState::new()),
    };
    state.slow_path = runner.get().slow_path;
    state.runner = runner;
    state
}

pub(super) fn take_extras() -> Box<Extras> {
    EXTRAS
        .try_with(Pool::take)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Keeps the box of a batch that has ended.
#[inline]
pub(crate) fn keep(mut state: Box<ScopeState>) {
    debug_assert!(
        state.spawned().is_empty(),
        "a task would go to the next request"
    );
    if !state.is_plain() {
        state.empty();
    }
    state.runner = RunnerRef::global();
    state.runtime = DetectedRuntime::Nothing;
    let ScopeState { backlog, queue, .. } = &mut *state;
    backlog.restart();
    backlog.reuse(queue);
    state.roster_key = None;
    state.round = 0;
    state.polls_left = 0;
    state.long_round = false;
    state.outcome = None;
    state.order = Order::default();
    state.started = false;
    state.released = false;
    state.keyed = false;
    state.on_account = false;
    let _ = STATES.try_with(|states| states.keep(state));
}

impl ScopeState {
    /// Drops what few batches have, each where it is: the whole is long to copy.
    #[cold]
    fn empty(&mut self) {
        if let Some(mut extras) = self.take_extras() {
            extras.clear();
            let _ = EXTRAS.try_with(|spares| spares.keep(extras));
        }
        drop(self.ready.take());
        self.queue.clear();
        self.backlog.clear();
        let _ = self.take_unpublished();
    }

    /// Whether it holds nothing that few batches have.
    #[inline]
    fn is_plain(&self) -> bool {
        self.extras().is_none()
            && self.queue.is_empty()
            && self.ready.is_none()
            && self.backlog.is_empty()
            && !self.has_unpublished()
    }
}
