//! What a test records, and runs.

use std::{
    collections::HashSet,
    error::Error,
    fmt,
    future::{Future, poll_fn},
    mem,
    panic::Location,
    sync::{Arc, OnceLock, PoisonError, Weak},
    task::{Poll, Waker},
    time::Duration,
};

use super::run::Running;
use crate::{
    account::{Counts, Stats, Unfinished},
    batch::Batch,
    limit::sleep_without_runtime,
    report::{Observer, TaskEnd, TaskFinished, drop_waker, message, wake},
    runner::Runner,
    spawner::{self, BlockingWork, Sleep, Spawner},
    sync::{Mutex, MutexGuard},
};

/// A [`Spawner`] that keeps what it is given, until [`run`](Recorder::run).
///
/// Clones share what they keep. Blocking work and time limits are those of the runtime that runs the test, as
/// [`detect`](spawner::detect) finds it: tokio's paused clock is obeyed. What is never run is lost when the last clone is
/// dropped: counted, and not reported. A Runner of yours whose spawner is a clone lives as long as its
/// batches are kept.
#[derive(Clone, Default)]
pub struct Recorder {
    kept: Arc<Mutex<Records>>,
    /// Made by the first `runner()`.
    runner: Arc<OnceLock<Runner>>,
}

/// The spawner of a recorder's own Runner. Weak, because a batch keeps its Runner: they would keep each other.
struct Keeper {
    kept: Weak<Mutex<Records>>,
}

impl Spawner for Keeper {
    fn spawn(&self, mut batch: Batch) {
        match self.kept.upgrade() {
            Some(kept) => keep(&kept, batch),
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

fn keep(kept: &Mutex<Records>, batch: Batch) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.names.extend(batch.static_names());
    kept.batches.push(batch);
    let waker = kept.waker.take();
    drop(kept);
    if let Some(waker) = waker {
        wake(waker);
    }
}

#[derive(Default)]
struct Records {
    batches: Vec<Batch>,
    /// Of who runs them, and is to hear of more.
    waker: Option<Waker>,
    /// The names of all tasks that were ever kept.
    names: Vec<&'static str>,
    /// What failed or panicked while it was run.
    failures: Vec<Failure>,
}

impl Drop for Records {
    fn drop(&mut self) {
        // A test that looks only at what was deferred need not run it, and its output says nothing of it.
        for batch in self.batches.drain(..) {
            batch.drop_unreported();
        }
    }
}

struct Failure {
    name: String,
    location: &'static Location<'static>,
    how: String,
}

impl Recorder {
    /// One that has kept nothing.
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
            let spawner = Keeper {
                kept: Arc::downgrade(&self.kept),
            };
            let failures = Failures {
                kept: Arc::downgrade(&self.kept),
            };
            Runner::builder()
                .spawner(spawner)
                .observer(failures)
                .build()
        };
        self.runner.get_or_init(make).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all tasks that were recorded so far, run or not, in the order of deferral within each batch: what is
    /// [`spawned`](crate::TaskBuilder::spawned) is a batch of its own, and comes before the others of its request.
    ///
    /// An unnamed task has its type's name. What a task defers while it runs is part of its batch, and not among them.
    pub fn names(&self) -> Vec<&'static str> {
        self.lock().names.clone()
    }

    /// How many tasks were recorded so far, run or not.
    pub fn len(&self) -> usize {
        self.lock().names.len()
    }

    /// Whether no task was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a task with this name was recorded.
    pub fn contains(&self, name: &str) -> bool {
        self.lock().names.contains(&name)
    }

    /// Runs what was recorded, until nothing is left: what tasks defer in turn and what scopes inside them hand over
    /// included. Nothing recorded is fine. A task that never ends makes this wait for ever:
    /// [`run_within`](Recorder::run_within) does not.
    ///
    /// # Panics
    ///
    /// If a task failed or panicked, when all have ended, naming them. Tasks that timed out or were lost are in the
    /// [`Stats`] alone. Of a Runner that is not this recorder's
    /// [own](Recorder::runner) it knows that some failed, not which.
    pub async fn run(&self) {
        let (before, after) = self.run_all().await;
        let failures = mem::take(&mut self.lock().failures);
        let bad = |counts: &Counts| counts.failed + counts.panicked;
        let unnamed = bad(&after)
            .saturating_sub(bad(&before))
            .saturating_sub(failures.len() as u64);
        assert!(
            failures.is_empty() && unnamed == 0,
            "{}",
            Failed { failures, unnamed }
        );
    }

    /// As [`run`](Recorder::run), with a limit in real time, and without a panic: what failed is in the [`Stats`], those
    /// of all Runners whose batches were run, added up.
    ///
    /// The limit is measured by a timer that needs no runtime, so a paused clock does not hold it up.
    ///
    /// # Errors
    ///
    /// [`Stuck`] at the limit, naming the tasks that had not ended. They stay recorded, and may be run further.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (_, recorder) = after::testing::capture(async {
    ///     after::task("waits for ever").defer(std::future::pending::<()>());
    /// })
    /// .await;
    /// let stuck = recorder.run_within(Duration::from_millis(20)).await.unwrap_err();
    /// assert_eq!(stuck.unfinished()[0].name, "waits for ever");
    /// # }
    /// ```
    pub async fn run_within(&self, limit: Duration) -> Result<Stats, Stuck> {
        let mut run = Box::pin(self.run_all());
        let mut timer = sleep_without_runtime(limit);
        let ended = poll_fn(|cx| {
            if let Poll::Ready((_, counts)) = run.as_mut().poll(cx) {
                return Poll::Ready(Some(Stats::from(counts)));
            }
            timer.poll(cx).map(|()| None)
        })
        .await;
        // Puts back what was being run.
        drop(run);
        self.lock().failures.clear();
        ended.ok_or_else(|| Stuck {
            limit,
            unfinished: self
                .lock()
                .batches
                .iter()
                .flat_map(Batch::unfinished)
                .collect(),
        })
    }

    /// Runs everything; gives the counts of all Runners concerned, added up, before and after.
    async fn run_all(&self) -> (Counts, Counts) {
        let mut run = Run {
            recorder: self,
            running: Running::default(),
        };
        let mut runners: Vec<(Runner, Counts)> = Vec::new();
        // The Runners are kept, so that no other gets the address of one.
        let mut known = HashSet::new();
        let address = |runner: &Runner| Arc::as_ptr(&runner.core) as usize;
        if let Some(runner) = self.runner.get() {
            known.insert(address(runner));
            runners.push((runner.clone(), runner.counts()));
        }
        poll_fn(|cx| {
            run.running.watch(cx.waker());
            let waker = Some(cx.waker().clone());
            let before = mem::replace(&mut self.lock().waker, waker);
            drop_waker(before);
            let recorded = mem::take(&mut self.lock().batches);
            for batch in recorded {
                if let Some(runner) = batch.runner() {
                    if known.insert(address(&runner)) {
                        let counts = runner.counts();
                        runners.push((runner, counts));
                    }
                }
                run.running.add(batch);
            }
            run.running.poll_woken();
            // Those that have run may have handed over others: then this was woken.
            match run.running.is_empty() && self.lock().batches.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        drop(run);
        let mut before = Counts::default();
        let mut after = Counts::default();
        for (runner, counts) in runners {
            before.add(&counts);
            after.add(&runner.counts());
        }
        (before, after)
    }
}

/// Runs a recorder's batches. Dropped, it puts back what has not ended.
struct Run<'a> {
    recorder: &'a Recorder,
    running: Running,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut batches = self.running.take();
        let mut kept = self.recorder.lock();
        batches.append(&mut kept.batches);
        kept.batches = batches;
    }
}

impl Spawner for Recorder {
    fn spawn(&self, batch: Batch) {
        keep(&self.kept, batch);
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
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// Notes what fails, so that `run` can name it.
struct Failures {
    kept: Weak<Mutex<Records>>,
}

impl Observer for Failures {
    fn finished(&self, event: &TaskFinished<'_>) {
        let how = match event.end {
            TaskEnd::Failed(error) => format!("failed: {error}"),
            TaskEnd::Panicked(payload) => {
                format!("panicked: {}", message(payload))
            }
            _ => return,
        };
        let failure = Failure {
            name: event.task.name.to_owned(),
            location: event.task.location,
            how,
        };
        if let Some(kept) = self.kept.upgrade() {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.failures.push(failure);
        }
    }
}

struct Failed {
    failures: Vec<Failure>,
    unnamed: u64,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.failures.len() as u64 + self.unnamed;
        write!(f, "of the recorded tasks {count} failed or panicked")?;
        for Failure {
            name,
            location,
            how,
        } in &self.failures
        {
            write!(f, "; `{name}` ({location}) {how}")?;
        }
        if self.unnamed > 0 {
            write!(
                f,
                "; {} on a Runner that is not the recorder's",
                self.unnamed
            )?;
        }
        Ok(())
    }
}

/// Runs a request in a scope on the Runner of a new [`Recorder`]: gives its output, and what it deferred.
///
/// What the request defers is recorded, not run: see the [module](super) for an example. Scopes that the request opens on
/// other Runners, the global one included, are theirs.
pub async fn capture<F: Future>(request: F) -> (F::Output, Recorder) {
    let recorder = Recorder::new();
    let output = recorder.runner().scope(request).await;
    (output, recorder)
}

/// Tasks had not ended at the limit of [`Recorder::run_within`].
#[derive(Clone, Debug)]
pub struct Stuck {
    limit: Duration,
    unfinished: Vec<Unfinished>,
}

impl Stuck {
    /// The tasks that had not ended.
    pub fn unfinished(&self) -> &[Unfinished] {
        &self.unfinished
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still unfinished after {:?}:", self.limit)?;
        for (index, Unfinished { name, location, .. }) in self.unfinished.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma} `{name}` ({location})")?;
        }
        Ok(())
    }
}

impl Error for Stuck {}
