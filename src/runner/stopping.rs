//! Telling long tasks that a shutdown has begun.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{core::RunnerRef, current};
use crate::account::Listener;

/// Future that resolves when a shutdown begins: for retry loops and other long tasks, for streams and sockets.
///
/// It resolves at [`stop`](crate::stop()) or [`shutdown`](crate::shutdown()) of this task's Runner, of the global Runner
/// outside a scope, and stays resolved from then on.
///
/// ```
/// # async fn send() -> bool { true }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # after::scope(async {
/// after::defer(async {
///     let mut stopping = after::stopping();
///     while !send().await {
///         tokio::select! {
///             _ = &mut stopping => break,
///             _ = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
///         }
///     }
/// });
/// # }).await;
/// # }
/// ```
pub fn stopping() -> Stopping {
    let runner = current::with(|registry| registry.map(|registry| registry.runner()));
    Stopping::new(runner.unwrap_or_else(RunnerRef::global))
}

/// Future that resolves when a shutdown begins; made by [`stopping`](crate::stopping()).
///
/// It stays resolved from then on, and may be polled again. Each clone is woken separately.
///
/// # Cancel safety
///
/// Cancel safe: dropping it does nothing, and the next one resolves at once if the shutdown has begun.
#[must_use = "futures do nothing unless polled"]
pub struct Stopping {
    runner: RunnerRef,
    listener: Listener,
}

impl Stopping {
    pub(crate) fn new(runner: RunnerRef) -> Self {
        let listener = runner.get().account.stop.listen();
        Stopping { runner, listener }
    }

    /// Whether it has resolved: for loops that don't await, in the closures of [`defer_blocking`](crate::defer_blocking).
    ///
    /// ```
    /// # fn next_file() -> Option<&'static str> { None }
    /// # futures::executor::block_on(async {
    /// # let runner = after::Runner::builder().build();
    /// # runner.scope(async {
    /// after::task("index").defer_blocking(|| {
    ///     let stopping = after::stopping();
    ///     while let Some(file) = next_file() {
    ///         if stopping.is_stopping() {
    ///             return Err("the index is incomplete: the service is stopping");
    ///         }
    ///         println!("reading {file}");
    ///     }
    ///     Ok(())
    /// });
    /// # }).await;
    /// # runner.drain().await;
    /// # });
    /// ```
    pub fn is_stopping(&self) -> bool {
        self.runner.get().account.is_stopping()
    }
}

impl Future for Stopping {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Stopping { runner, listener } = self.get_mut();
        let account = &runner.get().account;
        // The waiter was made before this look, so that a shutdown after it is not missed.
        if account.is_stopping() {
            return Poll::Ready(());
        }
        account.stop.poll(listener, cx)
    }
}

impl Clone for Stopping {
    fn clone(&self) -> Self {
        // With a waiter of its own: two that share one would take each other's waker.
        Stopping::new(self.runner.clone())
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.runner.get().account.stop.leave(&self.listener);
    }
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopping").finish_non_exhaustive()
    }
}
