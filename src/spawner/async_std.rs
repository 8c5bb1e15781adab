//! A runtime as a spawner: async-std.

use std::time::Duration;

use super::Spawner;
use crate::{batch::Batch, limit::Sleep, task::BlockingWork};

/// Runs batches on async-std's executor, and blocking work on its blocking pool.
///
/// async-std is discontinued (RUSTSEC-2025-0052). This is for services that still run on it; new ones do better with
/// another runtime. Its executor is never dropped: await [`shutdown`](crate::shutdown()) before the end of `main`.
///
/// ```
/// # async_std::task::block_on(async {
/// let runner = after::Runner::new(after::spawner::AsyncStd);
/// runner.scope(async { after::defer(async { println!("on async-std") }) }).await;
/// runner.drain().await;
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncStd;

impl Spawner for AsyncStd {
    fn spawn(&self, batch: Batch) {
        // Dropping the `JoinHandle` detaches.
        drop(::async_std::task::spawn(batch));
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        drop(::async_std::task::spawn_blocking(move || work.run()));
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(::async_std::task::sleep(duration))
    }
}
