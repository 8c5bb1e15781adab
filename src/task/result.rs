//! What a task may return, and how it has ended.

use std::{any::Any, error::Error, time::Duration};

use super::sealed;
use crate::report::Loss;

/// Error of a deferred task: any error type, boxed.
///
/// Whatever `?` converts into it can fail a task. [`Ok`](crate::Ok) makes it the error type of an async block.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// `Ok(value)` with the error type [`BoxError`], to end an async block that uses `?`.
///
/// Such a block has no other place to name its error type. The name follows
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

/// Types that a deferred task may return: `()`, `!`, or a `Result` whose error converts into a [`BoxError`].
///
/// An `Err` is reported and counted as failed. The value of an `Ok` is dropped. The trait is sealed: a task that
/// returns another type has most likely lost a value that its author wanted, so it does not compile, and the compiler
/// suggests what to write.
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

impl TaskResult for () {}
impl TaskResult for sealed::Never {}
impl<T, E: Into<BoxError>> TaskResult for Result<T, E> {}

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

/// How a task has ended in a poll. A word: an [`End`] would go through memory, also to say that there is none.
pub(crate) enum Ended {
    Completed,
    Otherwise(Box<End>),
}

impl From<End> for Ended {
    #[inline]
    fn from(end: End) -> Self {
        match end {
            End::Completed => Ended::Completed,
            end => Ended::Otherwise(Box::new(end)),
        }
    }
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Completed => End::Completed,
            Ended::Otherwise(end) => *end,
        }
    }
}
