//! The batches that were split off another, for who waits for them.

use std::{sync::PoisonError, task::Waker};

use crate::{
    report::{KeptWaker, drop_waker, wake},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The batches that were split off one that waits for them.
#[derive(Default)]
pub(crate) struct WaitGroup {
    left: AtomicUsize,
    waker: Mutex<KeptWaker>,
}

impl WaitGroup {
    pub(crate) fn join(&self) {
        // Relaxed: by the batch itself, or by a member of the group, so that the count is not zero.
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        // AcqRel, with the Acquire loads in `is_done`: who sees zero sees what every member did before it left.
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let waker = self.lock().take();
            if let Some(waker) = waker {
                wake(waker);
            }
        }
    }

    /// Whether all have left; otherwise the last to leave wakes `waker`.
    pub(crate) fn is_done(&self, waker: &Waker) -> bool {
        if self.left.load(Ordering::Acquire) == 0 {
            return true;
        }
        let waker = waker.clone();
        let before = self.lock().replace(waker);
        drop_waker(before);
        // The last may have left before it could see the waker. If its `take` came before our `replace`, the lock orders
        // its subtraction before this load.
        self.left.load(Ordering::Acquire) == 0
    }

    fn lock(&self) -> MutexGuard<'_, KeptWaker> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
