//! What several test files use: the table of runtimes, hand-polling, spawners that keep what they are given.
#![allow(dead_code, unreachable_pub)] // no test file uses all of it

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use after::{
    Batch, Runner, RunnerBuilder, Spawner,
    spawner::{self, BlockingWork, Sleep},
};
use futures::channel::oneshot;

/// Every runtime on which behaviour is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    #[cfg(feature = "tokio")]
    TokioCurrentThread,
    #[cfg(feature = "tokio")]
    TokioMultiThread,
    #[cfg(feature = "smol")]
    Smol,
    #[cfg(feature = "async-std")]
    AsyncStd,
    #[cfg(feature = "threads")]
    Threads,
    /// A bare `block_on`, and whatever a Runner finds there by itself.
    BlockOn,
}

/// The table: what `every_runtime!` makes tests for.
pub const TABLE: &[Runtime] = &[
    #[cfg(feature = "tokio")]
    Runtime::TokioCurrentThread,
    #[cfg(feature = "tokio")]
    Runtime::TokioMultiThread,
    #[cfg(feature = "smol")]
    Runtime::Smol,
    #[cfg(feature = "async-std")]
    Runtime::AsyncStd,
    #[cfg(feature = "threads")]
    Runtime::Threads,
    #[cfg(any(feature = "threads", feature = "smol", feature = "async-std"))]
    Runtime::BlockOn,
];

impl Runtime {
    /// Runs `test` to its end on the runtime.
    pub fn run<F: Future>(self, test: F) -> F::Output {
        match self {
            #[cfg(feature = "tokio")]
            Runtime::TokioCurrentThread => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(test),
            #[cfg(feature = "tokio")]
            Runtime::TokioMultiThread => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(test),
            #[cfg(feature = "smol")]
            Runtime::Smol => smol::block_on(test),
            #[cfg(feature = "async-std")]
            Runtime::AsyncStd => async_std::task::block_on(test),
            #[cfg(feature = "threads")]
            Runtime::Threads => futures::executor::block_on(test),
            Runtime::BlockOn => futures::executor::block_on(test),
        }
    }

    /// For a Runner that runs here and is configured by the test.
    pub fn builder(self) -> RunnerBuilder {
        match self {
            #[cfg(feature = "smol")]
            Runtime::Smol => Runner::builder().spawner(spawner::Smol),
            #[cfg(feature = "async-std")]
            Runtime::AsyncStd => Runner::builder().spawner(spawner::AsyncStd),
            #[cfg(feature = "threads")]
            Runtime::Threads => Runner::builder().spawner(spawner::Threads::default()),
            _ => Runner::builder(),
        }
    }
}

/// As `every_runtime!`, for tests that configure their Runner: they get a builder.
#[macro_export]
macro_rules! every_builder {
    ($( $(#[$meta:meta])* async fn $name:ident($builder:ident) $body:block )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            // Without any feature there is no runtime.
            #[allow(dead_code)]
            fn on(runtime: $crate::common::Runtime) {
                runtime.run(async move {
                    let $builder = runtime.builder();
                    $body
                });
            }

            #[cfg(feature = "tokio")]
            #[test]
            fn on_tokio_current_thread() {
                on($crate::common::Runtime::TokioCurrentThread);
            }

            #[cfg(feature = "tokio")]
            #[test]
            fn on_tokio_multi_thread() {
                on($crate::common::Runtime::TokioMultiThread);
            }

            #[cfg(feature = "smol")]
            #[test]
            fn on_smol() {
                on($crate::common::Runtime::Smol);
            }

            #[cfg(feature = "async-std")]
            #[test]
            fn on_async_std() {
                on($crate::common::Runtime::AsyncStd);
            }

            #[cfg(feature = "threads")]
            #[test]
            fn on_threads() {
                on($crate::common::Runtime::Threads);
            }

            #[cfg(any(feature = "threads", feature = "smol", feature = "async-std"))]
            #[test]
            fn on_a_bare_block_on() {
                on($crate::common::Runtime::BlockOn);
            }
        }
    )*};
}

/// Writes each test once and runs it on every runtime of the table, with a Runner there.
#[macro_export]
macro_rules! every_runtime {
    ($( $(#[$meta:meta])* async fn $name:ident($runner:ident) $body:block )*) => {
        $crate::every_builder! {$(
            $(#[$meta])*
            async fn $name(builder) {
                let $runner = builder.build();
                $body
            }
        )*}
    };
}

/// Polls once with a waker that does nothing.
pub fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Counts how often it is woken.
#[derive(Default)]
pub struct CountingWaker {
    wakes: AtomicUsize,
}

impl CountingWaker {
    pub fn new() -> (Arc<Self>, Waker) {
        let counter = Arc::new(CountingWaker::default());
        (counter.clone(), Waker::from(counter))
    }

    pub fn wakes(&self) -> usize {
        self.wakes.load(SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
    }
}

/// Polls until ready, at most `most` times, and says how often it was. For batches that need no outside event.
pub fn polls_to_end<F: Future + Unpin>(future: &mut F, most: usize) -> usize {
    for polls in 1..=most {
        if poll_once(Pin::new(future)).is_ready() {
            return polls;
        }
    }
    panic!("not ready after {most} polls");
}

/// A Runner whose spawner keeps the batches, and the batches.
pub fn keeping() -> (Runner, Batches) {
    let batches = Batches::default();
    let keep = batches.clone();
    let runner = Runner::new(spawner::from_fn(move |batch| keep.push(batch)));
    (runner, batches)
}

/// As `keeping`, on a Runner that is configured.
pub fn keeping_with(configure: impl FnOnce(RunnerBuilder) -> RunnerBuilder) -> (Runner, Batches) {
    let batches = Batches::default();
    let keep = batches.clone();
    let builder = Runner::builder().spawner(spawner::from_fn(move |batch| keep.push(batch)));
    (configure(builder).build(), batches)
}

/// Runs one test of this program, named with its modules, in a process of its own, in which `is_child` holds; gives its
/// standard error.
pub fn standard_error_of(test: &str) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("AFTER_TEST_CHILD", test)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("ok. 1 passed"), "no test `{test}`: {said}");
    String::from_utf8(output.stderr).unwrap()
}

/// Whether this is the process that `standard_error_of` has started for `test`.
pub fn is_child(test: &str) -> bool {
    std::env::var_os("AFTER_TEST_CHILD").is_some_and(|child| child == test)
}

/// For tests that panic and lose tasks by the thousand: panics that say "told to" are not shown, and reports are not
/// written where there is a subscriber to take them.
pub fn keep_quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        #[cfg(feature = "tracing")]
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref() != Some(&"told to") {
                before(info);
            }
        }));
    });
}

/// Batches that were handed over and wait for the test to poll them.
#[derive(Clone, Default)]
pub struct Batches {
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl Batches {
    pub fn push(&self, batch: Batch) {
        self.batches.lock().unwrap().push(batch);
    }

    pub fn len(&self) -> usize {
        self.batches.lock().unwrap().len()
    }

    /// The only batch that was handed over since the last look.
    pub fn take_one(&self) -> Batch {
        let mut batches = self.batches.lock().unwrap();
        assert_eq!(batches.len(), 1, "one call of `Spawner::spawn`");
        batches.pop().unwrap()
    }

    /// Polls what was handed over, in turn and again, until nothing has ended and nothing has come in `most` rounds.
    pub fn drive(&self, most: usize) {
        let mut idle = 0;
        while idle < most && self.len() > 0 {
            let before = self.take_all();
            let count = before.len();
            for mut batch in before {
                if poll_once(Pin::new(&mut batch)).is_pending() {
                    self.push(batch);
                }
            }
            idle = if self.len() == count { idle + 1 } else { 0 };
        }
    }

    pub fn take_all(&self) -> Vec<Batch> {
        std::mem::take(&mut self.batches.lock().unwrap())
    }
}

/// Keeps batches and blocking work; its sleeps end when the test says so.
#[derive(Clone, Default)]
pub struct ByHand {
    pub batches: Batches,
    pub blocking: Arc<Mutex<Vec<BlockingWork>>>,
    sleeps: Arc<Mutex<Sleeps>>,
    dropped: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Sleeps {
    made: Vec<Duration>,
    /// Those that have not been fired, dropped ones too.
    left: Vec<(Duration, oneshot::Sender<()>)>,
}

struct CountsDrop(Arc<AtomicUsize>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Spawner for ByHand {
    fn spawn(&self, batch: Batch) {
        self.batches.push(batch);
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        self.blocking.lock().unwrap().push(work);
    }

    fn sleep(&self, limit: Duration) -> Sleep {
        let (fire, fired) = oneshot::channel();
        let mut sleeps = self.sleeps.lock().unwrap();
        sleeps.made.push(limit);
        sleeps.left.push((limit, fire));
        let dropped = CountsDrop(self.dropped.clone());
        Sleep::new(async move {
            let _dropped = dropped;
            if fired.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

impl ByHand {
    /// The limits for which sleeps were made, in order.
    pub fn made(&self) -> Vec<Duration> {
        self.sleeps.lock().unwrap().made.clone()
    }

    /// Lets the time of all sleeps so long pass, in order. One that was dropped does not notice.
    pub fn fire(&self, limit: Duration) {
        let mut sleeps = self.sleeps.lock().unwrap();
        let fired: Vec<_> = sleeps.left.extract_if(.., |(of, _)| *of == limit).collect();
        drop(sleeps);
        for (_, fire) in fired {
            let _ = fire.send(());
        }
    }

    /// The same for one of those that are left, if there are so many.
    pub fn fire_at(&self, index: usize) {
        let mut sleeps = self.sleeps.lock().unwrap();
        if index < sleeps.left.len() {
            let (_, fire) = sleeps.left.swap_remove(index);
            drop(sleeps);
            let _ = fire.send(());
        }
    }

    /// Those that are left, for a test that expects a panic to fire.
    pub fn take_sleeps(&self) -> Vec<oneshot::Sender<()>> {
        let left = std::mem::take(&mut self.sleeps.lock().unwrap().left);
        left.into_iter().map(|(_, fire)| fire).collect()
    }

    /// How many sleeps were dropped.
    pub fn dropped(&self) -> usize {
        self.dropped.load(SeqCst)
    }
}

/// A shared list in which things that happen are noted in order.
#[derive(Clone, Default)]
pub struct Log {
    entries: Arc<Mutex<Vec<String>>>,
}

impl Log {
    pub fn new() -> Self {
        Log::default()
    }

    pub fn add(&self, entry: impl Into<String>) {
        self.entries.lock().unwrap().push(entry.into());
    }

    pub fn clear(&self) {
        self.entries.lock().unwrap().clear();
    }

    pub fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn assert(&self, expected: &[&str]) {
        assert_eq!(self.entries(), expected);
    }
}

/// Defers, from its destructor, a task that notes `entry`; notes "outside" if there is no scope.
pub struct DefersOnDrop {
    pub log: Log,
    pub entry: &'static str,
}

impl Drop for DefersOnDrop {
    fn drop(&mut self) {
        let (log, entry) = (self.log.clone(), self.entry);
        if after::try_defer(async move { log.add(entry) }).is_err() {
            self.log.add("outside");
        }
    }
}

/// Resolves after it has been pending `polls` times, waking itself each time.
pub async fn yields(polls: usize) {
    for _ in 0..polls {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Asserts the equation of sentence 19 on a Runner, and gives its stats.
#[track_caller]
pub fn balanced(runner: &Runner) -> after::Stats {
    let stats = runner.stats();
    assert_eq!(
        stats.deferred,
        stats.completed
            + stats.failed
            + stats.panicked
            + stats.timed_out
            + stats.discarded
            + stats.shed
            + stats.lost
            + stats.pending,
        "{stats:?}"
    );
    stats
}

/// Runs a future by hand that needs no outside event.
#[track_caller]
pub fn now_or_never<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("pending at the first poll"),
    }
}
