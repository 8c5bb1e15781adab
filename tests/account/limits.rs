//! `max_running`, `max_waiting` and `Overflow`: sentence 21, and row P4 of the conformance list.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::Poll,
    time::Duration,
};

use after::{Batch, Order, Overflow, Runner, Spawner, spawner::Sleep};

use crate::common::{
    self, Batches, DefersOnDrop, Log, balanced, is_child, keeping_with, now_or_never, poll_once,
    polls_to_end, standard_error_of, yields,
};

/// How many run now, and the most that ever did.
#[derive(Clone, Default)]
struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Running(Gauge);

impl Gauge {
    fn enter(&self) -> Running {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        Running(self.clone())
    }

    fn task(&self, steps: usize) -> impl Future<Output = ()> + Send + use<> {
        let gauge = self.clone();
        async move {
            let _running = gauge.enter();
            yields(steps).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

/// Notes its start, and ends when its gate opens.
fn gated(
    log: &Log,
    name: &'static str,
) -> (
    futures::channel::oneshot::Sender<()>,
    impl Future<Output = ()> + Send + use<>,
) {
    let (open, gate) = futures::channel::oneshot::channel::<()>();
    let log = log.clone();
    let task = async move {
        log.add(name);
        let _ = gate.await;
    };
    (open, task)
}

fn noted(log: &Log, name: &'static str) -> impl Future<Output = ()> + Send + use<> {
    let log = log.clone();
    async move { log.add(name) }
}

fn poll_all(batches: &mut [&mut Batch]) {
    for batch in batches {
        for _ in 0..3 {
            let _ = poll_once(Pin::new(&mut **batch));
        }
    }
}

every_builder! {
    /// Sentence 21: never more than `max_running` at once, over many scopes, whatever their tasks are.
    async fn no_more_than_max_running_run_at_once(builder) {
        {
            let max = 3;
            let runner = builder.max_running(max).build();
            let gauge = Gauge::default();
            let mut handles = Vec::new();
            for scope in 0..30 {
                let order = [Order::Concurrent, Order::Sequential, Order::Parallel][scope % 3];
                let request = runner.scope(async {
                    for steps in 0..4 {
                        after::defer(gauge.task(steps));
                    }
                    let closure = gauge.clone();
                    after::defer_blocking(move || {
                        let _running = closure.enter();
                        std::thread::yield_now();
                    });
                    after::task("apart").spawned().defer(gauge.task(2));
                    let (outer, nested) = (gauge.clone(), gauge.clone());
                    after::defer(async move {
                        let _running = outer.enter();
                        after::defer(nested.task(1));
                        after::task("apart").spawned().defer(nested.task(1));
                        yields(1).await;
                    });
                    after::handle()
                });
                handles.push(request.order(order).await);
                if scope.is_multiple_of(5) {
                    for handle in &handles {
                        handle.defer(gauge.task(1));
                    }
                }
            }
            runner.drain().await;
            assert!(gauge.most.load(SeqCst) <= max, "{}", gauge.most.load(SeqCst));
            let stats = balanced(&runner);
            assert_eq!((stats.completed, stats.pending), (stats.deferred, 0));
        }
    }

    /// Sentence 21: under backpressure all answers come and all tasks run, however little may wait.
    async fn backpressure_loses_nothing_of_requests_that_can_wait(builder) {
        let runner = builder.max_running(2).max_waiting(3).build();
        let gauge = Gauge::default();
        let requests = (0..60).map(|request| {
            let gauge = gauge.clone();
            runner.scope(async move {
                yields(request % 4).await;
                for steps in 0..request % 6 {
                    after::defer(gauge.task(steps));
                }
                request
            })
        });
        let answers = futures::future::join_all(requests).await;
        assert!(answers.into_iter().eq(0..60));
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.shed), (150, 0));
        assert!(gauge.most.load(SeqCst) <= 2);
    }

    /// Sentences 19 and 21: under shedding the equation holds and what was accepted runs.
    async fn shedding_keeps_the_account(builder) {
        let runner = builder.max_running(2).max_waiting(3).overflow(Overflow::Shed).build();
        let gauge = Gauge::default();
        for _ in 0..20 {
            runner.scope(async {
                for steps in 0..10 {
                    after::defer(gauge.task(steps));
                }
            }).await;
        }
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.pending), (200, 0));
        assert_eq!(stats.completed + stats.shed, 200);
        assert!(stats.completed >= 5, "{stats:?}");
        assert!(gauge.most.load(SeqCst) <= 2);
    }

    /// Sentences 17 and 21: tasks that end in every way give their permits on.
    async fn every_end_gives_the_permit_on(builder) {
        let runner = builder.max_running(1).build();
        let log = Log::new();
        for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
            runner.scope(async {
                after::defer(async { panic!("at once") });
                after::defer(async { Err::<(), _>("an error") });
                let stuck = after::task("stuck").timeout(Duration::from_millis(5));
                stuck.defer(std::future::pending::<()>());
                after::task("discarded").on_failure().defer(async {});
                after::defer_blocking(|| panic!("of a closure"));
                after::defer(noted(&log, "last"));
            }).order(order).await;
        }
        runner.drain().await;
        log.assert(&["last", "last", "last"]);
        let stats = balanced(&runner);
        assert_eq!((stats.panicked, stats.failed, stats.timed_out), (6, 3, 3));
        assert_eq!((stats.discarded, stats.completed, stats.pending), (3, 3, 0));
    }

    /// Sentences 17 and 21: what waits for a permit when its scope's time is over never starts, and hurts no account.
    async fn a_scopes_limit_ends_what_waits_for_a_permit(builder) {
        let runner = builder.max_running(2).scope_timeout(Duration::from_millis(10)).build();
        let log = Log::new();
        for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
            runner.scope(async {
                for _ in 0..5 {
                    let guard = DefersOnDrop { log: log.clone(), entry: "never" };
                    after::defer(async move {
                        std::future::pending::<()>().await;
                        drop(guard);
                    });
                }
            }).order(order).await;
        }
        let report = runner.shutdown(Duration::from_secs(10)).await;
        assert!(report.is_clean(), "{report}");
        assert!(!log.entries().contains(&"outside".into()));
        let stats = balanced(&runner);
        assert_eq!(stats.pending, 0);
        // All permits are back.
        runner.scope(async {
            after::defer(noted(&log, "a"));
            after::defer(noted(&log, "b"));
        }).await;
        let report = runner.shutdown(Duration::from_secs(10)).await;
        assert!(report.is_clean(), "{report}");
        assert_eq!(balanced(&runner).shed, 0);
    }
}

/// Sentence 21: first come, first served: the permit that A gives back is B's, although C comes before B is polled.
#[test]
fn a_newcomer_does_not_barge() {
    for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
        let (runner, batches) = keeping_with(|builder| builder.max_running(1).order(order));
        let log = Log::new();
        let (open, a) = gated(&log, "A");
        now_or_never(runner.scope(async { after::defer(a) }));
        let mut batch_a = batches.take_one();
        now_or_never(runner.scope(async { after::defer(noted(&log, "B")) }));
        let mut batch_b = batches.take_one();
        poll_all(&mut [&mut batch_a, &mut batch_b]);
        log.assert(&["A"]);
        open.send(()).unwrap();
        polls_to_end(&mut batch_a, 1);
        now_or_never(runner.scope(async { after::defer(noted(&log, "C")) }));
        let mut batch_c = batches.take_one();
        poll_all(&mut [&mut batch_c]);
        log.assert(&["A"]);
        polls_to_end(&mut batch_b, 1);
        polls_to_end(&mut batch_c, 1);
        log.assert(&["A", "B", "C"]);
        now_or_never(runner.drain());
    }
}

/// Sentence 21: who gets a permit is woken, also when its last look was long ago.
#[test]
fn a_granted_permit_wakes_its_batch() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1));
    let log = Log::new();
    let (open, a) = gated(&log, "A");
    now_or_never(runner.scope(async { after::defer(a) }));
    let mut batch_a = batches.take_one();
    now_or_never(runner.scope(async { after::defer(noted(&log, "B")) }));
    let mut batch_b = batches.take_one();
    poll_all(&mut [&mut batch_a]);
    let (counter, waker) = common::CountingWaker::new();
    let mut cx = std::task::Context::from_waker(&waker);
    for _ in 0..2 {
        assert!(Pin::new(&mut batch_b).poll(&mut cx).is_pending());
    }
    let before = counter.wakes();
    open.send(()).unwrap();
    polls_to_end(&mut batch_a, 1);
    assert_eq!(counter.wakes(), before + 1);
    polls_to_end(&mut batch_b, 1);
}

/// Sentence 21: permits go over all scopes in the order of the hand-overs; nested tasks stand behind who waits already.
#[test]
fn the_line_is_in_the_order_of_the_hand_overs() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1));
    let log = Log::new();
    let nested = noted(&log, "nested of 1a");
    let first = log.clone();
    now_or_never(runner.scope(async {
        after::defer(async move {
            first.add("1a");
            after::defer(nested);
        });
        after::defer(noted(&log, "1b"));
    }));
    now_or_never(runner.scope(async { after::defer(noted(&log, "2")) }));
    now_or_never(runner.scope(async { after::defer(noted(&log, "3")) }));
    batches.drive(5);
    log.assert(&["1a", "1b", "2", "3", "nested of 1a"]);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 21: `Shed` drops the newest tasks, counted as lost; the others run. In exact numbers.
#[test]
fn shed_drops_the_newest_beyond_max_waiting() {
    let (runner, batches) = keeping_with(|builder| {
        let builder = builder.max_running(2).max_waiting(3);
        builder.overflow(Overflow::Shed)
    });
    let log = Log::new();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    now_or_never(runner.scope(async {
        for name in names {
            after::task(name).defer(noted(&log, name));
        }
    }));
    let mut batch = batches.take_one();
    assert!(batch.names().eq(names[..5].iter().copied()));
    assert_eq!(balanced(&runner).shed, 3);
    // The room is full: all of the next is shed, and nothing is handed to the spawner.
    now_or_never(runner.scope(async { after::defer(noted(&log, "never")) }));
    assert_eq!((batches.len(), balanced(&runner).shed), (0, 4));
    polls_to_end(&mut batch, 10);
    log.assert(&names[..5]);
    // And empty again.
    now_or_never(runner.scope(async {
        for name in names {
            after::task(name).defer(noted(&log, name));
        }
    }));
    batches.drive(5);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (10, 7, 0));
}

/// Sentence 21 with sequential and parallel scopes: the same numbers.
#[test]
fn shed_counts_alike_in_every_order() {
    for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
        let (runner, batches) = keeping_with(|builder| {
            let builder = builder.max_running(2).max_waiting(3).order(order);
            builder.overflow(Overflow::Shed)
        });
        for _ in 0..3 {
            let log = Log::new();
            let names = ["a", "b", "c", "d", "e", "f", "g"];
            now_or_never(runner.scope(async {
                for name in names {
                    after::task(name).defer(noted(&log, name));
                }
            }));
            batches.drive(8);
            log.assert(&names[..5]);
        }
        let stats = balanced(&runner);
        assert_eq!(
            (stats.completed, stats.shed, stats.pending),
            (15, 6, 0),
            "{order:?}"
        );
    }
}

/// Sentences 18b and 21: the destructors of shed tasks may defer; that is accepted or shed in turn, and nothing leaks.
#[test]
fn destructors_of_shed_tasks_may_defer() {
    let (runner, batches) = keeping_with(|builder| {
        let builder = builder.max_running(1).max_waiting(1);
        builder.overflow(Overflow::Shed)
    });
    let log = Log::new();
    now_or_never(runner.scope(async {
        for _ in 0..4 {
            let guard = DefersOnDrop {
                log: log.clone(),
                entry: "destructor",
            };
            after::defer(async move { drop(guard) });
        }
    }));
    batches.drive(8);
    assert!(!log.entries().contains(&"outside".into()));
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.pending), (8, 0));
    assert_eq!(stats.completed + stats.shed, 8);
    assert!(stats.completed >= 2 && stats.shed >= 2, "{stats:?}");
    // All permits are back.
    now_or_never(runner.scope(async { after::defer(async {}) }));
    batches.drive(3);
    assert_eq!(balanced(&runner).completed, stats.completed + 1);
}

/// Fills a Runner: `running` tasks with a permit and `waiting` without, until the sender is dropped.
fn fill(
    runner: &Runner,
    batches: &common::Batches,
    tasks: usize,
) -> (Vec<futures::channel::oneshot::Sender<()>>, Batch) {
    let mut gates = Vec::new();
    let mut request = Box::pin(runner.scope(async {
        for _ in 0..tasks {
            let (open, gate) = futures::channel::oneshot::channel::<()>();
            gates.push(open);
            after::defer(async move {
                let _ = gate.await;
            });
        }
    }));
    assert!(poll_once(request.as_mut()).is_ready());
    drop(request);
    let mut batch = batches.take_one();
    poll_all(&mut [&mut batch]);
    (gates, batch)
}

/// Sentence 21; P4: a scope that has collected something waits for room, its answer intact; others never wait.
#[test]
fn backpressure_holds_the_answer_until_there_is_room() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(2));
    let (gates, mut full) = fill(&runner, &batches, 3);
    let mut request = Box::pin(runner.scope(async {
        after::defer(async {});
        String::from("answer")
    }));
    let (counter, waker) = common::CountingWaker::new();
    let mut cx = std::task::Context::from_waker(&waker);
    for _ in 0..3 {
        assert!(request.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!((batches.len(), counter.wakes()), (0, 0));
    // Nothing collected, or nothing to run: no wait.
    now_or_never(runner.scope(async {}));
    now_or_never(runner.scope(async { drop(after::handle()) }));
    now_or_never(runner.scope(async { after::task("a").on_failure().defer(async {}) }));
    drop(gates);
    polls_to_end(&mut full, 5);
    assert_eq!(counter.wakes(), 1);
    assert_eq!(
        request.as_mut().poll(&mut cx),
        Poll::Ready("answer".to_string())
    );
    polls_to_end(&mut batches.take_one(), 3);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (4, 0, 0));
}

/// A request that defers so many tasks and ends.
fn request(runner: &Runner, tasks: usize) -> Pin<Box<impl Future<Output = ()> + use<>>> {
    Box::pin(runner.scope(async move {
        for _ in 0..tasks {
            after::defer(async {});
        }
    }))
}

/// Sentence 21: waiting scopes are let in in their order, a small one not before a big one that came first.
#[test]
fn waiting_scopes_keep_their_order() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(4));
    let (mut gates, mut full) = fill(&runner, &batches, 5);
    let request = |tasks| request(&runner, tasks);
    let (mut big, mut small) = (request(3), request(1));
    assert!(poll_once(big.as_mut()).is_pending());
    assert!(poll_once(small.as_mut()).is_pending());
    for _ in 0..2 {
        gates.remove(0);
        poll_all(&mut [&mut full]);
        // There is room for the small one, and the big one is the first.
        assert!(poll_once(small.as_mut()).is_pending());
        assert!(poll_once(big.as_mut()).is_pending());
    }
    gates.remove(0);
    poll_all(&mut [&mut full]);
    assert!(poll_once(small.as_mut()).is_pending());
    assert!(poll_once(big.as_mut()).is_ready());
    drop(gates);
    polls_to_end(&mut full, 5);
    batches.drive(4);
    assert!(poll_once(small.as_mut()).is_ready());
    batches.drive(4);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (9, 0, 0));
}

/// Sentence 21: a scope bigger than all limits waits until nothing else waits, and is let in whole.
#[test]
fn a_scope_bigger_than_the_limits_goes_in_when_nobody_waits() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(2).max_waiting(3));
    let (gates, mut full) = fill(&runner, &batches, 3);
    let mut request = Box::pin(runner.scope(async {
        for _ in 0..7 {
            after::defer(async {});
        }
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    drop(gates);
    polls_to_end(&mut full, 5);
    assert!(poll_once(request.as_mut()).is_ready());
    batches.drive(5);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (10, 0, 0));
    let (gates, mut full) = fill(&runner, &batches, 100);
    drop(gates);
    assert_eq!(full.len(), 100, "they are in memory already");
    polls_to_end(&mut full, 200);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (110, 0, 0));
}

/// Sentence 21: what can't wait is accepted up to twice `max_waiting`, and shed beyond: scopes that are dropped.
#[test]
fn dropped_scopes_are_accepted_up_to_twice_max_waiting() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(2));
    let (gates, mut full) = fill(&runner, &batches, 3);
    for lost in [0, 0, 1, 2] {
        let mut request = Box::pin(runner.scope(async {
            after::defer(async {});
            std::future::pending::<()>().await;
        }));
        assert!(poll_once(request.as_mut()).is_pending());
        drop(request);
        assert_eq!(balanced(&runner).shed, lost);
    }
    // And those that are dropped while they wait for room, a destructor's work with them.
    let log = Log::new();
    let mut request = Box::pin(runner.scope(async {
        let guard = DefersOnDrop {
            log: log.clone(),
            entry: "never",
        };
        after::defer(async move { drop(guard) });
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    drop(request);
    batches.drive(4);
    assert_eq!(balanced(&runner).shed, 4, "the task and its destructor's");
    drop(gates);
    polls_to_end(&mut full, 5);
    batches.drive(5);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (5, 4, 0));
}

/// Sentence 21: nor can nested work, late work of handles, and released held batches.
#[test]
fn nested_late_and_held_work_never_waits_and_is_bounded() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(2));
    let mut handle = None;
    now_or_never(runner.scope(async {
        handle = Some(after::handle());
        after::defer(async {});
    }));
    batches.drive(3);
    let handle = handle.unwrap();

    let (open, gate) = futures::channel::oneshot::channel::<()>();
    let (nest, nested) = mpsc::channel::<usize>();
    now_or_never(runner.scope(async {
        after::defer(async move {
            for _ in nested {
                after::defer(async {});
            }
            gate.await.unwrap();
        });
    }));
    for _ in 0..6 {
        nest.send(0).unwrap();
    }
    drop(nest);
    let mut full = batches.take_one();
    poll_all(&mut [&mut full]);
    assert_eq!(balanced(&runner).shed, 2, "four of the six nested may wait");
    handle.defer(async {});
    assert_eq!(balanced(&runner).shed, 3);
    let request = runner.scope(async { after::defer(async {}) });
    let ((), held) = now_or_never(request.held());
    assert_eq!(balanced(&runner).shed, 3, "not before its release");
    held.release();
    assert_eq!(balanced(&runner).shed, 4);
    open.send(()).unwrap();
    polls_to_end(&mut full, 10);
    batches.drive(3);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (6, 4, 0));
}

/// Section 5: held, unreleased batches don't count as waiting; awaited ones stand in the line like others.
#[test]
fn held_batches_do_not_count_as_waiting() {
    let (runner, batches) = keeping_with(|builder| {
        let builder = builder.max_running(1).max_waiting(1);
        builder.overflow(Overflow::Shed)
    });
    let log = Log::new();
    let hold = || {
        let log = log.clone();
        let request = runner.scope(async move {
            after::defer(noted(&log, "held"));
            after::defer(noted(&log, "held"));
        });
        now_or_never(request.held()).1
    };
    let held: Vec<_> = (0..10).map(|_| hold()).collect();
    now_or_never(runner.scope(async {
        after::defer(noted(&log, "a"));
        after::defer(noted(&log, "b"));
    }));
    batches.drive(3);
    log.assert(&["a", "b"]);
    for mut batch in held {
        assert_eq!(batch.len(), 2);
        polls_to_end(&mut batch, 5);
    }
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.shed, stats.pending), (22, 0, 0));
}

/// Section 5: a scope polled inside a deferred task never waits for room: it would wait for its own parent.
#[test]
fn a_scope_inside_a_task_never_waits() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(1));
    let inner = runner.clone();
    let log = Log::new();
    let (inside, after_it) = (noted(&log, "inner task"), log.clone());
    now_or_never(runner.scope(async {
        after::defer(async move {
            after::defer(async {});
            let answer = inner.scope(async {
                after::defer(inside);
                after::defer(async {});
                7
            });
            assert_eq!(now_or_never(answer), 7);
            after_it.add("parent");
        });
        after::defer(async {});
    }));
    batches.drive(5);
    log.assert(&["parent", "inner task"]);
    let stats = balanced(&runner);
    assert_eq!((stats.panicked, stats.pending), (0, 0));
}

/// Section 5: however deep inside the task it is.
#[test]
fn a_scope_inside_a_scope_inside_a_task_never_waits() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(1));
    let (middle, inner) = (runner.clone(), runner.clone());
    now_or_never(runner.scope(async {
        after::defer(async move {
            let inner = inner.scope(async {
                after::defer(async {});
                7
            });
            assert_eq!(now_or_never(middle.scope(inner)), 7);
        });
        // Waits, so that there is no room.
        after::defer(async {});
    }));
    batches.drive(5);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.pending), (3, 0));
}

/// Sentence 21: a scope that gives up its wait gives its place to the next.
#[test]
fn a_waiting_scope_that_is_dropped_gives_its_place_to_the_next() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(4));
    let (mut gates, mut full) = fill(&runner, &batches, 5);
    let request = |tasks| request(&runner, tasks);
    let (mut big, mut next) = (request(4), request(1));
    assert!(poll_once(big.as_mut()).is_pending());
    let (counter, waker) = common::CountingWaker::new();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(next.as_mut().poll(&mut cx).is_pending());
    gates.remove(0);
    poll_all(&mut [&mut full]);
    assert!(poll_once(big.as_mut()).is_pending());
    drop(gates);
    polls_to_end(&mut full, 5);
    assert!(poll_once(big.as_mut()).is_ready());
    assert!(next.as_mut().poll(&mut cx).is_ready() || counter.wakes() > 0);
    batches.drive(5);

    // Dropped when room was promised to it, and not taken.
    let (gates, mut full) = fill(&runner, &batches, 5);
    let (mut first, mut second) = (request(4), request(4));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(second.as_mut().poll(&mut cx).is_pending());
    drop(gates);
    polls_to_end(&mut full, 5);
    assert!(
        second.as_mut().poll(&mut cx).is_pending(),
        "the room is the first's"
    );
    let before = counter.wakes();
    drop(first);
    batches.drive(5);
    assert!(counter.wakes() > before, "who waits is woken");
    assert!(second.as_mut().poll(&mut cx).is_ready());
    batches.drive(5);
    assert_eq!(balanced(&runner).pending, 0);
    assert_eq!(balanced(&runner).shed, 0);
}

/// Sentences 9 and 21: a batch dropped with permits and with waiting tasks gives both back.
#[test]
fn a_dropped_batch_gives_permits_and_places_back() {
    for polls in 0..4 {
        let (runner, batches) = keeping_with(|builder| builder.max_running(2).max_waiting(4));
        let log = Log::new();
        now_or_never(runner.scope(async {
            for _ in 0..4 {
                let guard = DefersOnDrop {
                    log: log.clone(),
                    entry: "never",
                };
                after::defer(async move {
                    std::future::pending::<()>().await;
                    drop(guard);
                });
            }
        }));
        let mut dropped = batches.take_one();
        now_or_never(runner.scope(async {
            after::defer(noted(&log, "a"));
            after::defer(noted(&log, "b"));
        }));
        let mut waits = batches.take_one();
        for _ in 0..polls {
            assert!(poll_once(Pin::new(&mut dropped)).is_pending());
            assert!(poll_once(Pin::new(&mut waits)).is_pending());
        }
        drop(dropped);
        polls_to_end(&mut waits, 4);
        log.assert(&["a", "b"]);
        let (gates, full) = fill(&runner, &batches, 6);
        assert_eq!(full.len(), 6, "all room is there again");
        drop(gates);
        drop(full);
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.lost, stats.pending), (2, 14, 0));
    }
}

/// Sentences 17 and 21: at a scope's limit what destructors defer has no permit to give back.
#[cfg(feature = "threads")]
#[test]
fn work_deferred_at_the_scopes_limit_has_no_permit() {
    for order in [Order::Concurrent, Order::Sequential] {
        let runner = Runner::builder()
            .spawner(after::spawner::Threads::default())
            .order(order)
            .max_running(1)
            .scope_timeout(Duration::from_millis(5))
            .build();
        let log = Log::new();
        now_or_never(runner.scope(async {
            let guard = DefersOnDrop {
                log: log.clone(),
                entry: "never",
            };
            after::defer(async move {
                std::future::pending::<()>().await;
                drop(guard);
            });
        }));
        // By a limit of its own: if the batch is broken, this must not hang.
        let report = futures::executor::block_on(runner.shutdown(Duration::from_secs(10)));
        assert!(report.is_clean(), "{report}");
        let stats = balanced(&runner);
        assert_eq!((stats.timed_out, stats.shed, stats.pending), (2, 0, 0));
        log.assert(&[]);
    }
}

/// Sentence 21: blocking work counts, until it returns; a timeout does not free its permit before.
#[test]
fn blocking_work_holds_its_permit_until_it_returns() {
    /// Its sleeps are over at their second poll.
    struct Soon(Batches);
    impl Spawner for Soon {
        fn spawn(&self, batch: Batch) {
            self.0.push(batch);
        }
        fn sleep(&self, _: Duration) -> Sleep {
            Sleep::new(yields(1))
        }
    }
    let batches = Batches::default();
    let spawner = Soon(batches.clone());
    let runner = Runner::builder().spawner(spawner).max_running(1).build();
    let log = Log::new();
    let (open, gate) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel::<()>();
    now_or_never(runner.scope(async {
        let closure = after::task("closure").timeout(Duration::from_secs(1));
        closure.defer_blocking(move || {
            begin.send(()).unwrap();
            gate.recv().unwrap();
        });
        after::defer(noted(&log, "next"));
    }));
    now_or_never(runner.scope(async { after::defer(noted(&log, "other")) }));
    let [mut first, mut second] = <[Batch; 2]>::try_from(batches.take_all()).unwrap();
    // The closure is given to its pool by the second poll; the third would find it past its limit.
    for _ in 0..2 {
        assert!(poll_once(Pin::new(&mut first)).is_pending());
    }
    begun.recv().unwrap();
    for _ in 0..5 {
        assert!(poll_once(Pin::new(&mut first)).is_pending());
        assert!(poll_once(Pin::new(&mut second)).is_pending());
    }
    log.assert(&[]);
    open.send(()).unwrap();
    futures::executor::block_on(futures::future::join(first, second));
    log.assert(&["next", "other"]);
    let stats = balanced(&runner);
    assert_eq!((stats.timed_out, stats.completed), (1, 2));
}

/// Sentence 21: nested tasks never deadlock a Runner with one permit.
#[test]
fn nested_tasks_run_with_a_single_permit() {
    fn nest(depth: usize, log: Log) {
        after::defer(async move {
            if depth > 0 {
                nest(depth - 1, log.clone());
            }
            log.add(depth.to_string());
        });
    }
    for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
        let (runner, batches) = keeping_with(|builder| builder.max_running(1).order(order));
        let log = Log::new();
        now_or_never(runner.scope(async { nest(5, log.clone()) }));
        batches.drive(40);
        log.assert(&["5", "4", "3", "2", "1", "0"]);
        assert_eq!(balanced(&runner).pending, 0);
    }
}

/// Sentence 21: many tasks of one batch behind few permits start in order, with wakers of their own or without.
#[test]
fn many_tasks_behind_few_permits_start_in_order() {
    let (runner, batches) = keeping_with(|builder| builder.max_running(40));
    let started = Arc::new(std::sync::Mutex::new(Vec::new()));
    now_or_never(runner.scope(async {
        for task in 0..200 {
            let started = started.clone();
            after::defer(async move {
                started.lock().unwrap().push(task);
                yields(task % 9).await;
            });
        }
    }));
    polls_to_end(&mut batches.take_one(), 2_000);
    assert!(started.lock().unwrap().iter().copied().eq(0..200));
    assert_eq!(balanced(&runner).completed, 200);
}

/// Sentence 21: losses by overflow are reported with a count, and not one a task.
#[test]
fn overflow_is_reported_with_a_count() {
    const TEST: &str = "limits::overflow_is_reported_with_a_count";
    if is_child(TEST) {
        let (runner, batches) = keeping_with(|builder| {
            let builder = builder.max_running(1).max_waiting(1);
            builder.overflow(Overflow::Shed)
        });
        for _ in 0..100 {
            now_or_never(runner.scope(async {
                for _ in 0..10 {
                    after::task("shed").defer(async {});
                }
            }));
        }
        batches.drive(3);
        let report = futures::executor::block_on(runner.shutdown(Duration::from_secs(60)));
        assert!(report.is_clean());
        assert_eq!(balanced(&runner).shed, 998);
        return;
    }
    let text = standard_error_of(TEST);
    let lines = text.lines().filter(|line| line.starts_with("after: "));
    let lines: Vec<_> = lines.collect();
    let counts = lines.iter().map(|line| {
        let count = line.split(' ').nth(1).unwrap();
        count.parse::<u64>().unwrap_or_else(|_| panic!("{text}"))
    });
    assert_eq!(counts.sum::<u64>(), 998, "{text}");
    assert!(lines.len() <= 3, "{text}");
}

/// Section 3, 21: no limit is the default: nothing waits, and `stats` says so.
#[test]
fn without_a_limit_nothing_waits() {
    let (runner, batches) = keeping_with(|builder| builder);
    let gauge = Gauge::default();
    now_or_never(runner.scope(async {
        for _ in 0..100 {
            after::defer(gauge.task(10));
        }
    }));
    polls_to_end(&mut batches.take_one(), 2_000);
    assert_eq!(gauge.most.load(SeqCst), 100);
    assert_eq!(balanced(&runner).completed, 100);
}

/// Sentence 21: scopes that are dropped one after the other, which can't wait, don't keep an answer waiting for ever: not
/// one with few tasks, not one with more than ever have room, and not those behind it.
#[test]
fn scopes_that_are_dropped_do_not_hold_an_answer() {
    fn drop_one(runner: &Runner) {
        let mut request = Box::pin(runner.scope(async {
            after::defer(async {});
            std::future::pending::<()>().await;
        }));
        assert!(poll_once(request.as_mut()).is_pending());
    }

    for tasks in [1, 30] {
        let (runner, batches) = keeping_with(|builder| builder.max_running(1).max_waiting(2));
        for _ in 0..5 {
            drop_one(&runner);
        }
        let [mut first, mut second] = [tasks, 1].map(|tasks| {
            Box::pin(runner.scope(async move { (0..tasks).for_each(|_| after::defer(async {})) }))
        });
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        let mut answered = [false, false];
        // Whoever comes is behind all that is there now: five tasks.
        for _ in 0..50 {
            let mut all = batches.take_all();
            polls_to_end(&mut all.remove(0), 100);
            all.into_iter().for_each(|batch| batches.push(batch));
            drop_one(&runner);
            for (answered, scope) in answered.iter_mut().zip([&mut first, &mut second]) {
                *answered = *answered || poll_once(scope.as_mut()).is_ready();
            }
        }
        assert_eq!(answered, [true, true], "with {tasks} tasks");
        batches.drive(5);
    }
}
