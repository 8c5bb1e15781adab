//! What a test records, and runs.

use std::{
    collections::HashSet,
    error::Error,
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{Arc, OnceLock, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    failures::{Elsewhere, Failures, Verdict},
    records::{Recorded, Records, drop_unreported},
    run::Running,
};
use crate::{
    account::{Counts, Stats, Unfinished},
    batch::Batch,
    limit::sleep_without_runtime,
    report::{drop_waker, wake},
    runner::Runner,
    spawner::{self, BlockingWork, Sleep, Spawner},
    sync::{Mutex, MutexGuard},
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
    kept.keep(batch);
    let waker = kept.waker.take();
    drop(kept);
    if let Some(waker) = waker {
        wake(waker);
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
        self.lock().tasks().map(|task| task.name).collect()
    }

    /// All recorded tasks, like [`names`](Recorder::names), with their keys and where they were deferred: see [`Recorded`].
    pub fn tasks(&self) -> Vec<Recorded> {
        self.lock().tasks().cloned().collect()
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
        self.lock().len()
    }

    /// Whether no task was recorded. See [`len`](Recorder::len).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a task with this name was recorded. See [`runner`](Recorder::runner) for an example.
    pub fn contains(&self, name: &str) -> bool {
        self.lock().tasks().any(|task| task.name == name)
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
        let mut kept = self.lock();
        let batches = kept.clear();
        kept.clearing += 1;
        drop(kept);
        // Their destructors are the user's code, and may defer: nothing is locked.
        drop_unreported(batches);
        self.lock().clearing -= 1;
    }

    /// Runs what was recorded, until nothing is left, and panics if a task failed.
    ///
    /// That includes what tasks defer, and the tasks of scopes inside them. It is fine if nothing was recorded. A task that
    /// never ends makes this wait forever: [`run_within`](Recorder::run_within) has a limit.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it resolves, it leaves the tasks that have not ended recorded, to be run further.
    ///
    /// # Panics
    ///
    /// When nothing is left to run, at the line of the `await`:
    ///
    /// - if a task failed, panicked, timed out, was shed or was lost, naming each with the place where it was deferred. Of
    ///   a Runner that is not this recorder's [own](Recorder::runner) it knows how many, not which;
    /// - if a request of its own Runner that has deferred something is still open, or a batch of it is held: then that was
    ///   not run. Under the HTTP layer a response that was neither read to its end nor dropped is such a request.
    ///   Behind a real server the request ends shortly after the client has read the response: there
    ///   [`run_within`](Recorder::run_within) waits for it.
    ///
    /// ```should_panic
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (_, recorder) = after::testing::capture(async {
    ///     after::task("webhook").defer(async { Err::<(), _>("the receiver answers 503") });
    /// })
    /// .await;
    /// // Panics: `webhook` (deferred at src/main.rs:4:29) failed: the receiver answers 503
    /// recorder.run().await;
    /// # }
    /// ```
    pub fn run(&self) -> impl Future<Output = ()> + Send + '_ {
        ToTheEnd {
            run: Box::pin(self.run_all(false)),
        }
    }

    /// Runs what was recorded, like [`run`](Recorder::run), with a limit in real time, and without a panic.
    ///
    /// What failed is in the [`Stats`]: those of all Runners whose batches were run, added up. While a request of the
    /// recorder's own Runner is open that has deferred something, it waits for its end, and runs its tasks.
    ///
    /// The limit is measured by a timer that needs no runtime, so a paused clock does not hold it up.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it resolves, it leaves the tasks that have not ended recorded, to be run further.
    ///
    /// # Errors
    ///
    /// [`Stuck`] at the limit, naming the tasks that had not ended, and saying how many belong to requests that are open.
    /// Those that were recorded stay recorded, and may be run further.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (_, recorder) = after::testing::capture(async {
    ///     after::task("waits forever").defer(std::future::pending::<()>());
    /// })
    /// .await;
    /// let stuck = recorder.run_within(Duration::from_millis(20)).await.unwrap_err();
    /// assert_eq!(stuck.unfinished()[0].name, "waits forever");
    /// # }
    /// ```
    pub async fn run_within(&self, limit: Duration) -> Result<Stats, Stuck> {
        let mut run = Box::pin(self.run_all(true));
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
        if let Some(stats) = ended {
            return Ok(stats);
        }
        let kept = self.lock();
        let batches = kept.batches.iter().map(|kept| &kept.batch);
        let unfinished = batches.flat_map(Batch::unfinished);
        let unfinished = unfinished.map(|(_, task)| task).collect();
        drop(kept);
        Err(Stuck {
            limit,
            unfinished,
            elsewhere: self.elsewhere(),
        })
    }

    /// What its own Runner has not given to it.
    fn elsewhere(&self) -> Elsewhere {
        let Some(runner) = self.runner.get() else {
            return Elsewhere::default();
        };
        // So that what is current here has published its counts.
        runner.counts();
        let (counts, named) = runner.core.account.unfinished();
        let of_ours = |batch: &&Batch| {
            let its = batch.runner();
            its.is_some_and(|its| Arc::ptr_eq(&its.core, &runner.core))
        };
        let kept = self.lock();
        let batches = kept.batches.iter().map(|kept| &kept.batch);
        let recorded: usize = batches.filter(of_ours).map(Batch::len).sum();
        drop(kept);
        let handed_over = named.len() as u64;
        Elsewhere {
            requests: counts.pending().saturating_sub(handed_over),
            held: handed_over.saturating_sub(recorded as u64),
        }
    }

    /// Runs everything, and, if it `waits`, what open requests of its own Runner are still to hand over; gives the
    /// counts of all Runners concerned, added up, before and after.
    async fn run_all(&self, waits: bool) -> (Verdict, Counts) {
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
        let mut nothing_pending = self.runner.get().filter(|_| waits).map(|runner| {
            let runner = runner.clone();
            Box::pin(async move { runner.drain().await })
        });
        poll_fn(|cx| {
            run.running.watch(cx.waker());
            let waker = Some(cx.waker().clone());
            let before = mem::replace(&mut self.lock().waker, waker);
            drop_waker(before);
            let recorded = mem::take(&mut self.lock().batches);
            for kept in recorded {
                if let Some(runner) = kept.batch.runner() {
                    if known.insert(address(&runner)) {
                        let counts = runner.counts();
                        runners.push((runner, counts));
                    }
                }
                run.running.add(kept);
            }
            let ended = run.running.poll_woken();
            let mut kept = self.lock();
            ended.into_iter().for_each(|tasks| kept.has_run(tasks));
            // Those that have run may have handed over others: then this was woken.
            let idle = run.running.is_empty() && kept.batches.is_empty();
            drop(kept);
            match &mut nothing_pending {
                _ if !idle => Poll::Pending,
                None => Poll::Ready(()),
                Some(nothing_pending) => nothing_pending.as_mut().poll(cx),
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
        let bad = |counts: &Counts| {
            counts.failed + counts.panicked + counts.timed_out + counts.shed + counts.lost
        };
        let failures = mem::take(&mut self.lock().failures);
        let unnamed = bad(&after).saturating_sub(bad(&before));
        let unnamed = unnamed.saturating_sub(failures.len() as u64);
        let verdict = Verdict {
            failures,
            unnamed,
            elsewhere: self.elsewhere(),
        };
        (verdict, after)
    }
}

/// A run whose failures are the test's. A type of its own, because an `async fn` does not know who awaits it.
struct ToTheEnd<'a> {
    run: Pin<Box<dyn Future<Output = (Verdict, Counts)> + Send + 'a>>,
}

impl Future for ToTheEnd<'_> {
    type Output = ();

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready((verdict, _)) = self.run.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        assert!(verdict.is_good(), "{verdict}");
        Poll::Ready(())
    }
}

/// Runs a recorder's batches. Dropped, it puts back what has not ended.
struct Run<'a> {
    recorder: &'a Recorder,
    running: Running,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let running = self.running.take();
        let mut kept = self.recorder.lock();
        let newer = mem::take(&mut kept.batches);
        running.into_iter().for_each(|batch| kept.put_back(batch));
        kept.batches.extend(newer);
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
        write!(f, "Recorder {:?}", *self.lock())
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

/// Error returned by [`Recorder::run_within`] at its limit: the tasks that had not ended. See there for an example.
#[derive(Clone, Debug)]
pub struct Stuck {
    limit: Duration,
    unfinished: Vec<Unfinished>,
    elsewhere: Elsewhere,
}

impl Stuck {
    /// The recorded tasks that had not ended. See [`run_within`](Recorder::run_within) for an example.
    ///
    /// Empty if all that is left belongs to requests that have not ended, or to held batches: `Display` says so.
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
        if !self.elsewhere.is_none() {
            let and = if self.unfinished.is_empty() {
                ""
            } else {
                "; and"
            };
            write!(f, "{and} {}", self.elsewhere)?;
        }
        Ok(())
    }
}

impl Error for Stuck {}
