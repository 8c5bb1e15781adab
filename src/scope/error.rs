//! Where there is no scope, but should be one.

use std::{
    error::Error,
    fmt,
    sync::{Mutex, PoisonError},
};

/// What to do where there is no scope, but should be one.
const HOW_TO_HAVE_A_SCOPE: &str = "If there is none around this code, add `.layer(AfterLayer::new())` (feature \
    `tower`), or wrap the future in `after::scope`. If this code runs on another task or thread (a spawned task, a \
    `tower::buffer::Buffer`, a framework that runs handlers on a task of its own), take a `Handle` along: `after::handle()`, or \
    `AfterLayer::provide_handle`.";

/// `so` is what comes of it, and `instead` what to do where there may be no request.
#[cold]
#[track_caller]
pub(super) fn outside_scope(function: &str, so: &str, instead: &str) -> ! {
    panic!(
        "`{function}` called outside a scope{so}. {HOW_TO_HAVE_A_SCOPE} Where there may be no request, {instead}."
    );
}

#[cold]
#[track_caller]
pub(super) fn cannot_defer(function: &str) -> ! {
    let so = ", so nothing would run the task";
    outside_scope(function, so, "in a destructor say, use `try_defer`");
}

/// Error returned by [`try_defer`](crate::try_defer()) outside a request; contains the task.
///
/// Run the task in place, spawn it, or drop it.
///
/// ```
/// let error = after::try_defer(async { println!("never") }).unwrap_err();
/// assert!(error.to_string().contains("after::scope"));
/// drop(error.into_inner());
/// ```
///
/// `?` turns it into a boxed error or one of `anyhow`, whatever the future is: it is `Sync` although the future may not be.
///
/// ```
/// use std::{cell::Cell, error::Error};
///
/// fn schedule(count: Cell<u32>) -> Result<(), Box<dyn Error + Send + Sync>> {
///     after::try_defer(async move { println!("{}", count.get()) })?;
///     Ok(())
/// }
/// assert!(schedule(Cell::new(1)).is_err());
/// ```
pub struct TryDeferError<F> {
    /// Nobody locks it. What is in it is reached by value alone, so that this is `Sync` wherever the task is `Send`.
    task: Mutex<F>,
}

impl<F> TryDeferError<F> {
    pub(crate) fn new(task: F) -> Self {
        TryDeferError {
            task: Mutex::new(task),
        }
    }

    /// The task that was not deferred.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// if let Err(error) = after::try_defer(async { println!("clean-up") }) {
    ///     error.into_inner().await; // no request, so here and now
    /// }
    /// # }
    /// ```
    pub fn into_inner(self) -> F {
        self.task
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> fmt::Debug for TryDeferError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryDeferError").finish_non_exhaustive()
    }
}

impl<F> fmt::Display for TryDeferError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outside a scope, so `try_defer` gives the task back. ")?;
        f.write_str(HOW_TO_HAVE_A_SCOPE)
    }
}

impl<F> Error for TryDeferError<F> {}
