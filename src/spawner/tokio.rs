use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{BlockingWork, Sleep, Spawner};
use crate::{batch::Batch, report};

/// Runs batches on a tokio runtime, and blocking work on its blocking pool.
///
/// When the runtime is dropped, it drops the batches in it, and with them their unfinished tasks: await
/// [`shutdown`](crate::shutdown()) before. A batch handed to a runtime that has gone is lost, unless the Runner has found
/// the runtime by itself: see [the module](super#a-runtime-that-has-gone).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use after::{Runner, spawner::Tokio};
///
/// let background = tokio::runtime::Runtime::new().unwrap();
/// // Deferred work on a runtime of its own, so that it never competes with requests for a worker.
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

impl Tokio {
    /// Whether the runtime has gone: what it is given is dropped inside the call. One that lives gets a task that does
    /// nothing, so this is for where it matters and no runtime is current.
    pub(super) fn is_gone(&self) -> bool {
        let probe = Probe {
            refused: Arc::default(),
            polled: false,
        };
        let refused = probe.refused.clone();
        let spawned = report::catch(|| drop(self.runtime.spawn(probe)));
        if let Err(payload) = spawned {
            report::forget_payload(payload);
        }
        refused.load(Ordering::Relaxed)
    }
}

/// Tells if it is dropped without having been polled.
struct Probe {
    refused: Arc<AtomicBool>,
    polled: bool,
}

impl Future for Probe {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.polled = true;
        Poll::Ready(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.polled {
            self.refused.store(true, Ordering::Relaxed);
        }
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
        drop(self.runtime.spawn_blocking(move || work.run()));
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        // Panics on a runtime without a timer: the Runner sees to that.
        let _inside = self.runtime.enter();
        Sleep::new(tokio::time::sleep(duration))
    }
}

impl fmt::Debug for Tokio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokio").finish_non_exhaustive()
    }
}
