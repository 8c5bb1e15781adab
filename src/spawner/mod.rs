//! Runtimes: the [`Spawner`] contract, the spawners that come with the crate, and how one is found.
//!
//! | Spawner | Feature | Batches run on | Blocking work runs on | Timeouts by |
//! |---|---|---|---|---|
//! | [`Tokio`] | `tokio` (default) | the runtime of the handle | its blocking pool | its clock |
//! | [`Smol`] | `smol` | smol's global executor | the pool of the `blocking` crate | `async-io`'s timer |
//! | [`AsyncStd`] | `async-std` | async-std's executor | its blocking pool | `async-io`'s timer |
//! | [`Threads`] | `threads` (default) | a pool of this crate | the pool of the `blocking` crate | one thread's timer |
//! | [`from_fn`] | always there | whatever the function does | the same; without `threads` a thread for each | one thread's timer |
//!
//! On `wasm32-unknown-unknown` blocking work runs inside the batch, and timeouts are by `setTimeout`. [`Threads`] loses what
//! it is given: no thread can be started there.
//!
//! # Which one is used
//!
//! A [`Runner`](crate::Runner) without a spawner of its own looks for a runtime when a scope defers its first task, and,
//! if none is current there, once more when the request ends: tokio, if a runtime is current on the thread; async-std, inside
//! one of its tasks. Where none is current (a destructor on a foreign thread, say) it takes the first runtime that it has
//! seen. If it has seen none: smol, async-std, [`Threads`], the first of them that is enabled. If none is, the batch is
//! lost, and a report says what to do.
//!
//! # A runtime that has gone
//!
//! A tokio runtime that was dropped accepts nothing any more. Such a Runner then tries the runtime that is current on the
//! thread, the one that it remembers, and the one for where there is none. It forgets the one that was dropped, and
//! remembers the next that it sees. So each test of a suite may have a runtime of its own, and a
//! request may begin under one and end under another. What a runtime had accepted before it was dropped is lost with
//! it, and a task that needs it (for its timers, say) panics elsewhere: await [`shutdown`](crate::shutdown()) before.
//!
//! A spawner that was given to the Runner is the only one: what it drops is lost.
//!
#![cfg_attr(
    not(feature = "tokio"),
    doc = "[`Tokio`]: https://docs.rs/after/latest/after/spawner/struct.Tokio.html"
)]
#![cfg_attr(
    not(feature = "smol"),
    doc = "[`Smol`]: https://docs.rs/after/latest/after/spawner/struct.Smol.html"
)]
#![cfg_attr(
    not(feature = "async-std"),
    doc = "[`AsyncStd`]: https://docs.rs/after/latest/after/spawner/struct.AsyncStd.html"
)]
#![cfg_attr(
    not(feature = "threads"),
    doc = "[`Threads`]: https://docs.rs/after/latest/after/spawner/struct.Threads.html"
)]

// To be read in this order: the contract, which stands here because its path is a public one; `from_fn`; a file for each
// runtime; `detect`, `launch`.

mod detect;
mod from_fn;
mod launch;

#[cfg(feature = "async-std")]
mod async_std;
#[cfg(feature = "smol")]
mod smol;
#[cfg(feature = "threads")]
mod threads;
#[cfg(feature = "tokio")]
mod tokio;

use std::time::Duration;

#[cfg(feature = "async-std")]
#[cfg_attr(docsrs, doc(cfg(feature = "async-std")))]
pub use self::async_std::AsyncStd;
#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use self::smol::Smol;
#[cfg(feature = "threads")]
#[cfg_attr(docsrs, doc(cfg(feature = "threads")))]
pub use self::threads::Threads;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use self::tokio::Tokio;
pub use self::{
    detect::detect,
    from_fn::{FromFn, from_fn},
};
use crate::{batch::Batch, limit::sleep_without_runtime, sync};
pub use crate::{limit::Sleep, task::BlockingWork};

/// Runs batches: the link to a runtime or an executor.
///
/// The contract:
///
/// - `spawn` detaches the batch: the batch is polled to its end, and `spawn` does not wait for it.
/// - `spawn` never polls the batch inside the call. It is called when a request ends, often by the task that is about
///   to write the response.
/// - It may be called on any thread, also where no runtime is current, also from a destructor during unwinding.
/// - Dropping the batch loses its tasks: they are counted and reported as lost.
/// - A panic of `spawn` is caught; if it dropped the batch, its tasks are lost.
///
/// A panic of a task does not leave the batch.
///
/// ```
/// use after::{Batch, Runner, Spawner};
///
/// struct ThreadPerBatch;
///
/// impl Spawner for ThreadPerBatch {
///     fn spawn(&self, batch: Batch) {
///         std::thread::spawn(|| futures::executor::block_on(batch));
///     }
/// }
///
/// let runner = Runner::new(ThreadPerBatch);
/// # drop(runner);
/// ```
#[diagnostic::on_unimplemented(
    note = "a function is not a spawner by itself: wrap it in `after::spawner::from_fn`"
)]
pub trait Spawner: Send + Sync + 'static {
    /// Runs the batch to its end, elsewhere: see the [contract](Spawner).
    ///
    /// ```
    /// use after::{Batch, Spawner};
    ///
    /// struct OnTokio(tokio::runtime::Handle);
    ///
    /// impl Spawner for OnTokio {
    ///     fn spawn(&self, batch: Batch) {
    ///         self.0.spawn(batch); // detached, and not polled in here
    ///     }
    /// }
    /// ```
    fn spawn(&self, batch: Batch);

    /// Calls [`BlockingWork::run`] on a thread that may block. Default: the pool of the `blocking` crate, which starts
    /// threads as they are needed. Without the feature `threads`: a thread of its own, named `after-blocking`, for each;
    /// if it can't be started the work is dropped. On `wasm32-unknown-unknown`, which has no threads: inside this call.
    ///
    /// Dropping the work instead loses its task.
    ///
    /// ```
    /// use after::{Batch, Spawner, spawner::BlockingWork};
    ///
    /// struct OnTokio(tokio::runtime::Handle);
    ///
    /// impl Spawner for OnTokio {
    ///     fn spawn(&self, batch: Batch) {
    ///         self.0.spawn(batch);
    ///     }
    ///
    ///     // On the runtime's pool, so that its limit of threads holds.
    ///     fn spawn_blocking(&self, work: BlockingWork) {
    ///         self.0.spawn_blocking(|| work.run());
    ///     }
    /// }
    /// ```
    fn spawn_blocking(&self, work: BlockingWork) {
        sync::unblock(move || work.run());
    }

    /// Timer that resolves after `duration`, for timeouts. Default: one that needs no runtime, one thread for the process; on
    /// `wasm32-unknown-unknown` JavaScript's `setTimeout`.
    ///
    /// A spawner whose runtime has a clock that tests can pause returns a sleep of that. If this or the sleep panics,
    /// because the runtime was built without a timer, say, the Runner says so once and uses the default from then on.
    ///
    /// The sleep of a task is polled after the task, with the same waker. tokio holds back what is ready when a task has
    /// used up its budget, and a sleep of tokio's would then not be seen. With the feature `tokio` this crate takes care of
    /// that; without it, wrap the sleep in `tokio::task::unconstrained`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use after::{Batch, Spawner, spawner::Sleep};
    ///
    /// struct OnTokio(tokio::runtime::Handle);
    ///
    /// impl Spawner for OnTokio {
    ///     fn spawn(&self, batch: Batch) {
    ///         self.0.spawn(batch);
    ///     }
    ///
    ///     // By tokio's clock, which tests can pause.
    ///     fn sleep(&self, duration: Duration) -> Sleep {
    ///         let _entered = self.0.enter();
    ///         Sleep::new(tokio::time::sleep(duration))
    ///     }
    /// }
    /// ```
    fn sleep(&self, duration: Duration) -> Sleep {
        sleep_without_runtime(duration)
    }
}
