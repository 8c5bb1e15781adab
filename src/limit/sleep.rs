//! Sleeps, for time limits: of a runtime, or of a timer that needs none.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    platform,
    report::{Payload, catch, clean_up},
};

/// Timer of a [`Spawner`](crate::Spawner): a future that resolves when the time is over. Dropping it cancels it.
///
/// ```
/// # use std::time::Duration;
/// use after::spawner::Sleep;
///
/// fn sleep(duration: Duration) -> Sleep {
///     Sleep::new(tokio::time::sleep(duration))
/// }
/// ```
pub struct Sleep {
    /// `None` once it is dropped.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Sleep {
    /// Wraps any future that resolves when the time is over: see [`Sleep`].
    pub fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Sleep {
            future: Some(Box::pin(future)),
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(future) = &mut self.future else {
            return Poll::Ready(());
        };
        // A task that uses up tokio's budget at each of its polls would leave nothing of it to its own time limit.
        #[cfg(feature = "tokio")]
        let future = &mut ::tokio::task::unconstrained(future);
        Pin::new(future).poll(cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // Its destructor is the user's code, and runs wherever a time limit is given up.
        let future = self.future.take();
        clean_up("a sleep", || drop(future));
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").finish_non_exhaustive()
    }
}

/// A sleep on a timer that needs no runtime, one thread for the process.
pub(crate) fn sleep_without_runtime(duration: Duration) -> Sleep {
    // No time is now, and not when the timer's thread comes by.
    if duration.is_zero() {
        return Sleep::new(std::future::ready(()));
    }
    // Further away than the clock reaches is never.
    match platform::timer(duration) {
        Some(timer) => Sleep::new(timer),
        None => Sleep::new(std::future::pending()),
    }
}

/// Whether a sleep has fired. One that panics is `broken`, and replaced by one that needs no runtime.
pub(crate) fn poll_sleep(
    sleep: &mut Sleep,
    limit: Duration,
    cx: &mut Context<'_>,
    broken: impl Fn(Payload),
) -> bool {
    // The waker may have panicked, and may do so again: then the new one is polled with the next waker.
    for _ in 0..2 {
        match catch(|| sleep.poll(cx)) {
            Ok(polled) => return polled.is_ready(),
            Err(payload) => broken(payload),
        }
        *sleep = sleep_without_runtime(limit);
    }
    false
}
