//! What a Runner tells of its tasks: its counts, and the report of a shutdown.

use std::{borrow::Cow, fmt, panic::Location, time::Duration};

use crate::report::{Key, Label, named};

/// Counters of a [`Runner`](crate::Runner)'s tasks: what [`Runner::stats`](crate::Runner::stats) returns.
///
/// All but `pending` are cumulative: they count since the Runner was made, and only rise. `pending` is the number of tasks
/// at this moment. In every value, `deferred` is the sum of all the others: no task disappears silently.
///
/// Counts of a request in progress may be published in groups: other threads see them at the latest when its batch goes to
/// the spawner or has been polled. Until then `deferred` and `pending` may be too low: of a request in progress at least
/// one task is counted once it has deferred any, and of a batch that is being polled at least those that it began with.
/// What goes through a [`Handle`](crate::Handle), or is deferred by a request that has taken one, is counted at once.
///
/// ```
/// # futures::executor::block_on(async {
/// let runner = after::Runner::builder().build();
/// runner.scope(async { after::defer(async {}) }).await;
/// runner.drain().await;
/// let stats = runner.stats();
/// assert_eq!((stats.deferred, stats.completed, stats.pending), (1, 1, 0));
/// # });
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// All tasks that were given to `defer`: the sum of the others.
    pub deferred: u64,
    /// Ended with `()` or `Ok`.
    pub completed: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Ended by a panic.
    pub panicked: u64,
    /// Dropped at a timeout.
    pub timed_out: u64,
    /// Not run on purpose: replaced by key, taken back, or by their condition.
    pub discarded: u64,
    /// Dropped because the queue was full: load shedding by [`max_waiting`](crate::RunnerBuilder::max_waiting).
    pub shed: u64,
    /// Dropped before they ended: with their runtime, by their spawner, or with their batch. A closure that has started
    /// can't be stopped: it counts as lost, and runs to its end.
    pub lost: u64,
    /// Not ended: collected, waiting, or running at this moment. The only one that falls.
    pub pending: u64,
}

/// One line for a log or an admin page: `deferred 3, completed 2, failed 0, panicked 0, timed out 0, discarded 0, shed
/// 0, lost 0, pending 1`.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ended(f)?;
        write!(f, ", pending {}", self.pending)
    }
}

impl Stats {
    /// All but what is pending.
    fn ended(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats {
            deferred,
            completed,
            failed,
            panicked,
            timed_out,
            discarded,
            shed,
            lost,
            pending: _,
        } = self;
        write!(
            f,
            "deferred {deferred}, completed {completed}, failed {failed}, panicked {panicked}, timed out \
             {timed_out}, discarded {discarded}, shed {shed}, lost {lost}"
        )
    }
}

/// A task that has not ended: in a [`ShutdownReport`], and from [`Runner::unfinished`](crate::Runner::unfinished).
///
/// ```
/// # use std::time::Duration;
/// # futures::executor::block_on(async {
/// let runner = after::Runner::builder().build();
/// let (_answer, question) = futures::channel::oneshot::channel::<()>();
/// runner
///     .scope(async { after::task("stuck").defer(question) })
///     .await;
/// let report = runner.shutdown(Duration::from_millis(20)).await;
/// assert_eq!(report.unfinished()[0].name, "stuck");
/// # });
/// ```
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Its name, or its type's.
    pub name: &'static str,
    /// Its [key](crate::TaskBuilder::key), as it was given: `Debug` shows it, and so does the report.
    pub key: Option<Cow<'static, str>>,
    /// Where it was deferred.
    pub location: &'static Location<'static>,
    /// How long ago its request ended.
    pub age: Duration,
}

impl Unfinished {
    pub(crate) fn of(task: Label, age: Duration) -> Self {
        Unfinished {
            name: task.name,
            key: task.key.map(Key::into_cow),
            location: task.location,
            age,
        }
    }
}

/// Result of a [`shutdown`](crate::shutdown()): the counters, and the tasks that have not ended.
///
/// `Display` is one line for a log.
///
/// ```
/// # use std::time::Duration;
/// # futures::executor::block_on(async {
/// let runner = after::Runner::builder().build();
/// let report = runner.shutdown(Duration::from_secs(10)).await;
/// println!("{report}");
/// for task in report.unfinished() {
///     println!("alert: `{}` was cut off, deferred at {}", task.name, task.location);
/// }
/// let code = if report.is_clean() { 0 } else { 2 }; // for `std::process::exit`
/// # assert_eq!(code, 0);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct ShutdownReport {
    limit: Duration,
    stats: Stats,
    unfinished: Vec<Unfinished>,
}

impl ShutdownReport {
    pub(crate) fn new(limit: Duration, stats: Stats, unfinished: Vec<Unfinished>) -> Self {
        ShutdownReport {
            limit,
            stats,
            unfinished,
        }
    }

    /// Whether everything that was deferred had ended: nothing was pending when the shutdown returned.
    ///
    /// It is also true when tasks failed, panicked or timed out: [`stats`](ShutdownReport::stats) counts those.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// assert!(runner.shutdown(Duration::from_secs(1)).await.is_clean());
    /// # });
    /// ```
    pub fn is_clean(&self) -> bool {
        self.stats.pending == 0
    }

    /// The tasks of requests that have ended, which had not ended themselves, the oldest first.
    ///
    /// Tasks of requests that were still in progress are not among them: they have no age yet. [`stats`] counts them as
    /// pending, and `Display` says so; of a request in progress at least one is counted, and of all that have taken a
    /// handle, every one. At any other time [`Runner::unfinished`](crate::Runner::unfinished) has the same list.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// let (_answer, question) = futures::channel::oneshot::channel::<()>();
    /// let stuck = async { drop(question.await) };
    /// runner.scope(async { after::task("stuck").defer(stuck) }).await;
    /// let report = runner.shutdown(Duration::from_millis(20)).await;
    /// assert_eq!(report.unfinished()[0].name, "stuck");
    /// # });
    /// ```
    ///
    /// [`stats`]: ShutdownReport::stats
    pub fn unfinished(&self) -> &[Unfinished] {
        &self.unfinished
    }

    /// The counters when the shutdown returned.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async { Err::<(), _>("no route to host") }) }).await;
    /// let report = runner.shutdown(Duration::from_secs(10)).await;
    /// assert!(report.is_clean()); // all has ended, though not all well
    /// assert_eq!(report.stats().failed, 1);
    /// # });
    /// ```
    pub fn stats(&self) -> Stats {
        self.stats
    }
}

/// How many tasks `Display` names: a line for a log, not a list.
const NAMED: usize = 10;

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self.stats.pending;
        if pending == 0 {
            write!(f, "nothing unfinished; ")?;
        } else {
            let limit = self.limit;
            write!(f, "{pending} unfinished after {limit:?}: ")?;
            for (index, task) in self.unfinished.iter().take(NAMED).enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                let key = task.key.as_deref();
                let place = format!("{}, for {:.1?}", task.location, task.age);
                write!(f, "{comma}{}", named(task.name, key, place))?;
            }
            if self.unfinished.len() > NAMED {
                write!(f, " and {} more", self.unfinished.len() - NAMED)?;
            }
            let collecting = pending.saturating_sub(self.unfinished.len() as u64);
            if collecting > 0 {
                let comma = if self.unfinished.is_empty() { "" } else { ", " };
                write!(f, "{comma}{collecting} of requests that have not ended")?;
            }
            write!(f, "; ")?;
        }
        self.stats.ended(f)
    }
}
