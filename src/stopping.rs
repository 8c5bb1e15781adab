//! Telling long tasks that a shutdown has begun.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{current, runner::RunnerRef, signal::Waiter, sync::atomic::Ordering};

/// Resolves when [`shutdown`](crate::shutdown()) of this task's Runner begins: for retry loops and other long tasks.
///
/// Outside a scope it is the global Runner's. It stays resolved from then on.
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

/// Resolves when the shutdown of a Runner begins; made by [`stopping`](crate::stopping()).
///
/// Stays resolved from then on. Dropping it does nothing.
pub struct Stopping {
    runner: RunnerRef,
    waiter: Waiter,
}

impl Stopping {
    pub(crate) fn new(runner: RunnerRef) -> Self {
        let waiter = runner.get().account.stop.waiter();
        Stopping { runner, waiter }
    }
}

impl Future for Stopping {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let account = &self.runner.get().account;
        // The waiter was made before this look, so that a shutdown after it is not missed.
        if account.stopping.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        account.stop.poll(&self.waiter, cx)
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.runner.get().account.stop.leave(&self.waiter);
    }
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopping").finish_non_exhaustive()
    }
}
