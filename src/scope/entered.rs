//! Futures that run in a scope, and do not end it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{open::OpenScope, scope::panic_with};
use crate::{
    report,
    runner::{Registry, current},
};

impl OpenScope {
    /// Wraps a future that is a piece of the request: it is polled, and dropped, with the scope current.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// async fn handler() -> Result<u32, std::num::ParseIntError> {
    ///     after::task("receipt").on_success().defer(async { println!("receipt") });
    ///     "7".parse()
    /// }
    ///
    /// let mut request = after::open();
    /// let response = request.scope(handler()).await;
    /// request.ready().await;
    /// // Here the response is sent, in pieces.
    /// request.end(match response {
    ///     Ok(_) => after::Outcome::Finished,
    ///     Err(_) => after::Outcome::Failed,
    /// });
    /// # after::Runner::global().drain().await;
    /// # });
    /// ```
    pub fn scope<F: Future>(&mut self, future: F) -> Entered<'_, F> {
        Entered {
            future: Some(future),
            scope: self,
        }
    }
}

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
        future: Option<F>,
        scope: &'a mut OpenScope,
    }

    impl<F> PinnedDrop for Entered<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            drop_in(this.scope.registry(), this.future, ENTERED);
        }
    }
}

impl<F: Future> Future for Entered<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match poll_in(this.scope.registry(), this.future, cx, ENTERED) {
            Some(polled) => polled,
            None => panic!("`Entered` polled after completion: its future has resolved already"),
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

pin_project_lite::pin_project! {
    /// Future that runs in the scope of a [`Handle`](super::Handle); made by [`Handle::scope`](super::Handle::scope).
    ///
    /// # Panics
    ///
    /// When polled after it has resolved. A panic of the inner future propagates.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future with the scope current, so that its destructors may defer. What it has deferred
    /// runs. Dropping never panics: a panic of the inner future's destructor is caught and reported.
    #[must_use = "futures do nothing unless polled"]
    pub struct Attached<F> {
        // `Some` until it has resolved or is dropped.
        #[pin]
        pub(super) future: Option<F>,
        pub(super) registry: Registry,
    }

    impl<F> PinnedDrop for Attached<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if this.future.is_some() {
                current::with(|outer| this.registry.attach(outer));
                drop_in(this.registry, this.future, ATTACHED);
            }
        }
    }
}

impl<F: Future> Future for Attached<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        current::with(|outer| this.registry.attach(outer));
        let Some(polled) = poll_in(this.registry, this.future, cx, ATTACHED) else {
            panic!("`Attached` polled after completion");
        };
        if polled.is_ready() {
            // It has ended, however long this is kept.
            drop(this.registry.close());
        }
        polled
    }
}

impl<F> fmt::Debug for Attached<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// What reports call them.
const ENTERED: &str = "a future in an open scope";
const ATTACHED: &str = "a future in the scope of a handle";

/// Polls what has not resolved, in its scope; `None` if it has before. What resolves is dropped there, because its
/// destructors may defer, and before the answer is given out.
fn poll_in<F: Future>(
    registry: &Registry,
    mut slot: Pin<&mut Option<F>>,
    cx: &mut Context<'_>,
    what: &str,
) -> Option<Poll<F::Output>> {
    let future = slot.as_mut().as_pin_mut()?;
    let Poll::Ready(output) = current::enter(registry, || future.poll(cx)) else {
        return Some(Poll::Pending);
    };
    match report::catch(|| current::enter(registry, || slot.set(None))) {
        Ok(()) => Some(Poll::Ready(output)),
        Err(payload) => {
            let of_what = format!("what {what} has resolved to");
            panic_with(registry, &of_what, output, payload)
        }
    }
}

/// Drops what has not resolved, in its scope.
fn drop_in<F>(registry: &Registry, mut slot: Pin<&mut Option<F>>, what: &str) {
    if slot.is_some() {
        report::clean_up(what, || current::enter(registry, || slot.set(None)));
    }
}
