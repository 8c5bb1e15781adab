//! What may be deferred.

use std::future::IntoFuture;

use super::result::TaskResult;

/// What may be deferred: a future, or what turns into one, that is `Send + 'static` and returns `()` or a `Result`.
///
/// Everything that meets these bounds is one; nobody implements it. It stands for them so that the compiler can say what to
/// write where a closure is given: `async { .. }` instead of `|| ..`, or `defer_blocking`. Generic code may write
/// the bounds out, or name this.
///
/// ```
/// use after::IntoTask;
///
/// fn defer_twice(task: impl IntoTask + Clone) {
///     after::defer(task.clone());
///     after::defer(task);
/// }
/// # futures::executor::block_on(after::scope(async { defer_twice(std::future::ready(())) }));
/// ```
#[diagnostic::on_unimplemented(
    message = "a deferred task is a future, and `{Self}` is none",
    label = "not a future",
    note = "write `async {{ .. }}` or `async move {{ .. }}` where this is a closure, `|| ..` or `async || ..`",
    note = "for a closure that blocks its thread there is `defer_blocking`"
)]
pub trait IntoTask: IntoFuture<IntoFuture: Send + 'static, Output: TaskResult> {}

// Not `do_not_recommend`: a future that is not `Send`, or returns something else, is told so.
impl<F> IntoTask for F
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: TaskResult,
{
}
