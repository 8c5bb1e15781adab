//! The way up: what a Runner asks of its spawner. The contract of the user's is in `spawner`, which implements this for
//! all who keep to it, and for the runtimes that are found.

use std::time::Duration;

use super::state::ScopeState;
use crate::{limit::Sleep, task::BlockingWork};

/// Runs batches.
pub(crate) trait Launch: Send + Sync {
    /// Hands over what was released, to be polled elsewhere. It may be dropped inside the call, which loses its tasks.
    fn launch(&self, state: Box<ScopeState>);

    /// Runs a closure on a thread that may block.
    fn launch_blocking(&self, work: BlockingWork);

    /// A sleep on the clock of where batches run.
    fn start_sleep(&self, duration: Duration) -> Sleep;
}
