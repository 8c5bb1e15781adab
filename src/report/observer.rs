//! Watching tasks: what an [`Observer`] is told, and when.

use std::{any::Any, error::Error, fmt, panic::Location, time::Duration};

use super::{label::Label, lines::user_code_panicked, outcome::Outcome, unwind::catch};

/// Callbacks for the tasks of a [`Runner`](crate::Runner): for metrics, logs, alarms.
///
/// Each method has a default that does nothing. They are called in line, so they should be quick: `deferred` inside the
/// call of `defer`, `started` before a task's first poll, `finished` when it has ended and was dropped. A panic of an
/// observer is caught and reported, and the other observers are called normally. Each may defer: no lock is held.
///
/// They run with the task's scope current, wherever the task came from, a [`Handle`](crate::Handle) included, and
/// however it ends: [`context::get`](crate::context::get) reads the values of its request, and what they defer is deferred
/// into its scope. So do the hooks of [`on_defer`](crate::RunnerBuilder::on_defer). `started` and `finished` of a closure
/// are called by its batch, and not on the thread that runs it.
///
/// A Runner may have several; they are called in the order in which they were
/// [added](crate::RunnerBuilder::observer). Without one, no clock is read for their sake and nothing is allocated.
///
/// Each task that was deferred has exactly one `finished`, however it ended; one that was never polled has no `started`.
///
/// ```
/// use after::{Observer, Runner, TaskEnd, TaskFinished};
///
/// /// Sends failures to an error tracker, and logs slow tasks.
/// struct Alarms;
///
/// impl Observer for Alarms {
///     fn finished(&self, event: &TaskFinished<'_>) {
///         let name = event.task.name;
///         match event.end {
///             TaskEnd::Failed(error) => println!("to the error tracker: {name}: {error}"),
///             TaskEnd::Panicked(_) => println!("to the error tracker: {name} panicked"),
///             _ if event.ran.as_secs() > 10 => println!("{name} took {:?}", event.ran),
///             _ => {}
///         }
///     }
/// }
///
/// let runner = Runner::builder().observer(Alarms).build();
/// # drop(runner);
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Called when a task was given to `defer`.
    fn deferred(&self, event: &TaskDeferred<'_>) {
        let _ = event;
    }

    /// Called before a task is polled for the first time.
    fn started(&self, event: &TaskStarted<'_>) {
        let _ = event;
    }

    /// Called when a task has ended, successfully or otherwise.
    fn finished(&self, event: &TaskFinished<'_>) {
        let _ = event;
    }
}

/// Name, key and origin of a task, in an event or for a hook.
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskInfo<'a> {
    /// Its name; an unnamed task has its type's.
    pub name: &'a str,
    /// Its [key](crate::TaskBuilder::key), as it was given: `Debug` shows it.
    pub key: Option<&'a str>,
    /// Where it was deferred.
    pub location: &'static Location<'static>,
    /// How the request ended; `None` while it has not.
    pub outcome: Option<Outcome>,
    /// Whether it is a closure on the blocking pool.
    pub blocking: bool,
}

impl Label {
    pub(crate) fn info(&self, outcome: Option<Outcome>, blocking: bool) -> TaskInfo<'_> {
        TaskInfo {
            name: self.name,
            key: self.key(),
            location: self.location,
            outcome,
            blocking,
        }
    }
}

/// Event: a task was given to `defer`.
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskDeferred<'a> {
    /// Which one.
    pub task: TaskInfo<'a>,
}

/// Event: a task is about to be polled for the first time.
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskStarted<'a> {
    /// Which one.
    pub task: TaskInfo<'a>,
    /// Time in the queue: since the request ended (with `RunAfter::Written`: since the last byte), or since the task joined
    /// the batch.
    pub waited: Duration,
}

/// Event: a task has ended.
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskFinished<'a> {
    /// Which one.
    pub task: TaskInfo<'a>,
    /// How.
    pub end: TaskEnd<'a>,
    /// Run time, from its first poll to its end; zero if it was never polled.
    pub ran: Duration,
    /// The longest that one of its polls took, and so blocked the runtime's thread and the other tasks of the request. The
    /// first poll includes `started` of observers. Zero for closures on the blocking pool, which block nobody.
    pub longest_poll: Duration,
}

/// How a task ended; one variant per [`Stats`](crate::Stats) counter.
///
/// ```
/// use after::TaskEnd;
///
/// /// Whether somebody should look at it.
/// fn is_bad(end: &TaskEnd<'_>) -> bool {
///     !matches!(end, TaskEnd::Completed | TaskEnd::Discarded)
/// }
/// # let _ = is_bad;
/// ```
#[non_exhaustive]
pub enum TaskEnd<'a> {
    /// With `()` or `Ok`.
    Completed,
    /// With this error.
    Failed(&'a (dyn Error + Send + Sync + 'static)),
    /// By a panic with this payload.
    Panicked(&'a (dyn Any + Send)),
    /// It was dropped at its timeout.
    TimedOut,
    /// It was not run on purpose: by key, by condition, or taken back.
    Discarded,
    /// It was dropped because the queue was full: load shedding.
    Shed,
    /// It was dropped with its batch or its runtime.
    Lost,
}

impl fmt::Debug for TaskEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the error's text nor the payload: they are users' values.
        f.write_str(match self {
            TaskEnd::Completed => "Completed",
            TaskEnd::Failed(_) => "Failed(..)",
            TaskEnd::Panicked(_) => "Panicked(..)",
            TaskEnd::TimedOut => "TimedOut",
            TaskEnd::Discarded => "Discarded",
            TaskEnd::Shed => "Shed",
            TaskEnd::Lost => "Lost",
        })
    }
}

/// The observers of a Runner.
#[derive(Default)]
pub(crate) struct Observers {
    list: Vec<Box<dyn Observer>>,
}

impl Observers {
    pub(crate) fn add(&mut self, observer: impl Observer) {
        self.list.push(Box::new(observer));
    }

    /// All of them: dropping one is the user's code.
    pub(crate) fn take(&mut self) -> Vec<Box<dyn Observer>> {
        std::mem::take(&mut self.list)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Tells each of them. The caller holds nothing: observers are the user's code.
    pub(crate) fn tell(&self, event: impl Fn(&dyn Observer)) {
        for observer in &self.list {
            if let Err(payload) = catch(|| event(&**observer)) {
                user_code_panicked("an observer", payload);
            }
        }
    }
}
