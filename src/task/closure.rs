//! A deferred closure as the two see it that have a half of it: the batch that waits for it, and the spawner that runs it.

use std::{
    fmt,
    sync::PoisonError,
    task::{Context, Poll},
};

use super::result::End;
use crate::{
    report::{KeptWaker, Loss, drop_waker, wake},
    sync::{Mutex, MutexGuard},
};

/// Where the two halves meet.
#[derive(Default)]
pub(crate) struct BlockingShared {
    state: Mutex<BlockingState>,
}

#[derive(Default)]
struct BlockingState {
    /// The closure is running, or has run.
    begun: bool,
    /// Nobody waits for it any more: if it has not begun, it does not.
    abandoned: bool,
    end: Option<End>,
    waker: KeptWaker,
}

impl BlockingShared {
    fn lock(&self) -> MutexGuard<'_, BlockingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the closure from running, unless it has begun: then it can't be stopped, and this returns false.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.lock();
        state.abandoned = !state.begun;
        state.abandoned
    }

    /// Whether the closure has returned, and nobody has heard how.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    pub(crate) fn take_end(&self) -> Option<End> {
        self.lock().end.take()
    }

    /// What its spawner has dropped was dropped by that panic.
    pub(crate) fn spawner_panicked(&self) {
        if let Some(End::Lost(why)) = &mut self.lock().end {
            *why = Loss::SpawnerPanicked;
        }
    }

    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        state.begun = !state.abandoned;
        state.begun
    }

    pub(crate) fn finish(&self, end: End) {
        let mut state = self.lock();
        state.end = Some(end);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// How the closure has ended, once it has; otherwise the waker is woken by its end.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<End> {
        let waker = cx.waker().clone();
        let mut state = self.lock();
        if let Some(end) = state.end.take() {
            drop(state);
            drop_waker(Some(waker));
            return Poll::Ready(end);
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop_waker(before);
        Poll::Pending
    }
}

/// Deferred closure, to be run on a thread that may block. Dropping it unrun loses its task.
///
/// For spawners: see [`Spawner::spawn_blocking`](crate::Spawner::spawn_blocking).
pub struct BlockingWork {
    work: Box<dyn FnOnce() + Send>,
}

impl BlockingWork {
    pub(crate) fn new(work: impl FnOnce() + Send + 'static) -> Self {
        BlockingWork {
            work: Box::new(work),
        }
    }

    /// Runs the closure on this thread. Its panic is caught and reported; this does not panic.
    ///
    /// ```
    /// use after::spawner::BlockingWork;
    ///
    /// fn spawn_blocking(work: BlockingWork) {
    ///     std::thread::spawn(|| work.run());
    /// }
    /// ```
    pub fn run(self) {
        (self.work)();
    }
}

impl fmt::Debug for BlockingWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingWork").finish_non_exhaustive()
    }
}
