//! A runtime as a spawner: tokio.

use std::{fmt, time::Duration};

use tokio::runtime::Handle;

use super::Spawner;
use crate::{
    batch::Batch,
    limit::Sleep,
    runner::{Launch, ScopeState},
    task::BlockingWork,
};

/// Runs batches on a tokio runtime, and blocking work on its blocking pool.
///
/// When the runtime is dropped, it drops the batches in it, and with them their unfinished tasks: await
/// [`shutdown`](crate::shutdown()) before. A batch that is given to a runtime that was dropped is lost: counted, and
/// [reported](crate::guide::production#reports) in one line. A Runner that has found the runtime by itself uses another:
/// see [the module](super#a-runtime-that-has-gone).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use after::{Runner, spawner::Tokio};
///
/// let background = tokio::runtime::Runtime::new().unwrap();
/// // Deferred work has a runtime of its own, and so never delays a request.
/// let runner = Runner::new(Tokio::from(background.handle().clone()));
/// # runner.scope(async { after::defer(async {}) }).await;
/// # runner.drain().await;
/// # background.shutdown_background();
/// # }
/// ```
#[derive(Clone)]
pub struct Tokio {
    runtime: Handle,
}

impl Tokio {
    /// The runtime that is current on this thread.
    ///
    /// # Panics
    ///
    /// Outside a runtime, at the caller's line.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let runner = after::Runner::new(after::spawner::Tokio::current());
    /// # drop(runner);
    /// # }
    /// ```
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Some(tokio) => tokio,
            None => panic!(
                "`Tokio::current` called outside a tokio runtime: call it in `#[tokio::main]`, enter a runtime with \
                 `Runtime::enter`, or use `Tokio::from(handle)`"
            ),
        }
    }

    /// The runtime that is current on this thread, if there is one.
    ///
    /// ```
    /// assert!(after::spawner::Tokio::try_current().is_none());
    /// ```
    #[inline]
    pub fn try_current() -> Option<Self> {
        Handle::try_current().ok().map(Tokio::from)
    }
}

impl From<Handle> for Tokio {
    fn from(runtime: Handle) -> Self {
        Tokio { runtime }
    }
}

impl Spawner for Tokio {
    fn spawn(&self, batch: Batch) {
        // Dropping the `JoinHandle` detaches.
        drop(self.runtime.spawn(batch));
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        self.runtime.launch_blocking(work);
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.runtime.start_sleep(duration)
    }
}

/// A runtime that was found, which is not cloned for each batch.
impl Launch for Handle {
    #[inline]
    fn launch(&self, state: Box<ScopeState>) {
        drop(self.spawn(Batch::of(state)));
    }

    fn launch_blocking(&self, work: BlockingWork) {
        drop(self.spawn_blocking(move || work.run()));
    }

    fn start_sleep(&self, duration: Duration) -> Sleep {
        // Panics on a runtime without a timer: `Core::sleep` sees to that.
        let _inside = self.enter();
        Sleep::new(tokio::time::sleep(duration))
    }
}

impl fmt::Debug for Tokio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokio").finish_non_exhaustive()
    }
}
