//! Hooks for [`on_defer`](crate::RunnerBuilder::on_defer) that carry the caller's span to its tasks (feature `tracing`).
//!
//! They are hooks, and not a feature that does it unasked, because a span that is attached to a task stays open as long
//! as the task. [`in_current_span`] is for those who want the task inside the request's span;
//! [`following_current_span`] gives the task a span of its own, so that the request's span ends with the request. With
//! either, the event of the task's error, panic or timeout stands in that span too: see
//! [`on_defer`](crate::RunnerBuilder::on_defer).
//!
//! ```
//! let runner = after::Runner::builder()
//!     .on_defer(after::tracing::following_current_span)
//!     .build();
//! # drop(runner);
//! ```

use tracing::{Instrument as _, Level, Span};

use crate::{report::TaskInfo, task::TaskFuture};

/// Runs the task in the span that is current where it is deferred.
///
/// That span closes when the task has ended, not with the request. Without a current span the task is left as it is.
///
/// ```
/// let runner = after::Runner::builder().on_defer(after::tracing::in_current_span).build();
/// # drop(runner);
/// ```
pub fn in_current_span(_: &TaskInfo<'_>, future: TaskFuture) -> TaskFuture {
    let span = Span::current();
    if span.is_none() {
        return future;
    }
    TaskFuture::new(future.instrument(span))
}

/// Runs the task in a span of its own, `after.task` at level `INFO`, which follows from the one that is current where it
/// is deferred.
///
/// Its fields are the task's name (`task`), its `key`, if it has one, and the `location` of its `defer`. It has no parent,
/// so the request's span closes with the request. It is made at the call of `defer` and entered while
/// the task is polled.
///
/// ```
/// let runner = after::Runner::builder()
///     .on_defer(after::tracing::following_current_span)
///     .build();
/// # drop(runner);
/// ```
pub fn following_current_span(task: &TaskInfo<'_>, future: TaskFuture) -> TaskFuture {
    let span = tracing::span!(
        target: "after",
        parent: None,
        Level::INFO,
        "after.task",
        task = task.name,
        key = task.key,
        location = %task.location,
    );
    // The id alone: a clone of the request's span would keep it open.
    span.follows_from(Span::current().id());
    TaskFuture::new(future.instrument(span))
}
