//! How a request ended, and how its tasks are ordered.

use crate::current;

/// How a request ended.
///
/// Decided when its scope ends, once; a task reads it with [`outcome`]. What is said here is of a plain scope; under the
/// layer of feature `tower` the response's head and body decide, as the docs of that module say.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The request's future resolved, and nothing said that this was a failure.
    Finished,
    /// It resolved to what [`Scope::failed_if`](crate::Scope::failed_if) calls a failure.
    Failed,
    /// Its scope was dropped first: the client has gone, a timeout, a `select!`.
    Cancelled,
    /// It panicked.
    Panicked,
}

impl Outcome {
    /// Whether the request did what it was meant to: [`Outcome::Finished`] alone.
    ///
    /// ```
    /// assert!(after::Outcome::Finished.is_success());
    /// assert!(!after::Outcome::Cancelled.is_success());
    /// ```
    pub fn is_success(self) -> bool {
        self == Outcome::Finished
    }
}

/// Whether a task runs, decided on the outcome at the hand-over.
#[derive(Clone, Copy)]
pub(crate) struct Condition {
    pub(crate) holds: fn(Outcome) -> bool,
}

/// How the tasks of one scope run beside each other.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Started in the order of deferral, then all in progress at once on one thread, as in `join!`.
    #[default]
    Concurrent,
    /// One after the other, in the order of deferral. A task that awaits work which it has deferred itself waits for
    /// ever: that work stands behind it.
    Sequential,
    /// Each a batch of its own, so that a runtime with several threads spreads them. Started in the order of deferral as
    /// far as the runtime keeps it.
    Parallel,
}

/// In a deferred task: how the request ended. `None` before the end of the request and outside scopes.
///
/// ```
/// # futures::executor::block_on(async {
/// let request = async {
///     assert_eq!(after::outcome(), None);
///     after::defer(async { assert_eq!(after::outcome(), Some(after::Outcome::Failed)) });
///     Err::<(), _>("no such user")
/// };
/// let _ = after::scope(request).failed_if(Result::is_err).await;
/// # });
/// ```
pub fn outcome() -> Option<Outcome> {
    current::with(|registry| registry.and_then(|registry| registry.outcome()))
}
