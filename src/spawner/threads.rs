//! A pool of threads of our own, for where there is no runtime.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use async_task::Runnable;

use super::Spawner;
use crate::{batch::Batch, report, sync::start_thread};

/// Runs batches on a small pool of threads of this crate, for programs without a runtime.
///
/// The pool is shared by all values of this type. Its threads (as many as the machine runs at once, at most four) start
/// at first use and stay, as daemons: at the end of the process unfinished tasks are dropped silently, so await [`shutdown`](crate::shutdown()) before the end of `main`. If no thread can be started, batches are lost.
///
/// A batch that nobody can wake any more, because all its tasks wait for what has gone, is dropped, and its tasks are
/// lost. A batch of many tasks, or of several that were polled a few times, keeps its own waker: it stays pending
/// instead, as it would on other runtimes, and its tasks are named by a shutdown that runs out of time.
///
/// ```
/// # futures::executor::block_on(async {
/// let runner = after::Runner::new(after::spawner::Threads::default());
/// let task = async { println!("on a thread of the pool") };
/// runner.scope(async { after::defer(task) }).await;
/// runner.drain().await;
/// # });
/// ```
#[derive(Clone, Default)]
pub struct Threads {
    _private: (),
}

impl Threads {
    #[cfg_attr(any(feature = "smol", feature = "async-std"), allow(dead_code))]
    pub(super) fn shared() -> &'static Threads {
        &Threads { _private: () }
    }
}

impl Spawner for Threads {
    fn spawn(&self, batch: Batch) {
        let pool = pool();
        if !pool.has_threads() {
            return report::no_threads();
        }
        let (runnable, task) = async_task::spawn(batch, |runnable| pool.push(runnable));
        runnable.schedule();
        task.detach();
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

/// A queue and the threads that empty it.
#[derive(Default)]
struct Pool {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    runnables: VecDeque<Runnable>,
    threads: usize,
}

const MOST_THREADS: usize = 4;

fn pool() -> &'static Pool {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    POOL.get_or_init(|| {
        let pool = Arc::new(Pool::default());
        let wanted = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..wanted.min(MOST_THREADS) {
            let worker = pool.clone();
            if start_thread("after-worker", move || worker.work()).is_ok() {
                pool.lock().threads += 1;
            }
        }
        pool
    })
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_threads(&self) -> bool {
        self.lock().threads > 0
    }

    fn push(&self, runnable: Runnable) {
        self.lock().runnables.push_back(runnable);
        self.ready.notify_one();
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let runnable = loop {
                match queue.runnables.pop_front() {
                    Some(runnable) => break runnable,
                    None => {
                        queue = self
                            .ready
                            .wait(queue)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(queue);
            // A batch does not panic, but its waker's code might: the thread must outlive it.
            report::quietly(|| {
                runnable.run();
            });
        }
    }
}
