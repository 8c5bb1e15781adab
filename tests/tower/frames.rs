//! `RunAfter::Written`: no code of the user's runs where the server drops a data frame. Sentence 22b.
//!
//! A server may drop a frame under a lock of its own, which the destructors of a request's tasks may want: h2 has one for all
//! streams of a connection. So every piece of user code notes whether a frame is being dropped on its thread.

use std::{
    cell::Cell,
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use after::{
    Batch, Observer, Order, Outcome, Overflow, Runner, Spawner, TaskDeferred, TaskFinished,
    TaskFuture, TaskStarted,
    spawner::{BlockingWork, Sleep},
    tower::{AfterBody, AfterLayer, RunAfter},
};
use bytes::Bytes;
use http::{Request, Response};
use tower::{Layer, Service};

use crate::{
    common::{Batches, balanced, keep_quiet, now_or_never, poll_once},
    script::{Script, next_data, next_frame},
};

thread_local! {
    static DROPPING: Cell<bool> = const { Cell::new(false) };
    // What ran meanwhile on this thread. A condition is a `fn`, and knows no test.
    static SEEN: Cell<Vec<&'static str>> = const { Cell::new(Vec::new()) };
}

/// The user's code says what it is.
fn runs(what: &'static str) {
    if DROPPING.get() {
        let mut seen = SEEN.take();
        seen.push(what);
        SEEN.set(seen);
    }
}

/// What a server does with a frame under its lock; says what of the user's ran there.
fn drop_frames(frames: Vec<Bytes>) -> Vec<&'static str> {
    DROPPING.set(true);
    drop(frames);
    DROPPING.set(false);
    SEEN.take()
}

const TASK: &str = "the destructor of a task";

struct Says(&'static str);

impl Drop for Says {
    fn drop(&mut self) {
        runs(self.0);
        // A destructor may defer. Not a hook's, which would go on for ever.
        if self.0 == TASK {
            let _ = after::try_defer(async {});
        }
    }
}

struct Watches;

impl Observer for Watches {
    fn deferred(&self, _: &TaskDeferred<'_>) {
        runs("observer, deferred");
    }

    fn started(&self, _: &TaskStarted<'_>) {
        runs("observer, started");
    }

    fn finished(&self, _: &TaskFinished<'_>) {
        runs("observer, finished");
    }
}

#[derive(Debug)]
struct Fails;

impl fmt::Display for Fails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        runs("display");
        f.write_str("told to")
    }
}

impl Error for Fails {}

/// What becomes of a batch at the spawner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spawns {
    Keeps,
    Drops,
    Panics,
    /// Polls it with a waker that drops it: as an executor that has gone.
    DropsWhenWoken,
    /// Polls it with a waker that polls it where it is woken.
    PollsWhenWoken,
    /// Polls it with a waker that panics.
    PanicsWhenWoken,
}

struct Spawning {
    how: Spawns,
    batches: Batches,
}

impl Spawner for Spawning {
    fn spawn(&self, batch: Batch) {
        runs("spawn");
        match self.how {
            Spawns::Keeps => self.batches.push(batch),
            Spawns::Drops => drop(batch),
            Spawns::Panics => panic!("told to"),
            Spawns::DropsWhenWoken | Spawns::PollsWhenWoken | Spawns::PanicsWhenWoken => {
                let task = Arc::new(Task {
                    how: self.how,
                    batch: Mutex::new(Some(batch)),
                    woken: AtomicBool::new(true),
                });
                task.poll();
            }
        }
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        runs("spawn_blocking");
        std::thread::spawn(|| work.run());
    }

    fn sleep(&self, _: Duration) -> Sleep {
        runs("sleep");
        Sleep::new(Sleeps(Says("the destructor of a sleep")))
    }
}

struct Sleeps(#[allow(dead_code)] Says);

impl Future for Sleeps {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        runs("the poll of a sleep");
        Poll::Pending
    }
}

struct Task {
    how: Spawns,
    batch: Mutex<Option<Batch>>,
    woken: AtomicBool,
}

impl Task {
    fn poll(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        while self.woken.load(SeqCst) {
            // Nothing is there while it is being polled: who polls it sees that it was woken.
            let Some(mut batch) = self.batch.lock().unwrap().take() else {
                return;
            };
            self.woken.store(false, SeqCst);
            let polled = Pin::new(&mut batch).poll(&mut Context::from_waker(&waker));
            if polled.is_pending() {
                *self.batch.lock().unwrap() = Some(batch);
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        match self.how {
            Spawns::DropsWhenWoken => {
                let batch = self.batch.lock().unwrap().take();
                drop(batch);
            }
            Spawns::PanicsWhenWoken => panic!("told to"),
            _ => {
                self.woken.store(true, SeqCst);
                self.poll();
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Finished,
    Failed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limits {
    None,
    Shed,
    Backpressure,
}

fn discards(_: Outcome) -> bool {
    runs("condition");
    false
}

/// A handler that defers all that can be deferred.
fn defers() {
    after::context::set(Says("the destructor of a context value"));
    for condition in [discards, |_| true] {
        let owned = Says(TASK);
        after::task("plain").when(condition).defer(async move {
            runs("a task");
            drop(owned);
        });
    }
    after::defer(async {
        runs("a task");
        Err::<(), _>(Fails)
    });
    after::task("waits")
        .timeout(Duration::from_secs(1))
        .defer(async {
            let _owned = Says(TASK);
            std::future::pending::<()>().await;
        });
    after::task("apart")
        .spawned()
        .defer(async { runs("a task") });
    after::defer_blocking(|| runs("a closure"));
}

struct Case {
    spawns: Spawns,
    ends: Ends,
    limits: Limits,
    order: Order,
    handle: bool,
}

impl Case {
    fn runner(&self, batches: &Batches) -> Runner {
        let builder = Runner::builder()
            .spawner(Spawning {
                how: self.spawns,
                batches: batches.clone(),
            })
            .scope_timeout(Duration::from_secs(2))
            .order(self.order)
            .observer(Watches)
            .on_defer(|_, task| {
                runs("hook");
                let output = Says("the destructor of a hook's future");
                TaskFuture::new(async move {
                    let _output = output;
                    task.await
                })
            });
        match self.limits {
            Limits::None => builder.build(),
            Limits::Shed => builder
                .max_running(1)
                .max_waiting(1)
                .overflow(Overflow::Shed)
                .build(),
            Limits::Backpressure => builder.max_running(1).max_waiting(1).build(),
        }
    }

    fn body(&self, runner: &Runner) -> AfterBody<Script> {
        let script = Script::new().data("one").data("two");
        let mut body = Some(match self.ends {
            Ends::Finished | Ends::Cancelled => script,
            Ends::Failed => script.error(),
        });
        let mut handle = None;
        let service = tower::service_fn(|_: Request<()>| {
            if self.handle {
                handle = Some(after::handle());
            }
            defers();
            std::future::ready(Ok::<_, Infallible>(Response::new(body.take().unwrap())))
        });
        let layer = AfterLayer::with_runner(runner.clone()).run_after(RunAfter::Written);
        let response = now_or_never(layer.layer(service).call(Request::new(())));
        // Late work joins what waits for the last byte, or is a batch of its own.
        if let Some(handle) = handle {
            handle.defer(async { runs("a task") });
        }
        response.unwrap().into_body()
    }

    /// What ran where the frames were dropped.
    fn run(&self) -> Vec<&'static str> {
        let batches = Batches::default();
        let runner = self.runner(&batches);
        let mut body = self.body(&runner);
        let frames = vec![next_data(&mut body), next_data(&mut body)];
        if self.ends != Ends::Cancelled {
            let ended = next_frame(&mut body);
            assert!(!matches!(ended, Poll::Pending | Poll::Ready(Some(Ok(_)))));
        }
        drop(body);
        let mut handed_over = batches.take_all();
        for batch in &mut handed_over {
            assert!(poll_once(Pin::new(batch)).is_pending());
        }
        let seen = drop_frames(frames);
        // What is left can be run, or lost, and is counted.
        for batch in &mut handed_over {
            for _ in 0..10 {
                let _ = poll_once(Pin::new(batch));
            }
        }
        drop(handed_over);
        while batches.len() > 0 {
            drop(batches.take_all());
        }
        balanced(&runner);
        if self.spawns == Spawns::DropsWhenWoken {
            // Another thread drops it.
            futures::executor::block_on(runner.drain());
        }
        seen
    }
}

/// Sentence 22b: whatever the outcome, the limits, the order and the spawner do.
#[test]
fn no_user_code_runs_where_a_frame_is_dropped() {
    keep_quiet();
    let mut cases = 0;
    for spawns in [
        Spawns::Keeps,
        Spawns::Drops,
        Spawns::Panics,
        Spawns::DropsWhenWoken,
        Spawns::PanicsWhenWoken,
    ] {
        for ends in [Ends::Finished, Ends::Failed, Ends::Cancelled] {
            for limits in [Limits::None, Limits::Shed, Limits::Backpressure] {
                for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
                    for handle in [false, true] {
                        let case = Case {
                            spawns,
                            ends,
                            limits,
                            order,
                            handle,
                        };
                        let seen = case.run();
                        assert!(
                            seen.is_empty(),
                            "{spawns:?} {ends:?} {limits:?} {order:?} {handle}: {seen:?}"
                        );
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 5 * 3 * 3 * 3 * 2);
}

/// Sentence 22b: an executor that polls where it is woken does not run the tasks there either: another thread wakes it.
#[test]
fn an_executor_that_polls_where_it_is_woken_starts_nothing_there() {
    keep_quiet();
    let ran = Arc::new(Mutex::new(None));
    let noting = ran.clone();
    let runner = Runner::new(Spawning {
        how: Spawns::PollsWhenWoken,
        batches: Batches::default(),
    });
    let service = tower::service_fn(move |_: Request<()>| {
        let noting = noting.clone();
        after::defer(async move {
            runs("a task");
            *noting.lock().unwrap() = Some(std::thread::current().id());
        });
        std::future::ready(Ok::<_, Infallible>(Response::new(Script::new().data("a"))))
    });
    let layer = AfterLayer::with_runner(runner.clone()).run_after(RunAfter::Written);
    let response = now_or_never(layer.layer(service).call(Request::new(())));
    let mut body = response.unwrap().into_body();
    let frames = vec![next_data(&mut body)];
    drop(body);
    assert!(drop_frames(frames).is_empty());
    futures::executor::block_on(runner.drain());
    let thread = ran.lock().unwrap().expect("it has run");
    assert_ne!(thread, std::thread::current().id());
    assert_eq!(balanced(&runner).completed, 1);
}
