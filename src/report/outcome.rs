//! How a request ended.

use std::fmt;

/// How a request ended: success, failure, disconnect or panic.
///
/// Decided once, when the request ends. A task reads it with [`outcome`](crate::outcome()). The variants describe a plain
/// scope; under the layer of feature `tower` the response's head and body decide, as the docs of that module say.
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::task("cart").defer(async {
///     match after::outcome() {
///         Some(after::Outcome::Finished) => println!("bought"),
///         Some(after::Outcome::Cancelled) => println!("the client disconnected"),
///         outcome => println!("something went wrong: {outcome:?}"),
///     }
/// });
/// # }));
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The request's future resolved, and nothing said that this was a failure.
    Finished,
    /// It resolved to what [`Scope::failed_if`](crate::Scope::failed_if) calls a failure.
    Failed,
    /// Its scope was dropped first: the client disconnected, a timeout, a `select!`.
    Cancelled,
    /// It panicked.
    Panicked,
}

impl Outcome {
    /// Whether the request succeeded: [`Outcome::Finished`] alone.
    ///
    /// ```
    /// assert!(after::Outcome::Finished.is_success());
    /// assert!(!after::Outcome::Cancelled.is_success());
    /// ```
    pub fn is_success(self) -> bool {
        self == Outcome::Finished
    }

    /// One word in lower case, for a label of a metric or a column: `finished`, `failed`, `cancelled`, `panicked`.
    /// `Display` writes the same.
    ///
    /// ```
    /// assert_eq!(after::Outcome::Cancelled.as_str(), "cancelled");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Finished => "finished",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::Panicked => "panicked",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the width and the alignment that were asked for.
        f.pad(self.as_str())
    }
}
