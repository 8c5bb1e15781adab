//! A deferred closure as the two see it that have a half of it: the batch that waits for it, and the spawner that runs it.

use std::{
    fmt,
    task::{Context, Poll},
};

use super::result::End;
use crate::report::{ALONE, Loss, WaitCell};

/// Where the two halves meet.
#[derive(Default)]
pub(crate) struct BlockingShared {
    state: WaitCell<BlockingState>,
}

#[derive(Default)]
struct BlockingState {
    /// The closure is running, or has run.
    begun: bool,
    /// Nobody waits for it any more: if it has not begun, it does not.
    abandoned: bool,
    end: Option<End>,
}

impl BlockingShared {
    /// Keeps the closure from running, unless it has begun: then it can't be stopped, and this returns false.
    pub(crate) fn abandon(&self) -> bool {
        self.state.with(|state| {
            state.abandoned = !state.begun;
            state.abandoned
        })
    }

    /// Whether the closure has returned, and nobody has heard how.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.with(|state| state.end.is_some())
    }

    pub(crate) fn take_end(&self) -> Option<End> {
        self.state.with(|state| state.end.take())
    }

    /// What its spawner has dropped was dropped by that panic.
    pub(crate) fn spawner_panicked(&self) {
        self.state.with(|state| {
            if let Some(End::Lost(why)) = &mut state.end {
                *why = Loss::SpawnerPanicked;
            }
        });
    }

    pub(crate) fn begin(&self) -> bool {
        self.state.with(|state| {
            state.begun = !state.abandoned;
            state.begun
        })
    }

    pub(crate) fn finish(&self, end: End) {
        self.state.change(|state| state.end = Some(end)).wake();
    }

    /// How the closure has ended, once it has; otherwise the waker is woken by its end.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<End> {
        let look = |state: &mut BlockingState| match state.end.take() {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        };
        self.state.poll(ALONE, cx.waker(), look)
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
