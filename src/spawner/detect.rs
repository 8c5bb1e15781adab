//! Which spawner serves where none was given.

use super::Spawner;
#[cfg(feature = "async-std")]
use super::async_std::AsyncStd;
#[cfg(feature = "smol")]
use super::smol::Smol;
#[cfg(all(feature = "threads", not(any(feature = "smol", feature = "async-std"))))]
use super::threads::Threads;
#[cfg(feature = "tokio")]
use super::tokio::Tokio;
use crate::runner::DetectedRuntime;
#[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
use crate::{batch::Batch, report};

/// Finds the spawner of the current runtime, or the first that is enabled.
///
/// In this order: `Tokio` if a runtime is current on this thread; `AsyncStd` inside one of its tasks; otherwise `Smol`,
/// `AsyncStd`, `Threads`, whichever feature is enabled ([the module](super) has them). With none of them enabled the
/// spawner that it returns drops its batches, and one line says so: with tokio alone, call this inside a runtime. A
/// [`Runner`](crate::Runner) does this by itself; here it is for spawners that wrap another.
///
/// ```
/// use after::{Batch, Runner, Spawner, spawner};
///
/// struct Logged(Box<dyn Spawner>);
///
/// impl Spawner for Logged {
///     fn spawn(&self, batch: Batch) {
///         println!("{} tasks", batch.len());
///         self.0.spawn(batch);
///     }
/// }
///
/// let runner = Runner::new(Logged(spawner::detect()));
/// # drop(runner);
/// ```
pub fn detect() -> Box<dyn Spawner> {
    match DetectedRuntime::of_this_thread() {
        DetectedRuntime::Nothing => Box::new(without_runtime()),
        #[cfg(feature = "tokio")]
        DetectedRuntime::Tokio(runtime) => Box::new(Tokio::from(runtime)),
        #[cfg(feature = "async-std")]
        DetectedRuntime::AsyncStd => Box::new(AsyncStd),
    }
}

/// What serves where no runtime is current.
pub(super) fn without_runtime() -> &'static dyn Spawner {
    #[cfg(feature = "smol")]
    return &Smol;
    #[cfg(all(feature = "async-std", not(feature = "smol")))]
    return &AsyncStd;
    #[cfg(all(feature = "threads", not(any(feature = "smol", feature = "async-std"))))]
    return Threads::shared();
    #[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
    return &Nowhere;
}

/// Where nothing is: no runtime is current, and nothing is enabled that would do without.
#[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
struct Nowhere;

#[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
impl Spawner for Nowhere {
    fn spawn(&self, batch: Batch) {
        report::no_runtime();
        // Its tasks are lost, which is counted and reported like any other loss.
        drop(batch);
    }
}
