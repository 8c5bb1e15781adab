//! The wait for room: a request that has ended, and keeps its answer until its tasks may wait.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::scope::{Scope, polled_after_completion};
use crate::{batch::Batch, limit::Room, report::Outcome, runner::ScopeState};

/// A request that has ended, and whose tasks wait for room: see `limit`.
pub(super) struct WaitingAnswer<T> {
    output: Option<T>,
    /// `None` once it was handed over.
    batch: Option<Batch>,
    room: Option<Room>,
}

impl<T> Drop for WaitingAnswer<T> {
    fn drop(&mut self) {
        // The answer's destructor may panic: the tasks go first. They can't wait any more.
        self.room = None;
        if let Some(batch) = self.batch.take() {
            batch.release();
        }
    }
}

impl<F: Future> Scope<F> {
    /// Hands over, at once or when there is room for the tasks. Apart, so that what is inlined into the poll of every
    /// request is one test.
    #[inline(never)]
    pub(super) fn hand_over(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: F::Output,
        state: Box<ScopeState>,
        outcome: Outcome,
    ) -> Poll<F::Output> {
        let order = *self.as_ref().project_ref().order;
        let batch = Batch::hand_over(state, outcome, order);
        match batch.room() {
            None => {
                batch.release();
                Poll::Ready(output)
            }
            Some(room) => self.wait_for_room(cx, output, batch, room),
        }
    }

    #[cold]
    fn wait_for_room(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: F::Output,
        batch: Batch,
        room: Room,
    ) -> Poll<F::Output> {
        let waiting = Box::new(WaitingAnswer {
            output: Some(output),
            batch: Some(batch),
            room: Some(room),
        });
        **self.as_mut().project().waiting = Some(waiting);
        self.poll_room(cx)
    }

    #[cold]
    pub(super) fn poll_room(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let waiting = self.project().waiting;
        let Some(waits) = &mut **waiting else {
            polled_after_completion();
        };
        if let Some(room) = &mut waits.room {
            if room.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let output = waits.output.take();
        if let (Some(batch), Some(room)) = (waits.batch.take(), waits.room.take()) {
            batch.release_in(room.take());
        }
        **waiting = None;
        match output {
            Some(output) => Poll::Ready(output),
            None => polled_after_completion(),
        }
    }
}
