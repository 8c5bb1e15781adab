//! Spawners that keep to their contract, and those that don't, for every way in which a batch gets to one.
//!
//! Sentences 6, 8, 10, 13, 15, 18b, 19 and 20.

use std::{
    cell::Cell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    time::Duration,
};

use after::{Batch, Order, Runner, Spawner, TaskBuilder};
use futures::FutureExt as _;

use crate::common::{self, Batches, CountingWaker, balanced, now_or_never, poll_once, yields};

/// What a spawner does with each batch that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Keeps,
    Drops,
    Panics,
    KeepsAndPanics,
    /// Forbidden by the contract, as are the next four: it polls inside the call.
    PollsOnceAndKeeps,
    PollsTwiceAndDrops,
    PollsTwiceAndPanics,
    PollsToItsEnd,
    /// Lets another thread poll it, and waits for that.
    PollsElsewhere,
    /// `mem::forget`.
    Forgets,
}

/// How a batch gets to its spawner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Resolved,
    Dropped,
    Panicked,
    /// The scope is dropped while somebody else's panic unwinds.
    Unwinding,
    Released,
    /// From inside a poll of another scope of the same Runner.
    Nested,
    /// Some are split off at the hand-over.
    Spawned,
    Parallel,
    /// A running task defers what is split off.
    SplitOffByATask,
    /// Through a handle, when the batch is over.
    Late,
    /// From a body of which a frame is left, that goes when the spawner has the batch.
    #[cfg(feature = "tower")]
    Written,
}

const WAYS: &[Way] = &[
    Way::Resolved,
    Way::Dropped,
    Way::Panicked,
    Way::Unwinding,
    Way::Released,
    Way::Nested,
    Way::Spawned,
    Way::Parallel,
    Way::SplitOffByATask,
    Way::Late,
    #[cfg(feature = "tower")]
    Way::Written,
];

/// What the tasks have noted.
#[derive(Default)]
struct Notes {
    made: AtomicUsize,
    dropped: AtomicUsize,
    completed: AtomicUsize,
    /// Polled for the second time although they had ended, in the call of `defer`, or with another context.
    wrong: AtomicUsize,
}

thread_local! {
    /// Whether a call of `defer` is on the stack.
    static DEFERRING: Cell<bool> = const { Cell::new(false) };
}

/// Lives as long as its task; may defer another from its destructor.
struct Life {
    notes: Arc<Notes>,
    defers: bool,
    /// What it sees of the context.
    context: Option<&'static str>,
}

impl Life {
    fn new(notes: &Arc<Notes>, defers: bool) -> Life {
        notes.made.fetch_add(1, SeqCst);
        Life {
            notes: notes.clone(),
            defers,
            context: Some("own"),
        }
    }

    /// Deferred when its request and the tasks of it are over: their context is gone.
    fn late(mut self) -> Life {
        self.context = None;
        self
    }

    /// Deferred, with a note that this call is on the stack.
    fn defer(self, builder: TaskBuilder) {
        DEFERRING.set(true);
        builder.defer(run(self));
        DEFERRING.set(false);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.notes.dropped.fetch_add(1, SeqCst);
        if self.defers {
            let mut life = Life::new(&self.notes, false);
            life.context = self.context;
            // Every task of these tests is dropped in its scope.
            if after::try_defer(run(life)).is_err() {
                self.notes.wrong.fetch_add(1, SeqCst);
            }
        }
    }
}

/// Boxed: its type would contain itself, because its destructor defers another.
fn run(life: Life) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let wrong = DEFERRING.get() || after::context::get() != life.context;
        life.notes.wrong.fetch_add(usize::from(wrong), SeqCst);
        yields(1).await;
        life.notes.completed.fetch_add(1, SeqCst);
    })
}

struct Does {
    deed: Deed,
    calls: Arc<AtomicUsize>,
    kept: Batches,
}

impl Spawner for Does {
    fn spawn(&self, mut batch: Batch) {
        self.calls.fetch_add(1, SeqCst);
        // What a spawner does inside the call of a late `defer` is its own fault.
        let deferring = DEFERRING.replace(false);
        let poll = |batch: &mut Batch| poll_once(Pin::new(batch)).is_ready();
        match self.deed {
            Deed::Keeps => self.kept.push(batch),
            Deed::Drops => drop(batch),
            Deed::Panics => std::panic::panic_any("told to"),
            Deed::KeepsAndPanics => {
                self.kept.push(batch);
                std::panic::panic_any("told to");
            }
            Deed::PollsOnceAndKeeps => {
                assert!(!poll(&mut batch));
                self.kept.push(batch);
            }
            Deed::PollsTwiceAndDrops => assert!(!poll(&mut batch) && !poll(&mut batch)),
            Deed::PollsTwiceAndPanics => {
                assert!(!poll(&mut batch) && !poll(&mut batch));
                std::panic::panic_any("told to");
            }
            Deed::PollsToItsEnd => assert!((0..20).any(|_| poll(&mut batch))),
            Deed::PollsElsewhere => {
                let polls = move || (0..20).any(|_| poll(&mut batch));
                assert!(std::thread::spawn(polls).join().unwrap());
            }
            Deed::Forgets => std::mem::forget(batch),
        }
        DEFERRING.set(deferring);
    }
}

struct World {
    runner: Runner,
    notes: Arc<Notes>,
    calls: Arc<AtomicUsize>,
    kept: Batches,
    /// Whether tasks defer from their destructors.
    defers: bool,
}

impl World {
    fn new(deed: Deed, special: bool, defers: bool) -> World {
        let (calls, kept) = (Arc::default(), Batches::default());
        let builder = Runner::builder().spawner(Does {
            deed,
            calls: Arc::clone(&calls),
            kept: kept.clone(),
        });
        let builder = if special {
            builder.max_running(8)
        } else {
            builder
        };
        World {
            runner: builder.build(),
            notes: Arc::default(),
            calls,
            kept,
            defers,
        }
    }

    fn life(&self) -> Life {
        Life::new(&self.notes, self.defers)
    }

    /// A request that defers two tasks and then ends as it is told.
    async fn request(&self, end: impl Future<Output = ()>) -> u32 {
        after::context::set("own");
        self.life().defer(after::task("first"));
        self.life().defer(after::task("second"));
        end.await;
        42
    }

    /// The frame of a body that has ended.
    #[cfg(feature = "tower")]
    fn written(&self) -> bytes::Bytes {
        use after::tower::{AfterLayer, RunAfter};
        use http_body_util::{BodyExt as _, Full};
        use tower::{Layer as _, Service as _};

        let layer = AfterLayer::with_runner(self.runner.clone()).run_after(RunAfter::Written);
        let service = tower::service_fn(|_: http::Request<()>| async {
            assert_eq!(self.request(async {}).await, 42);
            let body = Full::new(bytes::Bytes::from_static(b"data"));
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let response = now_or_never(layer.layer(service).call(http::Request::new(())));
        let mut body = response.unwrap().into_body();
        let frame = now_or_never(body.frame()).unwrap().unwrap();
        assert!(now_or_never(body.frame()).is_none());
        frame.into_data().unwrap()
    }

    /// Goes the way; gives how many calls of the spawner that should have been.
    fn go(&self, way: Way) -> usize {
        let pending = std::future::pending;
        let runner = &self.runner;
        match way {
            Way::Resolved => {
                assert_eq!(now_or_never(runner.scope(self.request(async {}))), 42);
                1
            }
            Way::Dropped | Way::Unwinding => {
                let mut scope = Box::pin(runner.scope(self.request(pending())));
                assert!(poll_once(scope.as_mut()).is_pending());
                if way == Way::Unwinding {
                    let unwound = catch_unwind(AssertUnwindSafe(move || {
                        let _scope = scope;
                        std::panic::panic_any("told to");
                    }));
                    assert!(unwound.is_err());
                }
                1
            }
            Way::Panicked => {
                let panics = async { std::panic::panic_any("told to") };
                let scope = runner.scope(self.request(panics));
                assert!(catch_unwind(AssertUnwindSafe(|| now_or_never(scope))).is_err());
                1
            }
            Way::Released => {
                let scope = runner.scope(self.request(async {}));
                let (answer, batch) = now_or_never(scope.held());
                assert_eq!((answer, batch.len(), self.calls.load(SeqCst)), (42, 2, 0));
                batch.release();
                1
            }
            Way::Nested => {
                now_or_never(runner.scope(async {
                    let answer = self.request(runner.scope(self.request(async {})).map(drop));
                    assert_eq!(answer.await, 42);
                    assert_eq!(after::context::get(), Some("own"), "the outer one's");
                }));
                2
            }
            Way::Spawned => {
                now_or_never(runner.scope(async {
                    self.request(async {}).await;
                    self.life().defer(after::task("apart").spawned());
                }));
                2
            }
            Way::Parallel => {
                let scope = runner.scope(self.request(async {}));
                assert_eq!(now_or_never(scope.order(Order::Parallel)), 42);
                2
            }
            Way::SplitOffByATask => {
                let scope = runner.scope(async {
                    self.request(async {}).await;
                    let (outer, inner) = (self.life(), self.life());
                    after::defer(async move {
                        inner.defer(after::task("apart").spawned());
                        run(outer).await;
                    });
                });
                let ((), mut batch) = now_or_never(scope.held());
                for _ in 0..20 {
                    // The batch that waits for those that were split off ends last.
                    if poll_once(Pin::new(&mut batch)).is_ready() {
                        assert_eq!(self.kept.len(), 0);
                        break;
                    }
                    self.kept.drive(1);
                }
                1
            }
            Way::Late => {
                let scope = runner.scope(async {
                    self.request(async {}).await;
                    after::handle()
                });
                let (handle, mut batch) = now_or_never(scope.held());
                assert!((0..20).any(|_| poll_once(Pin::new(&mut batch)).is_ready()));
                self.life().late().defer(handle.task("late"));
                1
            }
            #[cfg(feature = "tower")]
            Way::Written => {
                let frame = self.written();
                assert_eq!(self.calls.load(SeqCst), 1);
                drop(frame);
                1
            }
        }
    }
}

/// Goes every way to a spawner that does this, on the short way and on the long one, with and without destructors that
/// defer; `end` says, of the tasks that came to the spawner, whether they run to their end.
fn every_way(deed: Deed, loses: bool) {
    common::keep_quiet();
    for &way in WAYS {
        // There is no end to poll it to before the frame goes.
        #[cfg(feature = "tower")]
        if way == Way::Written && matches!(deed, Deed::PollsToItsEnd | Deed::PollsElsewhere) {
            continue;
        }
        for (special, defers) in [(false, false), (false, true), (true, false), (true, true)] {
            let case = format!("{deed:?}, {way:?}, special {special}, destructors {defers}");
            let world = World::new(deed, special, defers);
            let calls = world.go(way);
            let made_calls = world.calls.load(SeqCst);
            assert!(!after::in_scope());
            balanced(&world.runner);
            world.kept.drive(10);
            assert_eq!(world.kept.len(), 0, "{case}");
            if !defers {
                assert_eq!(made_calls, calls, "{case}");
            }

            let count = |count: &AtomicUsize| count.load(SeqCst) as u64;
            let notes = &*world.notes;
            let (made, dropped) = (count(&notes.made), count(&notes.dropped));
            let stats = balanced(&world.runner);
            assert_eq!(count(&notes.wrong), 0, "{case}");
            assert_eq!(
                (stats.deferred, stats.pending),
                (made, made - dropped),
                "{case}"
            );
            let completed = count(&notes.completed);
            let ends = (completed, dropped - completed);
            assert_eq!((stats.completed, stats.lost), ends, "{case}");
            assert_eq!(stats.lost > 0, loses, "{case}: {stats:?}");
            let forgets = deed == Deed::Forgets;
            assert_eq!(stats.pending > 0, forgets, "{case}: {stats:?}");
            let report = now_or_never(world.runner.shutdown(Duration::ZERO));
            assert_eq!(report.is_clean(), !forgets, "{case}");
            assert_eq!(
                report.unfinished().len() as u64,
                stats.pending,
                "{case}: {report}"
            );
        }
    }
}

/// As a check of the ways themselves.
#[test]
fn a_spawner_that_keeps_its_batches_runs_all_tasks() {
    every_way(Deed::Keeps, false);
}

#[test]
fn a_spawner_that_drops_its_batches_loses_their_tasks() {
    every_way(Deed::Drops, true);
}

#[test]
fn a_spawner_that_panics_loses_what_it_has_not_kept() {
    every_way(Deed::Panics, true);
    every_way(Deed::KeepsAndPanics, false);
}

/// Forbidden by the contract.
#[test]
fn a_spawner_that_polls_inside_the_call_breaks_nothing() {
    every_way(Deed::PollsOnceAndKeeps, false);
    every_way(Deed::PollsTwiceAndDrops, true);
    every_way(Deed::PollsTwiceAndPanics, true);
    every_way(Deed::PollsToItsEnd, false);
    every_way(Deed::PollsElsewhere, false);
}

/// Never polled, never dropped: pending for ever, and `shutdown` names the tasks.
#[test]
fn tasks_of_a_spawner_that_forgets_its_batches_stay_pending() {
    every_way(Deed::Forgets, false);
}

/// A batch belongs to no thread: polled by two in turn, with a waker of each, it is the same scope on both.
#[test]
fn a_batch_may_be_polled_by_two_threads_in_turn() {
    for special in [false, true] {
        let world = World::new(Deed::Keeps, special, true);
        now_or_never(world.runner.scope(async {
            world.request(async {}).await;
            // Enough of them for wakers of their own.
            for _ in 0..40 {
                let (outer, inner) = (world.life(), world.life());
                after::task("nests").defer(async move {
                    run(outer).await;
                    inner.defer(after::task("nested"));
                });
            }
        }));
        let (first, second) = (mpsc::channel::<Batch>(), mpsc::channel::<Batch>());
        let polls = Arc::new(AtomicUsize::new(0));
        let player = |from: mpsc::Receiver<Batch>, to: mpsc::Sender<Batch>| {
            let polls = polls.clone();
            move || {
                let (counter, waker) = CountingWaker::new();
                for mut batch in from {
                    let mut cx = Context::from_waker(&waker);
                    let before = counter.wakes();
                    polls.fetch_add(1, SeqCst);
                    match Pin::new(&mut batch).poll(&mut cx) {
                        Poll::Pending => {
                            // Not the waker of the poll before, which was the other thread's.
                            assert!(counter.wakes() > before, "it is ready to go on");
                            to.send(batch).unwrap();
                        }
                        // Both end, because this drops `to`, and its peer drops the other.
                        Poll::Ready(()) => return,
                    }
                }
            }
        };
        first.0.send(world.kept.take_one()).unwrap();
        let one = std::thread::spawn(player(first.1, second.0));
        let other = std::thread::spawn(player(second.1, first.0));
        one.join().unwrap();
        other.join().unwrap();
        assert!(polls.load(SeqCst) > 6, "{polls:?}");
        let (notes, stats) = (&world.notes, balanced(&world.runner));
        assert_eq!(notes.wrong.load(SeqCst), 0);
        assert_eq!((stats.completed, stats.pending), (stats.deferred, 0));
        assert_eq!(stats.deferred, 2 * (2 + 2 * 40));
    }
}
