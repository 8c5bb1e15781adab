//! A `Spawner` of your own: deferred work on two background threads, one of them for what blocks.
//!
//! Run it with `cargo run --example custom_spawner`.

use std::{error::Error, io, sync::mpsc, thread, time::Duration};

use after::{Batch, Runner, Spawner, spawner::BlockingWork};
use futures::{StreamExt, channel::mpsc as async_mpsc, executor};

/// Never on the threads that handle requests, whatever the runtime.
struct Background {
    batches: async_mpsc::UnboundedSender<Batch>,
    blocking: mpsc::Sender<BlockingWork>,
}

impl Background {
    fn start() -> io::Result<Self> {
        let (batches, incoming) = async_mpsc::unbounded();
        thread::Builder::new()
            .name("background".into())
            // A batch is a future: all batches are polled concurrently, on this one thread.
            .spawn(|| executor::block_on(incoming.for_each_concurrent(None, |batch| batch)))?;
        let (blocking, incoming) = mpsc::channel::<BlockingWork>();
        thread::Builder::new()
            .name("background-blocking".into())
            .spawn(|| incoming.into_iter().for_each(BlockingWork::run))?;
        Ok(Background { batches, blocking })
    }
}

impl Spawner for Background {
    fn spawn(&self, batch: Batch) {
        // If the thread has ended, the batch comes back in the error and is dropped with it: its tasks are then counted
        // as lost and reported, so there is nothing to do here.
        let _ = self.batches.unbounded_send(batch);
    }

    // Without this one, blocking work would go to the pool of the `blocking` crate.
    fn spawn_blocking(&self, work: BlockingWork) {
        let _ = self.blocking.send(work);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runner = Runner::new(Background::start()?);
    let (ran_on, threads) = mpsc::channel();

    let response = executor::block_on(runner.scope(async {
        let here = ran_on.clone();
        after::task("audit").defer(async move { here.send(("audit", thread_name())) });
        let here = ran_on;
        after::task("report").defer_blocking(move || here.send(("report", thread_name())));
        "the response"
    }));
    println!("{response}, on thread `{}`", thread_name());

    let report = executor::block_on(runner.shutdown(Duration::from_secs(5)));
    let mut threads: Vec<_> = threads.try_iter().collect();
    threads.sort();
    for (task, thread) in &threads {
        println!("{task}, on thread `{thread}`");
    }
    println!("{report}");

    assert_eq!(threads[0], ("audit", "background".to_owned()));
    assert_eq!(threads[1], ("report", "background-blocking".to_owned()));
    assert_eq!((report.stats().completed, report.stats().pending), (2, 0));
    Ok(())
}

fn thread_name() -> String {
    thread::current().name().unwrap_or("unnamed").to_owned()
}
