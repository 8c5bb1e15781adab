//! What happens beyond `max_waiting`.

/// What happens to tasks for which there is no room: `max_waiting` tasks wait already.
///
/// A task that asks its own server waits, under [`Backpressure`](Overflow::Backpressure), for an answer that may wait for
/// room, which the end of that task makes. Give it a [time limit](crate::TaskBuilder::timeout), or a Runner of its own.
///
/// ```
/// use after::{Overflow, Runner};
///
/// let runner = Runner::builder()
///     .max_running(64)
///     .max_waiting(1_000)
///     .overflow(Overflow::Shed)
///     .build();
/// # drop(runner);
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The response waits: a scope that has collected something resolves when there is room for its tasks. Nothing that a
    /// response can wait for is dropped, whatever its number: a request with more tasks than ever have room waits until no
    /// other task waits, and then all of its tasks are accepted.
    ///
    /// What can't wait (a scope that is dropped, work deferred by a task or late through a handle, a held batch) is
    /// accepted up to twice `max_waiting`, and shed beyond; behind a response that waits, up to once. Under the layer of
    /// feature `tower` room is waited for before the head of the response, and others do not wait for the client to read:
    /// see that module's limits.
    ///
    /// A task that calls a service whose response waits for room on the same Runner (its own server, say) may wait for
    /// what only its own end makes: give such calls a time limit, or a Runner of their own.
    Backpressure,
    /// The newest tasks are dropped, and counted as [shed](crate::Stats::shed).
    Shed,
}
