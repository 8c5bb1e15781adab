//! A runtime as a spawner: smol.

use std::time::Duration;

use super::Spawner;
use crate::{batch::Batch, limit::Sleep, task::BlockingWork};

/// Runs batches on smol's global executor, which starts its threads at first use (`SMOL_THREADS`, default 1).
///
/// The global executor is never dropped: at the end of the process unfinished tasks are dropped silently. Await
/// [`shutdown`](crate::shutdown()) before the end of `main`. For an executor of your own, see
/// [`from_fn`](super::from_fn).
///
/// ```
/// # smol::block_on(async {
/// let runner = after::Runner::new(after::spawner::Smol);
/// runner.scope(async { after::defer(async { println!("on smol") }) }).await;
/// runner.drain().await;
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Smol;

impl Spawner for Smol {
    fn spawn(&self, batch: Batch) {
        // Dropping a task of smol's cancels it.
        ::smol::spawn(batch).detach();
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        ::smol::unblock(move || work.run()).detach();
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let timer = ::smol::Timer::after(duration);
        Sleep::new(async {
            timer.await;
        })
    }
}
