//! Watching tasks: what an [`Observer`] is told, and when.

use std::{any::Any, error::Error, fmt, panic::Location, time::Duration};

use super::{label::Label, lines::user_code_panicked, outcome::Outcome, unwind::catch};

/// Watches the tasks of a [`Runner`](crate::Runner): for metrics, logs, alarms.
///
/// Every method has a default that does nothing. They are called where things happen, so they should be quick:
/// `deferred` inside the call of `defer`, `started` before a task's first poll, `finished` when it has ended and was
/// dropped. A panic of an observer is caught and reported; other observers are told all the same. Each may defer:
/// nothing of ours is borrowed or locked meanwhile.
///
/// They run with the task's scope current, wherever the task came from, a [`Handle`](crate::Handle) included, and
/// however it ends: [`context::get`](crate::context::get) reads the values of its request, and what they defer is deferred
/// into its scope. So do the hooks of [`on_defer`](crate::RunnerBuilder::on_defer). `started` and `finished` of a closure
/// are called by its batch, and not on the thread that runs it.
///
/// Several may watch one Runner; they are told in the order in which they were
/// [added](crate::RunnerBuilder::observer). Without one, no clock is read for their sake and nothing is allocated.
///
/// Each task that was deferred has exactly one `finished`, however it ended; one that was never polled has no `started`.
///
/// ```
/// use after::{Observer, Runner, TaskEnd, TaskFinished};
///
/// struct SlowTasks;
///
/// impl Observer for SlowTasks {
///     fn finished(&self, event: &TaskFinished<'_>) {
///         if event.ran.as_secs() > 10 {
///             println!("{} ran for {:?}", event.task.name, event.ran);
///         }
///     }
/// }
///
/// let runner = Runner::builder().observer(SlowTasks).build();
/// # drop(runner);
/// ```
pub trait Observer: Send + Sync + 'static {
    /// A task was given to `defer`.
    fn deferred(&self, event: &TaskDeferred<'_>) {
        let _ = event;
    }

    /// A task is about to be polled for the first time.
    fn started(&self, event: &TaskStarted<'_>) {
        let _ = event;
    }

    /// A task has ended: as it should, or otherwise.
    fn finished(&self, event: &TaskFinished<'_>) {
        let _ = event;
    }
}

/// Which task an event is about.
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

/// A task was given to `defer`.
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskDeferred<'a> {
    /// Which one.
    pub task: TaskInfo<'a>,
}

/// A task is about to be polled for the first time.
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskStarted<'a> {
    /// Which one.
    pub task: TaskInfo<'a>,
    /// How long it has waited since it could have started: since the hand-over (with
    /// `RunAfter::Written`: since the last byte), or since it joined the batch.
    pub waited: Duration,
}

/// A task has ended.
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskFinished<'a> {
    /// Which one.
    pub task: TaskInfo<'a>,
    /// How.
    pub end: TaskEnd<'a>,
    /// How long after its first poll; zero if it was never polled.
    pub ran: Duration,
    /// The longest time that one poll of it took: what it kept its siblings and the runtime's thread from doing. The
    /// first includes what observers did at its start. Zero for closures on the blocking pool, which keep nobody.
    pub longest_poll: Duration,
}

/// How a task ended: the heads of [`Stats`](crate::Stats).
#[non_exhaustive]
pub enum TaskEnd<'a> {
    /// With `()` or `Ok`.
    Completed,
    /// With this error.
    Failed(&'a (dyn Error + Send + Sync + 'static)),
    /// By a panic with this payload.
    Panicked(&'a (dyn Any + Send)),
    /// It was dropped at its time limit.
    TimedOut,
    /// It was not run on purpose: by key, by condition, or taken back.
    Discarded,
    /// It was dropped by a limit, which left no room for it.
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
