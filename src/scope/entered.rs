//! A future that is a piece of an open scope.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{open::OpenScope, scope::panic_with};
use crate::{report, runner::current};

pin_project_lite::pin_project! {
    /// Future that runs in an [`OpenScope`], as a piece of its request; made by [`OpenScope::scope`].
    ///
    /// The scope is current while the inner future is polled and while it is dropped, so that its destructors may
    /// defer. The inner future is dropped as soon as it resolves.
    ///
    /// # Cancel safety
    ///
    /// Dropping it before that drops the inner future, and leaves the scope open with what was deferred. This never panics:
    /// a panic of the inner future's destructor is caught and reported.
    ///
    /// # Panics
    ///
    /// When polled after it has resolved. A panic of the inner future passes through, and leaves the scope open, as one in
    /// [`enter`](OpenScope::enter) does.
    #[must_use = "futures do nothing unless polled"]
    pub struct Entered<'a, F> {
        // `Some` until it has resolved or is dropped.
        #[pin]
        pub(super) future: Option<F>,
        pub(super) scope: &'a mut OpenScope,
    }

    impl<F> PinnedDrop for Entered<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                let dropped = report::catch(|| this.scope.enter(|| this.future.set(None)));
                if let Err(payload) = dropped {
                    report::unnamed_panicked("a future in an open scope", payload);
                }
            }
        }
    }
}

impl<F: Future> Future for Entered<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let registry = this.scope.registry();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            panic!("`Entered` polled after completion: its future has resolved already");
        };
        let Poll::Ready(output) = current::enter(registry, || future.poll(cx)) else {
            return Poll::Pending;
        };
        // Its destructors may defer. They are before the answer.
        match report::catch(|| current::enter(registry, || this.future.set(None))) {
            Ok(()) => Poll::Ready(output),
            Err(payload) => panic_with(
                registry,
                "what a future in an open scope has resolved to",
                output,
                payload,
            ),
        }
    }
}

impl<F> fmt::Debug for Entered<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered")
            .field("over", &self.future.is_none())
            .finish_non_exhaustive()
    }
}
