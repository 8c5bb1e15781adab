//! What is said of a task beforehand: whether it runs, and beside which others.

use crate::report::Outcome;

/// Order of the tasks of one request: concurrent, one after the other, or in parallel.
///
/// ```
/// # futures::executor::block_on(async {
/// let request = async {
///     after::defer(async { println!("first the invoice is written") });
///     after::defer(async { println!("then it is sent") });
/// };
/// after::scope(request).order(after::Order::Sequential).await;
/// # });
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Started in the order of deferral, then all in progress at once on one thread, as in `join!`.
    #[default]
    Concurrent,
    /// One after the other, in the order of deferral. A task that awaits work which it has deferred itself
    /// deadlocks: that work stands behind it. Only a timeout ends it.
    Sequential,
    /// Each is spawned separately, so that a runtime with several threads spreads them. Started in the order of deferral
    /// only as far as the runtime keeps it.
    Parallel,
}

/// Whether a task runs, decided on the outcome at the hand-over.
#[derive(Clone, Copy)]
pub(crate) struct Condition {
    pub(crate) holds: fn(Outcome) -> bool,
}
