//! What may be deferred, and the builder that names it.

use std::{any::Any, error::Error, future::IntoFuture, panic::Location, sync::Arc, time::Duration};

use crate::{
    blocking::{Blocking, Slot},
    builder::TaskBuilder,
    current,
    error::{HOW_TO_HAVE_A_SCOPE, TryDeferError},
    losses::Loss,
    node::{Link, Node},
};

/// The error of a deferred task, its type forgotten.
///
/// Anything that `?` turns into one can fail a task; [`Ok`](crate::Ok) settles it as the error type of an async block.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// `Ok(value)` with the error type settled to [`BoxError`].
///
/// An async block that uses `?` has no place to name its error type; ending it with this does. The name follows
/// `anyhow::Ok`.
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::defer(async {
///     let port: u16 = "8080".parse()?;
///     assert_eq!(port, 8080);
///     after::Ok(())
/// });
/// # }));
/// ```
#[allow(non_snake_case)]
pub fn Ok<T>(value: T) -> Result<T, BoxError> {
    Result::Ok(value)
}

/// What a deferred task may return: `()`, `!`, or a `Result` whose error turns into a [`BoxError`].
///
/// An `Err` is reported and counted as failed. The value of an `Ok` is dropped. The trait is sealed: a task that
/// returns something else has most likely lost a value that its author wanted, so it does not compile, and the
/// compiler says what to write.
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::defer(async { println!("fine") });
/// after::defer(async { "7".parse::<u8>() }); // a `Result`: an error would be reported
/// # }));
/// ```
#[diagnostic::on_unimplemented(
    message = "a deferred task must return `()` or a `Result`, not `{Self}`",
    note = "end the block with `;`, or with `after::Ok(())` if it uses `?`"
)]
pub trait TaskResult: sealed::Sealed {}

/// How one task ended, before it is counted.
#[allow(missing_debug_implementations)] // nobody outside can name it
pub enum End {
    Completed,
    Failed(BoxError),
    Panicked(Box<dyn Any + Send>),
    /// With the limit that it has passed.
    TimedOut(Duration),
    /// Blocking work that has returned after its limit, at which it was reported.
    Overdue,
    Discarded,
    /// By a limit, which left no room for it.
    Shed,
    /// Dropped unfinished.
    Lost(Loss),
}

pub(crate) mod sealed {
    use super::{BoxError, End};

    pub trait Sealed {
        #[doc(hidden)]
        fn into_end(self) -> End;
    }

    /// Names `!` on stable Rust: it is the output type of `fn() -> !`.
    pub trait Output {
        type Type;
    }
    impl<T> Output for fn() -> T {
        type Type = T;
    }
    pub(crate) type Never = <fn() -> ! as Output>::Type;

    impl Sealed for () {
        #[inline]
        fn into_end(self) -> End {
            End::Completed
        }
    }

    impl Sealed for Never {
        fn into_end(self) -> End {
            self
        }
    }

    impl<T, E: Into<BoxError>> Sealed for Result<T, E> {
        #[inline]
        fn into_end(self) -> End {
            match self {
                Result::Ok(_) => End::Completed,
                Err(error) => End::Failed(error.into()),
            }
        }
    }
}

impl TaskResult for () {}
impl TaskResult for sealed::Never {}
impl<T, E: Into<BoxError>> TaskResult for Result<T, E> {}

/// Runs `task` once the current request is over, however it ends.
///
/// "Over" means that the [`scope`](crate::scope) around this code has resolved, was dropped, or panicked. Nothing of
/// `task` runs inside this call, nor before that moment. It then runs beside the other tasks of the same scope,
/// concurrently and not in parallel, started in the order of deferral.
///
/// An error or a panic of the task is reported (see the [crate's docs](crate#reporting)) and counted, and touches
/// nothing else. A task that is dropped before it has ended counts as lost; one
/// that a limit drops, as shed.
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
/// let answer = after::scope(async {
///     after::defer(async { println!("the response is out") });
///     "the response"
/// })
/// .await;
/// assert_eq!(answer, "the response");
/// # });
/// ```
#[track_caller]
#[inline]
pub fn defer<F>(task: F)
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: TaskResult,
{
    if try_defer(task).is_err() {
        outside_scope("defer");
    }
}

/// As [`defer`], but gives the task back when there is no scope to collect it. The one to use in a destructor.
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
///         if let Err(error) = after::try_defer(async move { println!("removing {path}") }) {
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
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: TaskResult,
{
    let location = Location::caller();
    current::with(move |registry| match registry {
        Some(registry) => {
            // `into_future` is the user's code: it runs before anything of ours is taken.
            let work = task.into_future();
            registry.defer(Node::boxed(
                work,
                std::any::type_name::<F::IntoFuture>(),
                location,
            ));
            Result::Ok(())
        }
        None => Err(TryDeferError::new(task)),
    })
}

/// Runs a blocking closure once the current request is over, on the spawner's pool of blocking threads.
///
/// The closure runs with the scope current, so that it may [`defer`] in turn and read the
/// [`context`](crate::context) and the [`outcome`](crate::outcome()). It starts when its turn among the scope's tasks
/// comes. Once started it can't be stopped: it stays pending until it returns.
///
/// # Panics
///
/// Outside a scope, at the caller's line.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::defer_blocking(|| std::fs::write(std::env::temp_dir().join("after-audit.log"), "GET /\n"));
/// # }));
/// ```
#[track_caller]
pub fn defer_blocking<F, R>(work: F)
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskResult,
{
    if !current::in_scope() {
        outside_scope("defer_blocking");
    }
    let node = blocking_node(None, work, Location::caller());
    current::with(|registry| {
        if let Some(registry) = registry {
            registry.place(None, node);
        }
    });
}

/// Names the next task and sets how it runs: `after::task("audit").defer(..)`.
///
/// The name stands in reports and in the [`ShutdownReport`](crate::ShutdownReport). It is `&'static str` because names
/// become labels of metrics, where a value per request would be a mistake. An unnamed task has its type's name.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::task("audit").defer(async { println!("GET /") });
/// # }));
/// ```
pub fn task(name: &'static str) -> TaskBuilder {
    TaskBuilder::new(name)
}

/// Takes back the task that was deferred with this key, if it has not been handed over: it will not run.
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

pub(crate) fn blocking_node<F, R>(
    name: Option<&'static str>,
    work: F,
    location: &'static Location<'static>,
) -> Link
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskResult,
{
    let name = name.unwrap_or_else(std::any::type_name::<F>);
    let slot = Arc::new(Slot::default());
    let work = Blocking::new(move || work().into_end(), slot.clone());
    let mut node = Node::boxed(work, name, location);
    node.as_mut().make_rare().blocking = Some(slot);
    node
}

#[cold]
#[track_caller]
pub(crate) fn outside_scope(function: &str) -> ! {
    panic!(
        "`{function}` called outside a scope, so nothing would run the task. {HOW_TO_HAVE_A_SCOPE} Where there may be no \
         request, in a destructor say, use `try_defer`."
    );
}
