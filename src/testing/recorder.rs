//! What a test records.

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use super::records::{Recorded, Records, drop_unreported};
use crate::{
    batch::Batch,
    report::WaitCell,
    runner::Runner,
    spawner::{self, BlockingWork, Sleep, Spawner},
};

/// [`Spawner`] for tests: it records tasks, and runs them at [`run`](Recorder::run).
///
/// Clones share what they keep. Blocking work and timeouts are those of the runtime that runs the test, as
/// [`detect`](spawner::detect) finds it: tokio's paused clock is obeyed. What is never run is lost when the last clone is
/// dropped: counted, and not reported. A Runner of yours whose spawner is a clone lives as long as its batches are kept.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use after::testing::Recorder;
///
/// // For code that opens scopes of its own: a router with the layer, say.
/// let recorder = Recorder::new();
/// let runner = recorder.runner();
/// runner.scope(async { after::task("audit").defer(async {}) }).await;
/// assert_eq!(recorder.names(), ["audit"]); // deferred, and not run yet
/// recorder.run().await;
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Recorder {
    /// Who runs it waits for more.
    pub(super) kept: Arc<WaitCell<Records>>,
    /// Made by the first `runner()`.
    pub(super) runner: Arc<OnceLock<Runner>>,
}

/// The spawner of a recorder's own Runner, and its observer. Weak, because a batch keeps its Runner: they would keep each
/// other.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) kept: Weak<WaitCell<Records>>,
}

impl Spawner for Keeper {
    fn spawn(&self, mut batch: Batch) {
        match self.kept.upgrade() {
            Some(kept) => kept.change(|kept| kept.keep(batch)).wake(),
            // Without a recorder the batch is dropped, and lost.
            None => batch.take_back(),
        }
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        spawner::detect().spawn_blocking(work);
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        spawner::detect().sleep(duration)
    }
}

impl Recorder {
    /// Makes an empty recorder: see [`Recorder`].
    pub fn new() -> Self {
        Recorder::default()
    }

    /// The Runner of this recorder: for code that opens scopes of its own, a router with the layer, say. Always the same
    /// one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let recorder = after::testing::Recorder::new();
    /// let runner = recorder.runner();
    /// runner.scope(async { after::task("audit").defer(async {}) }).await;
    /// assert!(recorder.contains("audit"));
    /// recorder.run().await;
    /// assert_eq!(runner.stats().completed, 1);
    /// # }
    /// ```
    pub fn runner(&self) -> Runner {
        let make = || {
            let keeper = Keeper {
                kept: Arc::downgrade(&self.kept),
            };
            let runner = Runner::builder().spawner(keeper.clone());
            runner.observer(keeper).build()
        };
        self.runner.get_or_init(make).clone()
    }

    /// Names of all tasks that were recorded so far, run or not, in the order of deferral.
    ///
    /// A task that is [`spawned`](crate::TaskBuilder::spawned) is a batch of its own, and comes before the others of its
    /// request. An unnamed task has its type's name. What a task defers while it runs is not listed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ((), recorder) = after::testing::capture(async {
    ///     after::task("receipt").defer(async {});
    ///     after::task("audit").defer(async {});
    /// })
    /// .await;
    /// assert_eq!(recorder.names(), ["receipt", "audit"]);
    /// # }
    /// ```
    pub fn names(&self) -> Vec<&'static str> {
        let names = |kept: &mut Records| kept.tasks().map(|task| task.name).collect();
        self.kept.with(names)
    }

    /// All recorded tasks, like [`names`](Recorder::names), with their keys and where they were deferred: see [`Recorded`].
    pub fn tasks(&self) -> Vec<Recorded> {
        self.kept.with(|kept| kept.tasks().cloned().collect())
    }

    /// How many tasks were recorded so far, run or not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ((), recorder) = after::testing::capture(async {}).await;
    /// assert_eq!(recorder.len(), 0); // this request defers nothing
    /// # }
    /// ```
    pub fn len(&self) -> usize {
        self.kept.with(|kept| kept.tasks().len())
    }

    /// Whether no task was recorded. See [`len`](Recorder::len).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a task with this name was recorded. See [`runner`](Recorder::runner) for an example.
    pub fn contains(&self, name: &str) -> bool {
        self.names().contains(&name)
    }

    /// Forgets what was recorded so far, for the next part of a test.
    ///
    /// What has not run is dropped, counted as lost, and not reported. What a [`run`](Recorder::run) is running goes on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let recorder = after::testing::Recorder::new();
    /// recorder.runner().scope(async { after::task("set up").defer(async {}) }).await;
    /// recorder.clear();
    /// recorder.runner().scope(async { after::task("audit").defer(async {}) }).await;
    /// assert_eq!(recorder.names(), ["audit"]);
    /// recorder.run().await;
    /// # }
    /// ```
    pub fn clear(&self) {
        let batches = self.kept.with(|kept| {
            kept.clearing += 1;
            kept.clear()
        });
        // Their destructors are the user's code, and may defer: nothing is locked.
        drop_unreported(batches);
        self.kept.with(|kept| kept.clearing -= 1);
    }
}

impl Spawner for Recorder {
    fn spawn(&self, batch: Batch) {
        self.kept.change(|kept| kept.keep(batch)).wake();
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        spawner::detect().spawn_blocking(work);
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        spawner::detect().sleep(duration)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kept.with(|kept| write!(f, "Recorder {kept:?}"))
    }
}

/// Runs a request, and returns its output and a [`Recorder`] of what it has deferred.
///
/// What the request defers is recorded, not run. Scopes that the request opens on other Runners, the global one included,
/// are not recorded.
///
/// # Cancel safety
///
/// Dropped before it resolves, it cancels the request, and with the recorder its tasks are lost, unreported.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// async fn sign_up(mail: &str) -> Result<(), &'static str> {
///     after::task("welcome").defer(async { println!("sent") });
///     mail.contains('@').then_some(()).ok_or("no address")
/// }
///
/// let (result, recorder) = after::testing::capture(sign_up("a@example.com")).await;
/// assert!(result.is_ok() && recorder.contains("welcome"));
/// recorder.run().await; // panics if the task fails
/// # }
/// ```
pub async fn capture<F: Future>(request: F) -> (F::Output, Recorder) {
    let recorder = Recorder::new();
    let output = recorder.runner().scope(request).await;
    (output, recorder)
}
