//! What happens beyond `max_waiting`.

/// What happens to tasks when the queue is full: backpressure, or load shedding.
///
/// The queue is full when [`max_waiting`](crate::RunnerBuilder::max_waiting) tasks wait.
///
/// Under [`Backpressure`](Overflow::Backpressure) a task that calls its own server may deadlock: the response waits for the
/// queue, and the queue for that task. Give it a [timeout](crate::TaskBuilder::timeout), or a Runner of its own.
///
/// ```
/// use after::{Overflow, Runner};
///
/// // For statistics: rather lose some than slow responses down.
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
    /// The response waits (backpressure): a scope that has collected something resolves when the queue has capacity for its
    /// tasks. Nothing that a response can wait for is dropped. A request with more tasks than the queue can ever hold waits
    /// until no other task waits, and then all of its tasks are accepted.
    ///
    /// Tasks with no response to hold back (of a scope that is dropped, deferred by a task or late through a handle, of a
    /// held batch) are queued up to 2 × `max_waiting`, then dropped; up to `max_waiting` while a response waits. Under the
    /// layer of feature `tower` the wait is before the head of the response, and nobody waits for another's client to read:
    /// see that module's limits.
    ///
    /// A task that calls a service whose response waits for this Runner (its own server, say) may wait for itself: give
    /// such calls a timeout, or a Runner of their own.
    Backpressure,
    /// The newest tasks are dropped (load shedding), and counted as [shed](crate::Stats::shed).
    Shed,
}
