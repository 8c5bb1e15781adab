//! A request whose tasks go to the caller.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::scope::{Scope, polled_after_completion};
use crate::batch::Batch;

pin_project_lite::pin_project! {
    /// Future of a request that returns its tasks to the caller; made by [`Scope::held`]. Resolves to the output and the
    /// [`Batch`].
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it has resolved, or if the request panics, the tasks go to the Runner's spawner, as those of a
    /// plain [`Scope`] do.
    ///
    /// # Panics
    ///
    /// As [`Scope`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Held<F: Future> {
        #[pin]
        pub(super) scope: Scope<F>,
    }
}

impl<F: Future> Future for Held<F> {
    type Output = (F::Output, Batch);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().scope.poll_request(
            cx,
            |_, _, output, ended| Poll::Ready((output, ended.into_batch())),
            |_, _| polled_after_completion(),
        )
    }
}

impl<F: Future> fmt::Debug for Held<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("over", &self.scope.is_over())
            .finish_non_exhaustive()
    }
}
