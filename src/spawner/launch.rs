//! What a Runner asks of its spawner, answered by all who keep to the contract, and by the runtimes that are found.

use std::time::Duration;

#[cfg(feature = "async-std")]
use super::async_std::AsyncStd;
use super::{Spawner, detect::without_runtime};
use crate::{
    batch::Batch,
    limit::Sleep,
    runner::{DetectedRuntime, Launch, Runner, RunnerBuilder, ScopeState},
    task::BlockingWork,
};

impl<S: Spawner> Launch for S {
    #[inline]
    fn launch(&self, state: Box<ScopeState>) {
        self.spawn(Batch::of(state));
    }

    fn launch_blocking(&self, work: BlockingWork) {
        self.spawn_blocking(work);
    }

    fn start_sleep(&self, duration: Duration) -> Sleep {
        self.sleep(duration)
    }
}

/// Calls what was found as what it is, not through a table: `launch` is on the way of every request.
macro_rules! on {
    ($found:expr, $runtime:ident => $call:expr) => {
        match $found {
            DetectedRuntime::Nothing => {
                let $runtime = &without_runtime();
                $call
            }
            #[cfg(feature = "tokio")]
            DetectedRuntime::Tokio($runtime) => $call,
            #[cfg(feature = "async-std")]
            DetectedRuntime::AsyncStd => {
                let $runtime = &AsyncStd;
                $call
            }
        }
    };
}

impl Launch for DetectedRuntime {
    #[inline]
    fn launch(&self, state: Box<ScopeState>) {
        on!(self, runtime => runtime.launch(state));
    }

    fn launch_blocking(&self, work: BlockingWork) {
        on!(self, runtime => runtime.launch_blocking(work));
    }

    fn start_sleep(&self, duration: Duration) -> Sleep {
        on!(self, runtime => runtime.start_sleep(duration))
    }
}

impl Runner {
    /// Makes a Runner on this spawner, with default settings.
    ///
    /// ```
    /// let runner = after::Runner::new(after::spawner::Threads::default());
    /// assert_eq!(runner.stats().deferred, 0);
    /// ```
    pub fn new(spawner: impl Spawner) -> Runner {
        Runner::builder().spawner(spawner).build()
    }
}

impl RunnerBuilder {
    /// Where tasks run. Default: what [`spawner::detect`](crate::spawner::detect) finds when a scope defers its first task,
    /// or when the request ends if no runtime was current before.
    ///
    /// ```
    /// # #[cfg(not(feature = "tokio"))] fn main() {}
    /// # #[cfg(feature = "tokio")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use after::{Runner, spawner::Tokio};
    ///
    /// // For actix-web, whose workers drop their runtimes when the server stops: on
    /// // the runtime of `main`.
    /// let runner = Runner::builder().spawner(Tokio::current()).build();
    /// # drop(runner);
    /// # }
    /// ```
    pub fn spawner(mut self, spawner: impl Spawner) -> Self {
        self.spawner = Some(Box::new(spawner));
        self
    }
}
