//! What is said of a task beforehand: whether it runs, and beside which others.

use crate::report::Outcome;

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

/// Whether a task runs, decided on the outcome at the hand-over.
#[derive(Clone, Copy)]
pub(crate) struct Condition {
    pub(crate) holds: fn(Outcome) -> bool,
}
