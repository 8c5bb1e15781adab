//! A number of those for whom one other waits: batches that were split off, holds on a gate.

use std::task::{Poll, Waker};

use crate::{
    report::{ALONE, WaitCell, WakeList},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Done when all that have joined have left.
#[derive(Default)]
pub(crate) struct WaitGroup {
    left: AtomicUsize,
    done: WaitCell<()>,
}

impl WaitGroup {
    pub(crate) fn join(&self) {
        // Relaxed: by who waits, or by a member of the group, so that it is not done meanwhile.
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives who waits, to be woken, if this was the last.
    pub(crate) fn leave(&self) -> WakeList {
        // AcqRel, with the Acquire in `is_done`: who sees zero sees what every member did before it left.
        match self.left.fetch_sub(1, Ordering::AcqRel) {
            1 => self.done.change(|()| ()),
            _ => WakeList::default(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Whether all have left; otherwise the last to leave gives `waker`.
    pub(crate) fn poll(&self, waker: &Waker) -> bool {
        // Looked at under the lock: the last one subtracts before it locks, so either it is seen, or it sees the waker.
        let look = |(): &mut ()| match self.is_done() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        };
        self.is_done() || self.done.poll(ALONE, waker, look).is_ready()
    }

    /// Nobody waits any more.
    pub(crate) fn stop_waiting(&self) {
        self.done.leave(ALONE);
    }
}
