//! Boxes of ended batches, kept for the next: making and dropping one is the dearest part of a scope with one task.

use std::{cell::Cell, mem};

use super::{core::RunnerRef, runtime::DetectedRuntime, state::ScopeState};
use crate::{account::Counts, task::Order};

/// The most that a thread keeps: about 22 kB, and half of that more where tasks with keys were taken back.
const MOST: usize = 64;

/// A list of boxes, each of which holds the next.
struct Spares {
    top: Cell<Option<Box<ScopeState>>>,
    len: Cell<usize>,
}

thread_local! {
    static SPARES: Spares = const { Spares { top: Cell::new(None), len: Cell::new(0) } };
}

/// A box from an ended batch, or a new one.
#[inline]
pub(crate) fn take(runner: RunnerRef) -> Box<ScopeState> {
    // An error where this thread's locals are being destroyed.
    let spare = SPARES.try_with(|spares| {
        let mut state = spares.top.take()?;
        spares.top.set(state.next_spare.take());
        spares.len.set(spares.len.get() - 1);
        Some(state)
    });
    let mut state = match spare {
        Ok(Some(state)) => state,
        // Written where it is, as in `TaskCell::boxed`.
        _ => Box::write(Box::new_uninit(), ScopeState::new()),
    };
    state.slow_path = runner.get().slow_path;
    state.runner = runner;
    state
}

/// Keeps the box of a batch that has ended, if it is a plain one.
#[inline]
pub(crate) fn keep(mut state: Box<ScopeState>) {
    debug_assert!(
        state.spawned.is_empty(),
        "a task would go to the next request"
    );
    if !state.is_plain() {
        state.empty();
    }
    state.runner = RunnerRef::global();
    state.runtime = DetectedRuntime::Nothing;
    state.backlog.restart();
    state.round = 0;
    state.long_round = false;
    state.fresh = 0;
    state.released = false;
    state.keyed = false;
    state.polls = 0;
    state.joined = 0;
    state.outcome = None;
    state.order = Order::default();
    state.started = false;
    state.roster_key = None;
    state.could_start = None;
    state.on_account = false;
    let _ = SPARES.try_with(|spares| {
        let len = spares.len.get();
        if len < MOST {
            state.next_spare = spares.top.take();
            spares.top.set(Some(state));
            spares.len.set(len + 1);
        }
    });
}

impl ScopeState {
    /// Drops what few batches have, each where it is: the whole is long to copy.
    #[cold]
    fn empty(&mut self) {
        drop(self.inbox.take());
        drop(self.extras.take());
        drop(self.ready.take());
        drop(self.gate.take());
        drop(mem::take(&mut self.context));
        drop(mem::take(&mut self.queue));
        drop(mem::take(&mut self.backlog));
        self.unpublished = Counts::default();
    }

    /// Whether it holds nothing that few batches have.
    #[inline]
    fn is_plain(&self) -> bool {
        self.inbox.is_none()
            && self.extras().is_none()
            && self.context.is_empty()
            && self.queue.is_empty()
            && self.ready.is_none()
            && self.gate.is_none()
            && self.backlog.len() == 0
            && self.unpublished.is_empty()
    }
}
