//! Data flows one way: the store → [`fetch`] → a channel → [`lane`], which is apalis' `Backend` → apalis' `Worker` →
//! [`run`], where a job becomes a task of `after` with a scope of its own → [`finish`] → the store. Heartbeats stand
//! beside it ([`beat`]), on a timer of their own: nothing that a job does holds them up but a blocked runtime.

mod beat;
mod fetch;
mod finish;
mod lane;
mod run;
mod stop;

pub use stop::{GivenBack, StopReport};

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use after::Runner;
use apalis_core::{
    error::BoxDynError,
    layers::{Identity, Service},
    task::Task,
    worker::context::WorkerContext,
};
use serde::Serialize;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

use crate::{Backoff, Error, Job, Jobs, store::Registration};
use lane::{Lane, Shared};

/// What a worker goes by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) heartbeat: Duration,
    pub(crate) missed: u32,
    pub(crate) poll: Duration,
    pub(crate) concurrency: usize,
    pub(crate) backoff: Backoff,
}

impl Settings {
    pub(crate) fn dead_for(&self) -> Duration {
        self.heartbeat * self.missed
    }
}

/// Starts apalis' worker on a lane, once the worker as a whole is started.
type Start =
    Box<dyn FnOnce(Arc<Shared>, mpsc::UnboundedReceiver<Task<Vec<u8>>>) -> JoinHandle<()> + Send>;

/// Which jobs a worker handles, and how: what [`Jobs::worker`] returns.
///
/// ```no_run
/// # async fn example(jobs: after_apalis::Jobs) -> Result<(), Box<dyn std::error::Error>> {
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Receipt { order: i64 }
/// # impl after_apalis::Job for Receipt { const NAME: &'static str = "receipt"; }
/// use std::time::Duration;
///
/// async fn send(receipt: Receipt) -> Result<(), std::io::Error> {
///     println!("the receipt of order {}", receipt.order);
///     Ok(())
/// }
///
/// let worker = jobs.worker().handle(send).start().await?;
/// tokio::signal::ctrl_c().await?;
/// let report = worker.shutdown(Duration::from_secs(10)).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a worker does nothing until it is started"]
pub struct WorkerBuilder {
    jobs: Jobs,
    settings: Settings,
    runner: Option<Runner>,
    lanes: Vec<(&'static str, Start)>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.lanes.iter().map(|(name, _)| name).collect();
        f.debug_struct("WorkerBuilder")
            .field("settings", &self.settings)
            .field("handles", &names)
            .finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    pub(crate) fn new(jobs: Jobs) -> Self {
        WorkerBuilder {
            jobs,
            settings: Settings {
                name: unique_name(),
                heartbeat: Duration::from_secs(5),
                missed: 3,
                poll: Duration::from_secs(1),
                concurrency: 10,
                backoff: Backoff::default(),
            },
            runner: None,
            lanes: Vec::new(),
        }
    }

    /// Handles the jobs of one type with an async function.
    ///
    /// An error, or a panic, is a failed attempt: the job comes again, as [`backoff`](WorkerBuilder::backoff) says, until
    /// its attempts are used up, and is then a dead letter that keeps the error. apalis' `AbortError` ends it at once,
    /// its `RetryAfterError` says when it comes again.
    ///
    /// The same job may run twice: a worker that is lost may have done it and not said so. Make it idempotent; which
    /// job and which attempt this is, `after::context::get::<after_apalis::Running>()` says.
    ///
    /// It must not block. See [`handle_blocking`](WorkerBuilder::handle_blocking).
    ///
    /// # Panics
    ///
    /// There is a handler of that name already.
    pub fn handle<J, F, Fut, R>(self, handler: F) -> Self
    where
        J: Job,
        F: Fn(J) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: JobResult,
    {
        self.service(run::Handler::new(handler))
    }

    /// Handles the jobs of one type with a function that computes or blocks: on tokio's pool for that, where heartbeats
    /// and other jobs go on meanwhile. The job's scope is current in it. A limit of time at
    /// [`shutdown`](Worker::shutdown) can't stop it: it is given back, and goes on here until the process ends.
    ///
    /// # Panics
    ///
    /// There is a handler of that name already.
    pub fn handle_blocking<J, F, R>(self, handler: F) -> Self
    where
        J: Job,
        F: Fn(J) -> R + Send + Sync + 'static,
        R: JobResult + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.handle(move |job: J| {
            let handler = handler.clone();
            async move {
                let here = after::handle();
                // What `context::get` answers must be read on this thread, and set on the other.
                let blocking = tokio::task::spawn_blocking(move || {
                    here.sync_scope(|| handler(job)).into_result()
                });
                match blocking.await {
                    Ok(result) => result,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(error) => Err(error.into()),
                }
            }
        })
    }

    /// Handles the jobs of one type with a service of tower that takes apalis' `Task`: for apalis' extractors and layers.
    /// `apalis_core::task::task_fn::task_fn(f)` makes one of a function with extractors (`Attempt`, `TaskId`, `Data`).
    ///
    /// # Panics
    ///
    /// There is a handler of that name already.
    pub fn service<J, S>(mut self, service: S) -> Self
    where
        J: Job,
        S: Service<Task<J>> + Send + 'static,
        S::Future: Send + 'static,
        S::Response: Serialize + Send + Sync + 'static,
        S::Error: Into<BoxDynError> + Send + Sync + 'static,
    {
        assert!(
            self.lanes.iter().all(|(name, _)| *name != J::NAME),
            "two handlers of `{}`",
            J::NAME
        );
        let start: Start = Box::new(move |shared, tasks| {
            let context = shared.registration.context.clone();
            let lane = Lane::<J>::new(shared.clone(), tasks);
            let worker = apalis_core::worker::Worker::<J, _, _, _>::new(
                context,
                lane,
                service,
                Identity::new(),
            );
            tokio::spawn(async move {
                if let Err(error) = worker.run().await {
                    crate::report::report!(error, "worker of `{}`: {error}", J::NAME);
                }
            })
        });
        self.lanes.push((J::NAME, start));
        self
    }

    /// What begins this worker's names. By default host, process and a random part.
    ///
    /// Each start must have a name of its own: a new process under the old one's name sends the heartbeats that keep the
    /// old one's jobs from being taken over. So a random part is added to this name too.
    pub fn name(mut self, name: &str) -> Self {
        self.settings.name = format!("{name}-{:08x}", fastrand::u32(..));
        self
    }

    /// How often this worker says that it lives, and how many of these may be missed until others take its jobs over.
    /// By default every 5 seconds, and 3: jobs of a process that was killed start again 10 to 20 seconds later.
    ///
    /// The same on all workers of a store: each goes by its own.
    ///
    /// # Panics
    ///
    /// On an interval of zero, on fewer than 2 missed heartbeats, and on less than a second in all: one heartbeat is
    /// late sometimes, and the stores' clocks tick in seconds.
    pub fn heartbeat(mut self, interval: Duration, missed: u32) -> Self {
        assert!(
            missed >= 2 && interval * missed >= Duration::from_secs(1),
            "a worker is not dead because of one heartbeat, or within a second"
        );
        self.settings.heartbeat = interval;
        self.settings.missed = missed;
        self
    }

    /// How often it looks for jobs without having been told of any: retries, jobs whose time has come, lost
    /// notifications. By default every second.
    ///
    /// # Panics
    ///
    /// On zero.
    pub fn poll(mut self, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "an interval of zero");
        self.settings.poll = interval;
        self
    }

    /// How many jobs of one name run at once. By default 10. No more than that are fetched: what waits, waits in the
    /// store, where other workers find it.
    ///
    /// # Panics
    ///
    /// On zero.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        assert!(jobs > 0, "a worker of no jobs");
        self.settings.concurrency = jobs;
        self
    }

    /// How long a failed job waits. By default 1 second, doubled up to an hour, with jitter.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Runs the jobs, and what they defer, on this Runner: with your observers, metrics, spans and limits. By default
    /// one of the worker's own. Not the Runner that serves requests, if that is shut down before the worker is.
    pub fn runner(mut self, runner: Runner) -> Self {
        self.runner = Some(runner);
        self
    }

    /// Registers the worker, and starts it on the current runtime of tokio.
    ///
    /// # Errors
    ///
    /// The store is away. (Once it is started it waits for a store that has gone away, and reports it once.)
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio.
    pub async fn start(self) -> Result<Worker, Error> {
        let runner = self.runner.unwrap_or_else(|| Runner::builder().build());
        let settings = Arc::new(self.settings);
        let (stop, stopping) = watch::channel(false);
        let mut lanes = Vec::new();
        for (number, (queue, start)) in self.lanes.into_iter().enumerate() {
            let registration = Registration {
                queue,
                context: WorkerContext::new(&format!("{}-{number}", settings.name)),
            };
            self.jobs.store().register(&registration).await?;
            let shared = Arc::new(Shared::new(
                self.jobs.clone(),
                registration,
                settings.clone(),
                runner.clone(),
            ));
            lanes.push((shared, start));
        }
        let lanes: Vec<Running> = lanes
            .into_iter()
            .map(|(shared, start)| {
                let (deliver, tasks) = mpsc::unbounded_channel();
                let finisher = tokio::spawn(finish::run(shared.clone()));
                let worker = start(shared.clone(), tasks);
                let fetcher = tokio::spawn(fetch::run(shared.clone(), deliver, stopping.clone()));
                Running {
                    shared,
                    fetcher,
                    worker,
                    finisher,
                }
            })
            .collect();
        let all: Arc<[Arc<Shared>]> = lanes.iter().map(|lane| lane.shared.clone()).collect();
        let beside = vec![
            tokio::spawn(beat::run(self.jobs.clone(), settings.clone(), all.clone())),
            tokio::spawn(fetch::listen(self.jobs.clone(), all)),
        ];
        Ok(Worker {
            jobs: self.jobs,
            settings,
            runner,
            lanes,
            beside,
            stop,
        })
    }
}

struct Running {
    shared: Arc<Shared>,
    fetcher: JoinHandle<()>,
    worker: JoinHandle<()>,
    finisher: JoinHandle<()>,
}

/// A worker that was started. Dropping it doesn't stop it: it goes on as long as the runtime does, and what it then holds
/// is taken over by others once its heartbeats are missed.
#[must_use = "without `shutdown`, what runs at the end waits for missed heartbeats"]
pub struct Worker {
    jobs: Jobs,
    settings: Arc<Settings>,
    runner: Runner,
    lanes: Vec<Running>,
    beside: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// The Runner that its jobs, and what they defer, are accounted on.
    #[must_use]
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// What this worker's names in apalis' tables begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }
}

/// What a handler returns: `()`, or a `Result` whose error can be boxed.
pub trait JobResult: sealed::IntoResult {}

mod sealed {
    use super::BoxDynError;

    pub trait IntoResult {
        fn into_result(self) -> Result<(), BoxDynError>;
    }

    impl IntoResult for () {
        fn into_result(self) -> Result<(), BoxDynError> {
            Ok(())
        }
    }

    impl<E: Into<BoxDynError>> IntoResult for Result<(), E> {
        fn into_result(self) -> Result<(), BoxDynError> {
            self.map_err(Into::into)
        }
    }
}

impl JobResult for () {}
impl<E: Into<BoxDynError>> JobResult for Result<(), E> {}

/// Host, process and a random part: no other start of any worker has it.
fn unique_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| "host".into());
    format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..))
}

/// Whether something is away, so that it is said once, and once that it is back.
#[derive(Debug, Default)]
pub(crate) struct Outage(AtomicBool);

impl Outage {
    pub(crate) fn is(&self, what: &str, error: &Error) {
        if !self.0.swap(true, std::sync::atomic::Ordering::Relaxed) {
            crate::report::report!(error, "{what}: {error}; trying again");
        }
    }

    pub(crate) fn over(&self, what: &str) {
        if self.0.swap(false, std::sync::atomic::Ordering::Relaxed) {
            crate::report::report!(info, "{what}: works again");
        }
    }
}

/// Rises while something is away.
pub(crate) struct Wait(Duration);

impl Wait {
    pub(crate) fn new() -> Self {
        Wait(Duration::from_millis(50))
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
    }
}

pub(crate) type Wake = Notify;
