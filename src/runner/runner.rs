//! The Runner: where scopes hand over to, and whose account they are on.

use std::{
    error::Error,
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use super::{
    builder::RunnerBuilder,
    core::{Core, GLOBAL, RunnerRef, global},
    current,
};
use crate::{
    account::{Counts, ShutdownReport, Stats, Unfinished},
    platform,
};

/// Settings, limits and statistics of tasks, and their graceful shutdown.
///
/// One per application, as a rule: each has its own limits, its own statistics and its own shutdown. Most applications
/// never name theirs: the free functions use the global one, which [`Runner::install`] replaces. Cheap to clone; all
/// clones are the same Runner. Dropping it stops nothing: its scopes and batches keep what they need.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use after::{Runner, spawner};
///
/// let runner = Runner::new(spawner::Threads::default());
/// runner
///     .scope(async { after::defer(async { println!("on a thread of `after`") }) })
///     .await;
/// runner.drain().await;
/// # }
/// ```
#[derive(Clone)]
pub struct Runner {
    pub(crate) core: Arc<Core>,
}

/// A Runner with all its settings by default, as `Runner::builder().build()` makes it. Not the global one.
impl Default for Runner {
    fn default() -> Self {
        Runner::builder().build()
    }
}

impl Runner {
    /// Builder of a Runner: timeouts, limits, observers, hooks.
    ///
    /// ```
    /// let runner = after::Runner::builder()
    ///     .task_timeout(std::time::Duration::from_secs(30))
    ///     .max_running(64) // the concurrency limit, over all requests
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder::new()
    }

    /// The global Runner, made with the defaults if none was [installed](Runner::install).
    ///
    /// ```
    /// println!("{:?}", after::Runner::global().stats());
    /// ```
    pub fn global() -> Runner {
        Runner {
            core: global().clone(),
        }
    }

    /// Makes this the global Runner, which [`scope`](crate::scope), [`shutdown`](crate::shutdown()) and
    /// [`stopping`](crate::stopping()) outside a scope use.
    ///
    /// # Errors
    ///
    /// [`InstallError`] when one was installed before, or when the global Runner has been used: by a scope that deferred
    /// something, set a context value or gave out a handle, or by [`Runner::global`]. Idle scopes don't count.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // At the beginning of `main`, so that every request has the timeout.
    /// let limit = std::time::Duration::from_secs(30);
    /// after::Runner::builder().task_timeout(limit).build().install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn install(self) -> Result<(), InstallError> {
        GLOBAL.set(self.core).map_err(|_| InstallError::new())
    }

    /// The counters at this moment.
    ///
    /// What the scope or batch that is current on this thread has done so far is in them.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async { Err::<(), _>("no route") }) }).await;
    /// runner.drain().await;
    /// let stats = runner.stats(); // for an alarm
    /// assert_eq!(stats.failed + stats.panicked + stats.timed_out, 1);
    /// # });
    /// ```
    pub fn stats(&self) -> Stats {
        self.counts().into()
    }

    /// The unfinished tasks of requests that have ended, the oldest first: for an admin page, at any time.
    ///
    /// It is what the [`ShutdownReport`] of a shutdown would name now: each task with its name, its key, the place of its
    /// `defer` and its age; a task that joined a batch later has the age of the batch. A batch reports its tasks at the
    /// end of each of its turns, so a task that has just ended may be among them. Tasks of requests in progress are not.
    /// It locks the statistics for as long as it takes to copy the list.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// let (answer, question) = futures::channel::oneshot::channel::<()>();
    /// let mail = async { drop(question.await) };
    /// let request = async { after::task("mail").key("user:7").defer(mail) };
    /// runner.scope(request).await;
    /// for task in runner.unfinished() {
    ///     assert_eq!((task.name, task.key.as_deref()), ("mail", Some("user:7")));
    /// }
    /// drop(answer);
    /// runner.drain().await;
    /// assert!(runner.unfinished().is_empty());
    /// # });
    /// ```
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.core.account.unfinished().1
    }

    pub(crate) fn counts(&self) -> Counts {
        current::with(|registry| {
            if let Some(registry) = registry {
                registry.publish();
            }
        });
        self.core.account.counts()
    }

    /// Waits for the first moment with nothing pending.
    ///
    /// A request is pending from its first `defer` to the end of its last task. Under steady traffic that moment may never
    /// come: [`shutdown`](Runner::shutdown) has a limit. Inside a task of this Runner it never comes: the task would wait
    /// for itself.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits. Dropping the future affects no task, and it may be called again.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async {}) }).await;
    /// runner.drain().await;
    /// assert_eq!(runner.stats().pending, 0);
    /// # });
    /// ```
    pub async fn drain(&self) {
        self.core.account.drain().await;
    }

    /// Resolves [`stopping`](crate::stopping()) of this Runner, so that long tasks and streams end. Waits for nothing.
    ///
    /// Call it at the signal, before the server ends its last requests. A server waits for its streams and sockets before
    /// [`shutdown`](Runner::shutdown) is called, so those that end at `stopping` would not end without this. `shutdown`
    /// does the same at its beginning. Nothing else changes: what is deferred from then on runs. Calling it again does
    /// nothing, and nothing undoes it.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(after::stopping()) }).await;
    /// runner.stop();
    /// runner.drain().await; // the task has ended
    /// # });
    /// ```
    pub fn stop(&self) {
        self.core.account.begin_stopping();
    }

    /// Graceful shutdown: tells long tasks to stop, then waits for all tasks, for `limit` at most.
    ///
    /// Resolves [`stopping`](crate::stopping()) in the tasks of this Runner, as [`stop`](Runner::stop) does, then waits
    /// until nothing is pending, or until the limit. The report is clean, or names what was unfinished at the limit. Nothing
    /// is closed or cancelled: work deferred meanwhile runs, and is waited for. So call this when the server takes no more
    /// requests, and before the runtime is dropped: at the end of `main`. What is unfinished at the limit goes on running,
    /// and is lost when its runtime drops it.
    ///
    /// On tokio the process may not end yet. A runtime that is dropped waits for closures on its blocking pool, those of
    /// [`defer_blocking`](crate::defer_blocking) and others, without a limit: a stuck one keeps `main` from ending although
    /// this has returned. Under `#[tokio::main]` end with [`std::process::exit`] and a code that the report gives. Where
    /// the runtime is your own, `Runtime::shutdown_timeout` or `shutdown_background` drops its tasks, and waits as long as
    /// you say.
    ///
    /// The limit is measured by a timer that needs no runtime, in real time; zero reports at once. Called from one of its
    /// own tasks it always times out. It may be called again, also concurrently.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits. Dropping the future affects no task, but `stopping` stays resolved.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async {}) }).await;
    /// let report = runner.shutdown(Duration::from_secs(5)).await;
    /// assert!(report.is_clean(), "{report}");
    /// # });
    /// ```
    pub async fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let account = &self.core.account;
        account.begin_stopping();
        // A limit of zero is no wait, and one too far away for the clock is none.
        let now = limit.is_zero();
        let mut timer = platform::timer(limit);
        let report = {
            let mut drained = pin!(account.drain());
            std::future::poll_fn(|cx| {
                while drained.as_mut().poll(cx).is_ready() {
                    // That moment is over, and whoever has deferred since is waited for too: what is said is what is seen
                    // here, under the account's locks.
                    let report = account.report(limit);
                    if report.is_clean() || now {
                        return Poll::Ready(report);
                    }
                    drained.set(account.drain());
                }
                let over = match &mut timer {
                    _ if now => Poll::Ready(()),
                    Some(timer) => Pin::new(timer).poll(cx),
                    None => Poll::Pending,
                };
                over.map(|()| account.report(limit))
            })
            .await
        };
        // Whatever was lost is known by now to whoever reads the log of this shutdown.
        account.report_losses(true);
        account.is_cut_off(!report.is_clean());
        report
    }
}

impl Runner {
    /// As a Runner of the user's.
    pub(crate) fn of(runner: &RunnerRef) -> Runner {
        Runner {
            core: runner.core().clone(),
        }
    }
}

impl From<Runner> for RunnerRef {
    #[inline]
    fn from(runner: Runner) -> Self {
        RunnerRef::given(runner.core)
    }
}

// Whatever a panic interrupts, the account is whole: its invariants hold whenever a user's code runs.
impl UnwindSafe for Runner {}
impl RefUnwindSafe for Runner {}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the account: `Debug` takes no lock.
        f.debug_struct("Runner")
            .field("order", &self.core.order)
            .finish_non_exhaustive()
    }
}

/// Resolves [`stopping`](crate::stopping()) of the global Runner, so that long tasks and streams end: see [`Runner::stop`].
///
/// Call it at the signal, so that streams and sockets that end at `stopping` end before the server does. `stopping` can
/// stop the server as well:
///
/// ```no_run
/// use std::{io, process, time::Duration};
///
/// const LIMIT: Duration = Duration::from_secs(10);
///
/// #[tokio::main]
/// async fn main() -> io::Result<()> {
///     let app: axum::Router = axum::Router::new(); // ..
///     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
///     let server = axum::serve(listener, app).with_graceful_shutdown(after::stopping());
///     let last_moment = async {
///         let _ = tokio::signal::ctrl_c().await;
///         after::stop();
///         tokio::time::sleep(LIMIT).await; // a stuck client must not hold the process
///     };
///     tokio::select! {
///         ended = server.into_future() => ended?,
///         () = last_moment => println!("connections are still open"),
///     }
///     let report = after::shutdown(LIMIT).await;
///     println!("{report}");
///     process::exit(if report.is_clean() { 0 } else { 2 })
/// }
/// ```
pub fn stop() {
    Runner::global().stop();
}

/// Graceful shutdown of the global Runner: waits for all tasks, for `limit` at most. See [`Runner::shutdown`].
///
/// Await it when the server has ended, or its time limit has passed. On tokio a `main` that returns then still waits for
/// stuck closures, without a limit: end it with `exit`.
///
/// # Cancel safety
///
/// Cancel safe: it only waits. Dropping the future affects no task, but [`stopping`](crate::stopping()) stays resolved.
///
/// ```no_run
/// # use std::{process, time::Duration};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// // Here the server, which ends at `after::stopping()`. Then:
/// let report = after::shutdown(Duration::from_secs(10)).await;
/// println!("{report}");
/// process::exit(if report.is_clean() { 0 } else { 2 })
/// # }
/// ```
pub async fn shutdown(limit: Duration) -> ShutdownReport {
    Runner::global().shutdown(limit).await
}

/// Error returned by [`Runner::install`]: the global Runner was installed before, or has been used already.
///
/// Install it at the beginning of `main`, before the first
/// request is served.
///
/// ```
/// let runner = after::Runner::builder().build();
/// runner.clone().install().expect("the first one");
/// let error = runner.install().unwrap_err();
/// assert!(error.to_string().contains("in use"));
/// ```
pub struct InstallError {
    _private: (),
}

impl InstallError {
    pub(crate) fn new() -> Self {
        InstallError { _private: () }
    }
}

impl fmt::Debug for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstallError").finish_non_exhaustive()
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the global runner is in use already: install yours before the first request")
    }
}

impl Error for InstallError {}
