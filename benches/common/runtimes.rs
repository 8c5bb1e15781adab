//! The runtimes on which requests and their tasks run. A request is a task of the runtime, as in a server; on tokio's
//! current-thread runtime it is the future that `block_on` polls.

use std::{
    future::Future,
    sync::{OnceLock, mpsc::channel},
};

use after::{Runner, Scope, spawner};
use futures::executor::ThreadPool;

pub trait Runtime: 'static {
    const NAME: &'static str;

    /// Runs the driver of some requests on the runtime, and waits for its end.
    fn drive(&self, driver: impl Future<Output = ()> + Send + 'static);

    /// What a program on this runtime has for background work. Called inside it.
    fn spawn(task: impl Future<Output = ()> + Send + 'static);

    /// A scope whose tasks go to this runtime.
    fn scope<F: Future>(request: F) -> Scope<F>;
}

/// tokio with one thread.
pub struct CurrentThread(tokio::runtime::Runtime);

impl CurrentThread {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        CurrentThread(runtime.expect("a runtime"))
    }

    /// A driver that stays on this thread.
    pub fn drive_here(&self, driver: impl Future<Output = ()>) {
        self.0.block_on(driver);
    }
}

impl Runtime for CurrentThread {
    const NAME: &'static str = "tokio_current_thread";

    fn drive(&self, driver: impl Future<Output = ()> + Send + 'static) {
        self.0.block_on(driver);
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn scope<F: Future>(request: F) -> Scope<F> {
        after::scope(request)
    }
}

/// tokio with a worker for each core.
pub struct MultiThread(tokio::runtime::Runtime);

impl MultiThread {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().build();
        MultiThread(runtime.expect("a runtime"))
    }
}

impl Runtime for MultiThread {
    const NAME: &'static str = "tokio_multi_thread";

    fn drive(&self, driver: impl Future<Output = ()> + Send + 'static) {
        self.0
            .block_on(self.0.spawn(driver))
            .expect("the driver ends");
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn scope<F: Future>(request: F) -> Scope<F> {
        // A runtime of its own: the global Runner has seen others, but the current one comes first.
        after::scope(request)
    }
}

/// smol's global executor, with one thread unless `SMOL_THREADS` says otherwise.
#[cfg(feature = "smol")]
pub struct Smol;

#[cfg(feature = "smol")]
impl Runtime for Smol {
    const NAME: &'static str = "smol";

    fn drive(&self, driver: impl Future<Output = ()> + Send + 'static) {
        smol::block_on(smol::spawn(driver));
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    fn scope<F: Future>(request: F) -> Scope<F> {
        static RUNNER: OnceLock<Runner> = OnceLock::new();
        RUNNER
            .get_or_init(|| Runner::new(spawner::Smol))
            .scope(request)
    }
}

/// async-std, with a thread for each core.
#[cfg(feature = "async-std")]
pub struct AsyncStd;

#[cfg(feature = "async-std")]
impl Runtime for AsyncStd {
    const NAME: &'static str = "async_std";

    fn drive(&self, driver: impl Future<Output = ()> + Send + 'static) {
        async_std::task::block_on(async_std::task::spawn(driver));
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        async_std::task::spawn(task);
    }

    fn scope<F: Future>(request: F) -> Scope<F> {
        static RUNNER: OnceLock<Runner> = OnceLock::new();
        RUNNER
            .get_or_init(|| Runner::new(spawner::AsyncStd))
            .scope(request)
    }
}

/// The pool of this crate. It has no spawn of its own: [`Pool`] is the rival.
pub struct Threads;

impl Threads {
    fn runner() -> &'static Runner {
        static RUNNER: OnceLock<Runner> = OnceLock::new();
        RUNNER.get_or_init(|| Runner::new(spawner::Threads::default()))
    }
}

impl Runtime for Threads {
    const NAME: &'static str = "threads";

    fn drive(&self, driver: impl Future<Output = ()> + Send + 'static) {
        let (end, ended) = channel();
        let request = async move {
            after::defer(async move {
                driver.await;
                end.send(()).expect("the end is waited for");
            });
        };
        futures::executor::block_on(Threads::scope(request));
        ended.recv().expect("the driver ends");
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        Pool::spawn(task);
    }

    fn scope<F: Future>(request: F) -> Scope<F> {
        Threads::runner().scope(request)
    }
}

/// The thread pool of the `futures` crate, with as many threads as the pool of `after` has.
pub struct Pool;

impl Pool {
    fn get() -> &'static ThreadPool {
        static POOL: OnceLock<ThreadPool> = OnceLock::new();
        POOL.get_or_init(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let pool = ThreadPool::builder().pool_size(threads.min(4)).create();
            pool.expect("a pool")
        })
    }
}

impl Runtime for Pool {
    const NAME: &'static str = "threads";

    fn drive(&self, driver: impl Future<Output = ()> + Send + 'static) {
        let (end, ended) = channel();
        Pool::spawn(async move {
            driver.await;
            end.send(()).expect("the end is waited for");
        });
        ended.recv().expect("the driver ends");
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        Pool::get().spawn_ok(task);
    }

    fn scope<F: Future>(request: F) -> Scope<F> {
        Threads::scope(request)
    }
}
