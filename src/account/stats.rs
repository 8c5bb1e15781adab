//! What a Runner tells of its tasks: its counts, and the report of a shutdown.

use std::{borrow::Cow, fmt, panic::Location, time::Duration};

use crate::report::{Key, Label};

/// The account of a [`Runner`](crate::Runner) at one moment.
///
/// In every value, `deferred` is the sum of all the others: no task leaves the account silently. Counts of a request in
/// progress may be published in groups: other threads see them at the latest when its batch is handed over or has been
/// polled. Until then `deferred` and `pending` may be too low: of a request in progress at least one task is counted once
/// it has deferred any, and of a batch whose turn is not over at least those that it began with. What goes through a
/// [`Handle`](crate::Handle), or is deferred by a request that has taken one, is counted at once.
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
    /// Tasks given to `defer`.
    pub deferred: u64,
    /// Ended with `()` or `Ok`.
    pub completed: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Ended by a panic.
    pub panicked: u64,
    /// Dropped at a time limit.
    pub timed_out: u64,
    /// Not run on purpose: replaced by key, taken back, or by their condition.
    pub discarded: u64,
    /// Dropped by [`max_waiting`](crate::RunnerBuilder::max_waiting), which left no room for them.
    pub shed: u64,
    /// Dropped before they ended: with their runtime, by their spawner, or with their batch. A closure that has begun can't
    /// be stopped: it counts as lost, and runs on.
    pub lost: u64,
    /// All others: collected, waiting, or running.
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

/// A task that had not ended when a [`shutdown`](crate::shutdown()) reached its limit, or when
/// [`Runner::unfinished`](crate::Runner::unfinished) was asked.
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

/// What a [`shutdown`](crate::shutdown()) left behind.
///
/// `Display` is one line for a log.
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

    /// The tasks that were handed over and had not ended, the oldest first.
    ///
    /// Tasks of requests that had not ended either are not among them: they have no age yet. [`stats`] counts them as
    /// pending, and `Display` says so; of a request in progress at least one is counted, and of all that have taken a
    /// handle, every one. At any other time [`Runner::unfinished`](crate::Runner::unfinished) has the same list.
    ///
    /// [`stats`]: ShutdownReport::stats
    pub fn unfinished(&self) -> &[Unfinished] {
        &self.unfinished
    }

    /// The account when the shutdown returned.
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
                let Unfinished {
                    name,
                    key,
                    location,
                    age,
                } = task;
                write!(f, "{comma}`{name}` (")?;
                if let Some(key) = key {
                    write!(f, "key `{key}`, ")?;
                }
                write!(f, "{location}, for {age:.1?})")?;
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
