//! What keeps the tasks of an open scope from starting, for those that are to start with the last byte of a response.

use std::fmt;

use super::open::OpenScope;
use crate::runner::gate::Hold;

/// Guard that keeps the tasks of an [`OpenScope`] from starting until the last one is dropped; made by
/// [`OpenScope::start_guard`].
///
/// For tasks that wait until a response is written: attach one to each piece of the response, to be dropped with it. The layer of feature `tower` does
/// so with each data frame, under `RunAfter::Written`.
///
/// It may be dropped anywhere, also under a lock of a server: the last one marks the tasks as ready and wakes the executor,
/// and none of your code runs there, no task, no destructor, no observer. One that is leaked, or kept forever, keeps the
/// tasks waiting forever: they stay pending. Tasks whose batch is dropped meanwhile are lost.
///
/// Timeouts, and the queue for permits, begin when the last one is dropped. What a [`Handle`](crate::Handle) defers
/// meanwhile starts with the rest. `Send` and `Sync`; cloning and dropping it costs two atomic operations.
///
/// ```
/// # futures::executor::block_on(async {
/// use after::StartGuard;
/// use bytes::Bytes;
///
/// /// A piece of the response.
/// struct Piece {
///     data: &'static [u8],
///     _unwritten: StartGuard,
/// }
///
/// impl AsRef<[u8]> for Piece {
///     fn as_ref(&self) -> &[u8] {
///         self.data
///     }
/// }
///
/// let mut request = after::open();
/// request.enter(|| after::defer(async { println!("all is written") }));
/// let pieces: Vec<Bytes> = [&b"the "[..], b"response"]
///     .into_iter()
///     .map(|data| Bytes::from_owner(Piece { data, _unwritten: request.start_guard() }))
///     .collect();
/// request.end(after::Outcome::Finished);
/// drop(pieces); // by the server, one by one
/// # after::Runner::global().drain().await;
/// # });
/// ```
#[must_use = "a guard that is dropped at once keeps nothing from starting"]
#[derive(Clone)]
pub struct StartGuard {
    #[allow(dead_code)] // For its destructor.
    hold: Hold,
}

impl fmt::Debug for StartGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartGuard").finish_non_exhaustive()
    }
}

impl OpenScope {
    /// Guard that keeps the tasks of this scope from starting until all guards are dropped: see [`StartGuard`].
    ///
    /// The request itself ends at [`end`](OpenScope::end), guards or not: its outcome and its conditions are decided there,
    /// and its tasks go to the spawner, or to the caller of [`hold`](OpenScope::hold). They wait there. A guard that is
    /// taken after [`hand_over`](OpenScope::hand_over) has started tasks keeps nothing from starting.
    ///
    /// The first one costs an allocation, and none is made until then.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use after::{Outcome, Runner};
    ///
    /// let runner = Runner::builder().build();
    /// let mut request = runner.open();
    /// request.enter(|| after::defer(async { println!("the last byte is written") }));
    /// let unwritten = request.start_guard();
    /// request.end(Outcome::Finished);
    /// assert_eq!(runner.stats().pending, 1);
    /// // When the socket has taken the last byte:
    /// drop(unwritten);
    /// runner.drain().await;
    /// # assert_eq!(runner.stats().completed, 1);
    /// # });
    /// ```
    #[inline]
    pub fn start_guard(&mut self) -> StartGuard {
        StartGuard {
            hold: self.gate.get_or_insert_with(Hold::new).clone(),
        }
    }

    #[cold]
    pub(super) fn wait_for(&mut self, hold: Hold) {
        let gate = hold.gate().clone();
        // The gate that this opens nobody waits for yet.
        drop(hold);
        if !gate.is_open() && !self.attached {
            self.registry().wait_for(gate);
        }
    }
}
