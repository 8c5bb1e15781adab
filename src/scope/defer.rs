//! Deferring into the current scope.

use std::{any::type_name, panic::Location};

use super::{
    builder::task,
    error::{TryDeferError, cannot_defer},
    place::place,
};
use crate::{
    runner::current,
    task::{IntoTask, TaskCell, TaskResult},
};

/// Runs `task` when the current request ends: on success, error, panic or disconnect.
///
/// The request ends when the [`scope`](crate::scope) around this code has resolved, is dropped, or panics; under the HTTP
/// layer, with the response body. `task` is not polled before, nor inside this call. It then runs concurrently with the
/// other tasks of the request, on one thread, and they start in the order of deferral.
///
/// An error or a panic of the task is reported (see [reports](crate::guide::production#reports)) and counted, and
/// affects nothing else. A task that is dropped before it completes counts as lost; one that is dropped because the queue
/// is full, as shed.
///
/// A task is a future: a closure does not compile, for blocking work there is [`defer_blocking`]. There is no delay, no
/// retry, no handle to join or cancel it, and no result to wait for: [what is not here](crate::guide::not_here) has what to
/// use instead.
///
/// # Panics
///
/// Outside a scope, at the caller's line. In a destructor, where a panic during unwinding would abort the process, use
/// [`try_defer`].
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(async {
/// let response = after::scope(async {
///     after::defer(async { println!("the response is out") });
///     "the response"
/// })
/// .await;
/// assert_eq!(response, "the response");
/// # });
/// ```
#[track_caller]
#[inline]
pub fn defer<F>(task: F)
where
    F: IntoTask,
{
    if try_defer(task).is_err() {
        cannot_defer("defer");
    }
}

/// Defers like [`defer`], but returns the task where there is no request. Use it in destructors.
///
/// # Errors
///
/// [`TryDeferError`], with the task in it, outside a scope. That includes the destructors of thread-locals, which run
/// when no scope can be current any more.
///
/// # Examples
///
/// A type that cleans up asynchronously although `Drop` is not async:
///
/// ```
/// struct Upload { path: &'static str }
///
/// impl Drop for Upload {
///     fn drop(&mut self) {
///         let path = self.path;
///         let remove = async move { println!("removing {path}") };
///         if let Err(error) = after::try_defer(remove) {
///             // Not in a request: nothing will run it for us.
///             drop(error.into_inner());
///         }
///     }
/// }
/// # drop(Upload { path: "a" });
/// ```
#[track_caller]
#[inline]
pub fn try_defer<F>(task: F) -> Result<(), TryDeferError<F>>
where
    F: IntoTask,
{
    let location = Location::caller();
    current::with(move |registry| match registry {
        Some(registry) => {
            // `into_future` is the user's code: it runs before anything of ours is taken.
            let work = task.into_future();
            let name = type_name::<F::IntoFuture>();
            if let Err(task) = registry.collect(TaskCell::boxed(work, name, location)) {
                place(registry, task);
            }
            Ok(())
        }
        None => Err(TryDeferError::new(task)),
    })
}

/// Runs a blocking closure when the current request ends, on a thread that may block.
///
/// The thread is of the spawner's pool: tokio's blocking pool, on tokio.
///
/// The closure runs with the scope current, so that it may [`defer`] and read the
/// [`context`](crate::context) and the [`outcome`](crate::outcome()). It starts when its turn among the scope's tasks
/// comes. Once started it can't be stopped: it stays pending until it returns.
///
/// On `wasm32-unknown-unknown`, where no thread can be started, it runs inside the batch when its turn comes, unless the
/// spawner has a way of its own. Its siblings wait for it, and its time limit is not looked at meanwhile.
///
/// # Panics
///
/// Outside a scope, at the caller's line.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// // Writing a file blocks: on a thread of the runtime it would delay other requests.
/// after::defer_blocking(|| {
///     let path = std::env::temp_dir().join("after-audit.log");
///     std::fs::write(path, "GET /\n") // an error is reported
/// });
/// # }));
/// ```
#[track_caller]
pub fn defer_blocking<F, R>(work: F)
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskResult,
{
    task(type_name::<F>()).defer_blocking(work);
}

/// Takes back the task that was deferred with this key: it will not run. Works until the request ends.
///
/// Returns whether there was one. It is dropped, inside this call, and counted as discarded. Outside a scope there is
/// none.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::task("reminder").key("cart:7").defer(async { println!("you left something") });
/// assert!(after::forget("cart:7"));
/// assert!(!after::forget("cart:7"));
/// # }));
/// ```
pub fn forget(key: &str) -> bool {
    current::with(|registry| registry.is_some_and(|registry| registry.forget(key)))
}
