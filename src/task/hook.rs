//! What `on_defer` wraps: a task, its type forgotten.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{cell::BoxedTask, result::End, wrapped::poll_inside};

/// Future of a deferred task, as an [`on_defer`](crate::RunnerBuilder::on_defer) hook gets and returns it.
///
/// Dropping it instead of returning it loses the task: what the hook returns is what runs.
///
/// ```
/// use after::{Runner, TaskFuture};
///
/// let runner = Runner::builder()
///     .on_defer(|task, future| {
///         let name = task.name.to_owned();
///         TaskFuture::new(async move {
///             let output = future.await;
///             println!("{name} has ended");
///             output
///         })
///     })
///     .build();
/// # drop(runner);
/// ```
pub struct TaskFuture {
    form: Form,
}

enum Form {
    /// As it was deferred: a hook that gives it back costs no box.
    Deferred(BoxedTask),
    Wrapped(Pin<Box<dyn Future<Output = TaskOutput> + Send>>),
}

/// Result of a [`TaskFuture`]: how its task ended. A hook returns what it got; it cannot make one.
///
/// See [`error`](TaskOutput::error) for an example.
pub struct TaskOutput {
    pub(crate) end: End,
    /// It was reported where the task has ended.
    pub(super) reported: bool,
}

impl TaskOutput {
    pub(crate) fn of(end: End) -> Self {
        TaskOutput {
            end,
            reported: false,
        }
    }

    /// Error that the task has returned; `None` if it has returned `()` or `Ok`.
    ///
    /// It is `None` too for a closure on the blocking pool that has panicked or was lost. A task that panics, is past its
    /// timeout, or is dropped has no output at all: the hook's future is unwound, or dropped, at its `await`.
    ///
    /// ```
    /// use after::{Runner, TaskFuture};
    ///
    /// let runner = Runner::builder()
    ///     .on_defer(|_, future| TaskFuture::new(async move {
    ///         let output = future.await;
    ///         if let Some(error) = output.error() {
    ///             println!("for the error tracker: {error}");
    ///         }
    ///         output
    ///     }))
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.end {
            End::Failed(error) => Some(&**error),
            _ => None,
        }
    }
}

impl TaskFuture {
    /// Wraps a future that awaits the task which a hook was given, and returns its output: see [`TaskFuture`].
    pub fn new(future: impl Future<Output = TaskOutput> + Send + 'static) -> Self {
        TaskFuture {
            form: Form::Wrapped(Box::pin(future)),
        }
    }

    /// The task that was deferred, to be wrapped.
    pub(crate) fn of(task: BoxedTask) -> Self {
        TaskFuture {
            form: Form::Deferred(task),
        }
    }

    /// The task itself, if no hook has wrapped it.
    pub(crate) fn into_deferred(self) -> Result<BoxedTask, TaskFuture> {
        match self.form {
            Form::Deferred(task) => Ok(task),
            form => Err(TaskFuture { form }),
        }
    }
}

impl Future for TaskFuture {
    type Output = TaskOutput;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TaskOutput> {
        match &mut self.form {
            Form::Deferred(task) => poll_inside(task, cx),
            Form::Wrapped(future) => future.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for TaskFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskFuture").finish_non_exhaustive()
    }
}

impl fmt::Debug for TaskOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskOutput").finish_non_exhaustive()
    }
}
