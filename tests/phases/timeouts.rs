//! Time limits: sentence 17, and rows N18 and P3 of the conformance list.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    time::Duration,
};

use after::{Batch, Order, Outcome, Runner, Spawner, spawner::Sleep};

use crate::common::{
    Batches, ByHand, Log, balanced, is_child, now_or_never, poll_once, polls_to_end,
    standard_error_of, yields,
};

const SHORT: Duration = Duration::from_millis(10);
const NEVER: Duration = Duration::MAX;

/// What a task can read when it is dropped, and a task that it defers then.
struct Reads {
    log: Log,
}

impl Drop for Reads {
    fn drop(&mut self) {
        let (outcome, value) = (after::outcome(), after::context::get::<u8>());
        self.log.add(format!("dropped {outcome:?} {value:?}"));
        let log = self.log.clone();
        if after::try_defer(async move { log.add("its destructor's task") }).is_err() {
            self.log.add("outside");
        }
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

every_builder! {
    /// Sentence 17; N18, P3: a task past its own limit is dropped and counted; its siblings complete.
    async fn a_task_past_its_limit_is_dropped_and_its_siblings_go_on(builder) {
        let runner = builder.build();
        let log = Log::new();
        runner.scope(async {
            after::context::set(7_u8);
            let reads = Reads { log: log.clone() };
            after::task("stuck").timeout(SHORT).defer(async move {
                std::future::pending::<()>().await;
                drop(reads);
            });
            after::task("in time").timeout(NEVER).defer(yields(3));
            after::defer(yields(3));
        }).await;
        runner.drain().await;
        log.assert(&["dropped Some(Finished) Some(7)", "its destructor's task"]);
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.completed, stats.timed_out), (4, 3, 1));
        assert_eq!(stats.pending, 0);
    }

    /// Sentence 17: the Runner's limit is that of every task without its own; its own goes first.
    async fn the_runners_limit_is_for_tasks_without_their_own(builder) {
        let runner = builder.task_timeout(SHORT).build();
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        let timed_out = runner.clone();
        runner.scope(async {
            // Ends when the others have timed out: its own limit is longer.
            after::task("own").timeout(NEVER).defer(async move { gate.await.unwrap() });
            for _ in 0..3 {
                after::defer(std::future::pending::<()>());
            }
            after::handle().defer(std::future::pending::<()>());
        }).await;
        let request = timed_out.scope(async { after::defer(async {
            after::defer(std::future::pending::<()>());
        }) });
        request.order(Order::Parallel).await;
        while balanced(&runner).timed_out < 5 {
            futures_yield().await;
        }
        open.send(()).unwrap();
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.timed_out), (2, 5));
    }

    /// Sentence 17: past the scope's limit everything is dropped, what its destructors and tasks defer included.
    async fn everything_is_dropped_at_the_scopes_limit(builder) {
        let runner = builder.scope_timeout(SHORT).build();
        let log = Log::new();
        for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
            runner.scope(async {
                for _ in 0..3 {
                    let log = log.clone();
                    after::defer(async move {
                        let _reads = Reads { log };
                        after::defer(std::future::pending::<()>());
                        std::future::pending::<()>().await;
                    });
                }
                after::task("apart").spawned().defer(std::future::pending::<()>());
            }).order(order).await;
        }
        runner.drain().await;
        assert!(!log.entries().contains(&"outside".to_string()));
        let stats = balanced(&runner);
        assert_eq!(stats.completed, 0);
        assert_eq!(stats.timed_out, stats.deferred);
    }

    /// Sentence 17: blocking work that has begun can't be stopped: pending until it returns, then counted as timed out.
    async fn blocking_work_that_has_begun_is_pending_until_it_returns(builder) {
        let runner = builder.build();
        let runs = Arc::new(AtomicUsize::new(0));
        let timed_out = runner.clone();
        let mut late = 0;
        let open = loop {
            let (open, gate) = mpsc::channel::<()>();
            let (begin, begun) = futures::channel::oneshot::channel::<()>();
            runner.scope(async {
                let runs = runs.clone();
                after::task("closure").timeout(SHORT).defer_blocking(move || {
                    runs.fetch_add(1, SeqCst);
                    begin.send(()).unwrap();
                    gate.recv().unwrap();
                });
            }).await;
            if begun.await.is_ok() {
                break open;
            }
            // On a busy machine its limit may be over before it begins: then it never does.
            late += 1;
        };
        // A task that starts later with the same limit has timed out: so has the closure, or it will soon.
        timed_out.scope(async {
            after::task("other").timeout(SHORT).defer(std::future::pending::<()>());
        }).await;
        while balanced(&runner).timed_out == late {
            futures_yield().await;
        }
        assert_eq!(balanced(&runner).pending, 1);
        open.send(()).unwrap();
        runner.drain().await;
        assert_eq!(runs.load(SeqCst), 1);
        let stats = balanced(&runner);
        assert_eq!(stats.timed_out + stats.completed, late + 2);
        assert_eq!(stats.pending, 0);
    }

    /// Sentence 17: limits that no clock reaches are none, and a limit of zero leaves a task its first poll.
    async fn extreme_limits_are_fine(builder) {
        let runner = builder.task_timeout(NEVER).scope_timeout(NEVER).build();
        let log = Log::new();
        runner.scope(async {
            after::defer(yields(3));
            after::task("zero, in time").timeout(Duration::ZERO).defer({
                let log = log.clone();
                async move { log.add("ran") }
            });
            after::task("zero, too late").timeout(Duration::ZERO).defer(async {
                std::future::pending::<()>().await;
            });
        }).await;
        runner.drain().await;
        log.assert(&["ran"]);
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.timed_out), (2, 1));
    }

    /// Sentence 17 with each task's own waker: of many tasks exactly those past their limits are dropped.
    async fn of_many_tasks_those_past_their_limit_are_dropped(builder) {
        let runner = builder.build();
        runner.scope(async {
            for task in 0..100 {
                let builder = after::task("one of many");
                match task % 4 {
                    0 => builder.timeout(SHORT).defer(std::future::pending::<()>()),
                    1 => builder.timeout(NEVER).defer(yields(20)),
                    2 => builder.defer(yields(10)),
                    _ => builder.timeout(SHORT * 2).defer(std::future::pending::<()>()),
                }
            }
        }).await;
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.timed_out, stats.pending), (50, 50, 0));
    }

    /// Sentence 17: a sequential scope goes on behind a task that has timed out.
    async fn a_sequential_scope_goes_on_behind_a_stuck_task(builder) {
        let runner = builder.build();
        let log = Log::new();
        let request = runner.scope(async {
            after::task("stuck").timeout(SHORT).defer(std::future::pending::<()>());
            let log = log.clone();
            after::task("next").timeout(NEVER).defer(async move { log.add("next") });
        });
        request.order(Order::Sequential).await;
        runner.drain().await;
        log.assert(&["next"]);
        assert_eq!(balanced(&runner).timed_out, 1);
    }
}

/// Lets others run.
async fn futures_yield() {
    yields(1).await;
    std::thread::yield_now();
}

/// Sentence 17: no sleep is made for a task that ends in its first poll, and one for each that does not.
#[test]
fn a_sleep_is_made_only_for_what_is_still_pending() {
    let spawner = ByHand::default();
    let runner = Runner::builder()
        .spawner(spawner.clone())
        .task_timeout(seconds(9))
        .build();
    now_or_never(runner.scope(async {
        for _ in 0..10 {
            after::defer(async {});
        }
        after::defer(async { panic!("at once") });
    }));
    polls_to_end(&mut spawner.batches.take_one(), 2);
    assert!(spawner.made().is_empty());

    now_or_never(runner.scope(async {
        for _ in 0..10 {
            after::defer(yields(2));
        }
        after::task("own").timeout(seconds(5)).defer(yields(4));
    }));
    let mut batch = spawner.batches.take_one();
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(spawner.made(), [], "before any task has started");
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(spawner.made()[..10], [seconds(9); 10]);
    assert_eq!(spawner.made()[10..], [seconds(5)]);
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(spawner.dropped(), 0);
    // The ten have ended, and the eleventh has not: the sleeps of the ten are given back.
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(spawner.dropped(), 10);
    polls_to_end(&mut batch, 3);
    drop(batch);
    assert_eq!((spawner.made().len(), spawner.dropped()), (11, 11));
    assert_eq!(balanced(&runner).completed, 21);
}

/// Sentence 17: a limit of zero leaves a task its first poll, and needs no timer.
#[test]
fn a_limit_of_zero_ends_a_task_after_its_first_poll() {
    let spawner = ByHand::default();
    let runner = Runner::new(spawner.clone());
    let polls = Arc::new(AtomicUsize::new(0));
    now_or_never(runner.scope(async {
        for pends in [0, 1, 2] {
            let polls = polls.clone();
            let mut left = pends;
            let task = after::task("zero").timeout(Duration::ZERO);
            task.defer(std::future::poll_fn(move |cx| {
                polls.fetch_add(1, SeqCst);
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }));
        }
    }));
    polls_to_end(&mut spawner.batches.take_one(), 2);
    assert_eq!(polls.load(SeqCst), 3);
    assert!(spawner.made().is_empty());
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.timed_out), (1, 2));
}

/// Sentence 17: a task that can end at the moment of its limit does: it is polled before its sleep.
#[test]
fn a_task_that_is_ready_at_its_limit_has_ended_in_time() {
    for tasks in [1, 2, 40] {
        let spawner = ByHand::default();
        let runner = Runner::new(spawner.clone());
        let gates: Vec<_> = (0..tasks)
            .map(|_| futures::channel::oneshot::channel::<()>())
            .collect();
        let (gates, waits): (Vec<_>, Vec<_>) = gates.into_iter().unzip();
        now_or_never(runner.scope(async {
            for wait in waits {
                let task = after::task("in time").timeout(seconds(1));
                task.defer(async move { wait.await.unwrap() });
            }
        }));
        let mut batch = spawner.batches.take_one();
        for _ in 0..6 {
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
        }
        spawner.fire(seconds(1));
        gates.into_iter().for_each(|gate| gate.send(()).unwrap());
        polls_to_end(&mut batch, 3);
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.timed_out), (tasks, 0));
    }
}

/// Sentence 17: a task's time begins with its first poll: for a nested one when it starts, not when its parent does.
#[test]
fn the_time_of_a_nested_task_begins_when_it_starts() {
    let spawner = ByHand::default();
    let runner = Runner::new(spawner.clone());
    let (open, gate) = futures::channel::oneshot::channel::<()>();
    now_or_never(runner.scope(async {
        let outer = after::task("outer").timeout(seconds(1));
        outer.defer(async {
            gate.await.unwrap();
            let nested = after::task("nested").timeout(seconds(2));
            nested.defer(std::future::pending::<()>());
            std::future::pending::<()>().await;
        });
    }));
    let mut batch = spawner.batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(spawner.made(), [seconds(1)]);
    open.send(()).unwrap();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(spawner.made(), [seconds(1), seconds(2)]);
    spawner.fire(seconds(1));
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(balanced(&runner).timed_out, 1);
    spawner.fire(seconds(2));
    polls_to_end(&mut batch, 2);
    assert_eq!(balanced(&runner).timed_out, 2);
}

/// Sentences 14 and 17: a spawned task and what it defers have each a time of their own.
#[test]
fn a_spawned_task_and_its_nested_one_have_each_their_own_time() {
    let spawner = ByHand::default();
    let runner = Runner::builder()
        .spawner(spawner.clone())
        .task_timeout(seconds(9))
        .build();
    now_or_never(runner.scope(async {
        after::task("outer").spawned().defer(async {
            after::task("nested").defer(yields(3));
            std::future::pending::<()>().await;
        });
    }));
    let mut batch = spawner.batches.take_one();
    for _ in 0..8 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(balanced(&runner).completed, 1, "the nested one");
    spawner.fire(seconds(9));
    assert!(poll_once(Pin::new(&mut batch)).is_ready());
    assert_eq!(balanced(&runner).timed_out, 1, "the outer one");
}

/// Sentence 17: blocking work that has not begun is dropped at its limit, and never runs.
#[test]
fn blocking_work_that_has_not_begun_never_runs() {
    let spawner = ByHand::default();
    let runner = Runner::new(spawner.clone());
    let runs = Arc::new(AtomicUsize::new(0));
    now_or_never(runner.scope(async {
        let runs = runs.clone();
        let task = after::task("closure").timeout(seconds(1));
        task.defer_blocking(move || {
            runs.fetch_add(1, SeqCst);
        });
        after::defer(async {});
    }));
    let mut batch = spawner.batches.take_one();
    for _ in 0..4 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(spawner.blocking.lock().unwrap().len(), 1);
    spawner.fire(seconds(1));
    polls_to_end(&mut batch, 2);
    let stats = balanced(&runner);
    assert_eq!((stats.timed_out, stats.completed, stats.pending), (1, 1, 0));
    let work = spawner.blocking.lock().unwrap().pop().unwrap();
    work.run();
    assert_eq!(runs.load(SeqCst), 0);
    assert_eq!(balanced(&runner), stats);
}

/// Sentence 17: blocking work past its limit keeps its place, is polled no more often for it, and is counted once.
#[test]
fn overdue_blocking_work_is_counted_once_when_it_returns() {
    for (own, of_scope) in [(true, false), (false, true), (true, true)] {
        let spawner = ByHand::default();
        let mut builder = Runner::builder().spawner(spawner.clone());
        if of_scope {
            builder = builder.scope_timeout(seconds(1_000_000));
        }
        let runner = builder.build();
        let (open, gate) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel::<()>();
        now_or_never(runner.scope(async {
            let task = after::task("closure");
            let task = if own { task.timeout(seconds(1)) } else { task };
            task.defer_blocking(move || {
                begin.send(()).unwrap();
                gate.recv().unwrap();
                Err::<(), _>("an error that comes too late")
            });
        }));
        let mut batch = spawner.batches.take_one();
        for _ in 0..3 {
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
        }
        let work = spawner.blocking.lock().unwrap().pop().unwrap();
        let thread = std::thread::spawn(|| work.run());
        begun.recv().unwrap();
        for limit in spawner.made() {
            spawner.fire(limit);
            for _ in 0..3 {
                assert!(poll_once(Pin::new(&mut batch)).is_pending());
            }
        }
        let stats = balanced(&runner);
        assert_eq!((stats.timed_out, stats.pending), (0, 1));
        assert_eq!(batch.len(), 1);
        open.send(()).unwrap();
        thread.join().unwrap();
        polls_to_end(&mut batch, 2);
        let stats = balanced(&runner);
        assert_eq!((stats.timed_out, stats.failed, stats.pending), (1, 0, 0));
    }
}

/// Sentences 17 and 26: each timeout is reported once, blocking work's at its limit, with and without an observer.
#[test]
fn each_timeout_is_reported_once() {
    const TEST: &str = "timeouts::each_timeout_is_reported_once";
    struct Watches;
    impl after::Observer for Watches {}
    if is_child(TEST) {
        for watched in [false, true] {
            let spawner = ByHand::default();
            let mut builder = Runner::builder().spawner(spawner.clone());
            if watched {
                builder = builder.observer(Watches);
            }
            let runner = builder.build();
            let (open, gate) = mpsc::channel::<()>();
            let (begin, begun) = mpsc::channel::<()>();
            now_or_never(runner.scope(async {
                let begins = if watched { "watched, begins" } else { "begins" };
                let task = after::task(begins).timeout(seconds(1));
                task.defer_blocking(move || {
                    begin.send(()).unwrap();
                    gate.recv().unwrap();
                });
                let waits = if watched { "watched, waits" } else { "waits" };
                let task = after::task(waits).timeout(seconds(1));
                task.defer_blocking(|| ());
                let plain = if watched { "watched, plain" } else { "plain" };
                let task = after::task(plain).timeout(seconds(1));
                task.defer(std::future::pending::<()>());
            }));
            let mut batch = spawner.batches.take_one();
            for _ in 0..3 {
                assert!(poll_once(Pin::new(&mut batch)).is_pending());
            }
            let work = spawner.blocking.lock().unwrap().remove(0);
            let thread = std::thread::spawn(|| work.run());
            begun.recv().unwrap();
            spawner.fire(seconds(1));
            for _ in 0..3 {
                assert!(poll_once(Pin::new(&mut batch)).is_pending());
            }
            eprintln!("after: (the closure returns)");
            open.send(()).unwrap();
            thread.join().unwrap();
            polls_to_end(&mut batch, 2);
            assert_eq!(balanced(&runner).timed_out, 3);
        }
        return;
    }
    let text = standard_error_of(TEST);
    for prefix in ["", "watched, "] {
        for name in ["begins", "waits", "plain"] {
            let name = format!("task `{prefix}{name}`");
            let lines = text.lines().filter(|line| line.contains(&name));
            let lines: Vec<_> = lines.collect();
            assert_eq!(lines.len(), 1, "{name}: {text}");
            assert!(lines[0].contains("timed out after 1s"), "{text}");
        }
    }
    let last = text.lines().rfind(|line| line.starts_with("after: "));
    assert_eq!(last, Some("after: (the closure returns)"), "{text}");
}

/// Section 5: a spawner whose `sleep` panics: said once, and the timer that needs no runtime is used.
#[test]
fn a_spawner_whose_sleep_panics_gets_another_timer() {
    const TEST: &str = "timeouts::a_spawner_whose_sleep_panics_gets_another_timer";
    struct NoTimer(bool);
    impl Spawner for NoTimer {
        fn spawn(&self, batch: Batch) {
            std::thread::spawn(|| futures::executor::block_on(batch));
        }
        fn sleep(&self, _: Duration) -> Sleep {
            if self.0 {
                panic!("no timer here");
            }
            Sleep::new(async { panic!("no timer there") })
        }
    }
    if is_child(TEST) {
        std::panic::set_hook(Box::new(|_| ()));
        for at_once in [true, false] {
            let runner = Runner::builder()
                .spawner(NoTimer(at_once))
                .scope_timeout(seconds(60))
                .build();
            for _ in 0..3 {
                now_or_never(runner.scope(async {
                    for _ in 0..2 {
                        let stuck = after::task("stuck").timeout(SHORT);
                        stuck.defer(std::future::pending::<()>());
                    }
                    let other = after::task("stuck").timeout(SHORT * 2);
                    other.defer(std::future::pending::<()>());
                }));
            }
            futures::executor::block_on(runner.drain());
            assert_eq!(balanced(&runner).timed_out, 9);
        }
        return;
    }
    let text = standard_error_of(TEST);
    let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
    assert_eq!(count("no timer here"), 1, "{text}");
    assert_eq!(count("no timer there"), 1, "{text}");
    assert_eq!(count("timed out"), 18, "{text}");
}

/// A sleep is the user's code: its destructor may panic or defer, and nothing is lost by it.
#[test]
fn a_sleep_may_panic_or_defer_when_it_is_dropped() {
    struct Odd {
        panics: bool,
        log: Log,
    }
    impl Future for Odd {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
    impl Drop for Odd {
        fn drop(&mut self) {
            if self.panics {
                panic!("a sleep's");
            }
            let log = self.log.clone();
            if after::try_defer(async move { log.add("of the sleep") }).is_err() {
                self.log.add("outside");
            }
        }
    }
    struct OddTimer {
        batches: Batches,
        panics: bool,
        log: Log,
    }
    impl Spawner for OddTimer {
        fn spawn(&self, batch: Batch) {
            self.batches.push(batch);
        }
        fn sleep(&self, _: Duration) -> Sleep {
            let (panics, log) = (self.panics, self.log.clone());
            Sleep::new(Odd { panics, log })
        }
    }
    for panics in [true, false] {
        let (batches, log) = (Batches::default(), Log::new());
        let runner = Runner::new(OddTimer {
            batches: batches.clone(),
            panics,
            log: log.clone(),
        });
        now_or_never(runner.scope(async {
            let first = after::task("first").timeout(seconds(1));
            first.defer(yields(1));
            after::task("second").defer(yields(4));
        }));
        polls_to_end(&mut batches.take_one(), 10);
        let stats = balanced(&runner);
        assert_eq!((stats.panicked, stats.lost, stats.pending), (0, 0, 0));
        assert!(stats.completed >= 2, "{stats:?}");
        let deferred_nothing = log.entries().is_empty() || log.entries() == ["outside"];
        let deferred = log.entries() == ["of the sleep"] && stats.completed == 3;
        assert!(
            deferred_nothing || deferred,
            "{:?} {stats:?}",
            log.entries()
        );
    }
}

/// N18: at a limit the task's memory is freed while a sibling without one goes on.
#[test]
fn what_a_timed_out_task_held_is_freed() {
    let spawner = ByHand::default();
    let runner = Runner::new(spawner.clone());
    let data = Arc::new(());
    now_or_never(runner.scope(async {
        let held = data.clone();
        after::task("stuck").timeout(seconds(1)).defer(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        after::defer(std::future::pending::<()>());
    }));
    let mut batch = spawner.batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(Arc::strong_count(&data), 2);
    spawner.fire(seconds(1));
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(Arc::strong_count(&data), 1);
    let limit = Duration::from_millis(1);
    let report = futures::executor::block_on(runner.shutdown(limit));
    assert_eq!(
        report.unfinished().len(),
        1,
        "it is off the roster: {report}"
    );
}

/// Sentence 17: a timed-out task whose destructor panics is timed out, and hurts nobody.
#[test]
fn a_timed_out_task_whose_destructor_panics_hurts_nobody() {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("a destructor's");
        }
    }
    let spawner = ByHand::default();
    let runner = Runner::new(spawner.clone());
    now_or_never(runner.scope(async {
        let guard = PanicsOnDrop;
        after::task("stuck").timeout(seconds(1)).defer(async move {
            std::future::pending::<()>().await;
            drop(guard);
        });
        after::defer(yields(6));
    }));
    let mut batch = spawner.batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    spawner.fire(seconds(1));
    polls_to_end(&mut batch, 8);
    let stats = balanced(&runner);
    assert_eq!((stats.timed_out, stats.completed, stats.pending), (1, 1, 0));
}

/// Sentence 17: what joins after the scope's limit, by a handle or a destructor, is past it already, and never runs.
#[test]
fn what_joins_after_the_scopes_limit_never_runs() {
    let spawner = ByHand::default();
    let limit = seconds(1_000_000);
    let runner = Runner::builder()
        .spawner(spawner.clone())
        .scope_timeout(limit)
        .build();
    let log = Log::new();
    let mut handle = None;
    let (begin, begun) = mpsc::channel::<()>();
    let (open, gate) = mpsc::channel::<()>();
    now_or_never(runner.scope(async {
        handle = Some(after::handle());
        let reads = Reads { log: log.clone() };
        after::defer(async move {
            std::future::pending::<()>().await;
            drop(reads);
        });
        after::defer_blocking(move || {
            begin.send(()).unwrap();
            gate.recv().unwrap();
        });
    }));
    let mut batch = spawner.batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    let work = spawner.blocking.lock().unwrap().pop().unwrap();
    let thread = std::thread::spawn(|| work.run());
    begun.recv().unwrap();
    spawner
        .made()
        .into_iter()
        .for_each(|made| spawner.fire(made));
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    log.assert(&["dropped Some(Finished) None"]);
    assert_eq!(balanced(&runner).timed_out, 2);
    let joins = log.clone();
    handle.unwrap().defer(async move { joins.add("never") });
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(balanced(&runner).timed_out, 3);
    open.send(()).unwrap();
    thread.join().unwrap();
    polls_to_end(&mut batch, 3);
    log.assert(&["dropped Some(Finished) None"]);
    let stats = balanced(&runner);
    assert_eq!((stats.timed_out, stats.pending), (4, 0));
}

#[cfg(feature = "tokio")]
mod with_a_paused_clock {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// Notes, in whole milliseconds of virtual time, when it is dropped and whether it ended.
    struct Noted {
        log: Log,
        name: &'static str,
        begun: Instant,
        ended: bool,
    }

    impl Drop for Noted {
        fn drop(&mut self) {
            let (name, ended) = (self.name, self.ended);
            let at = self.begun.elapsed().as_millis();
            let how = if ended { "ended" } else { "dropped" };
            self.log.add(format!("{name} {how} at {at}"));
        }
    }

    fn sleeps(log: &Log, name: &'static str, time: Duration) -> impl Future<Output = ()> + use<> {
        let noted = Noted {
            log: log.clone(),
            name,
            begun: Instant::now(),
            ended: false,
        };
        async move {
            // All of it, and not a copy of the flag.
            let mut noted = noted;
            sleep(time).await;
            noted.ended = true;
        }
    }

    /// Sentence 17: exact. Limits of 10 s and 20 s, sleeps of 15 s.
    #[tokio::test(start_paused = true)]
    async fn limits_are_exact() {
        let runner = Runner::builder().build();
        let log = Log::new();
        runner
            .scope(async {
                let short = after::task("short").timeout(seconds(10));
                short.defer(sleeps(&log, "short", seconds(15)));
                let long = after::task("long").timeout(seconds(20));
                long.defer(sleeps(&log, "long", seconds(15)));
            })
            .await;
        runner.drain().await;
        log.assert(&["short dropped at 10000", "long ended at 15000"]);
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.timed_out), (1, 1));
    }

    /// Sentence 17: each task's time begins with its own first poll.
    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_task_begins_when_it_starts() {
        let runner = Runner::builder().task_timeout(seconds(10)).build();
        let log = Log::new();
        runner
            .scope(async {
                let handle = after::handle();
                let joins = sleeps(&log, "later", seconds(60));
                after::defer(sleeps(&log, "first", seconds(60)));
                after::task("joins").defer(async move {
                    sleep(seconds(5)).await;
                    handle.defer(joins);
                });
            })
            .await;
        runner.drain().await;
        log.assert(&["first dropped at 10000", "later dropped at 15000"]);
    }

    /// Sentence 17: in a sequence the second task's time begins when the first has ended.
    #[tokio::test(start_paused = true)]
    async fn in_a_sequence_the_time_begins_when_the_one_before_has_ended() {
        let runner = Runner::builder().task_timeout(seconds(10)).build();
        let log = Log::new();
        let request = runner.scope(async {
            after::defer(sleeps(&log, "first", seconds(8)));
            after::defer(sleeps(&log, "second", seconds(9)));
            after::defer(sleeps(&log, "third", seconds(60)));
            after::defer(sleeps(&log, "fourth", seconds(1)));
        });
        request.order(Order::Sequential).await;
        runner.drain().await;
        log.assert(&[
            "first ended at 8000",
            "second ended at 17000",
            "third dropped at 27000",
            "fourth ended at 28000",
        ]);
    }

    /// Sentence 17, with permits: a task that waits for a permit has not started.
    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_task_does_not_run_while_it_waits_for_a_permit() {
        let runner = Runner::builder()
            .task_timeout(seconds(10))
            .max_running(1)
            .build();
        let log = Log::new();
        runner
            .scope(async {
                after::defer(sleeps(&log, "first", seconds(60)));
                after::defer(sleeps(&log, "second", seconds(60)));
            })
            .await;
        runner.drain().await;
        log.assert(&["first dropped at 10000", "second dropped at 20000"]);
    }

    /// Sentence 17: the scope's limit is exact too, in every order, and what waits for a permit is past it as well.
    #[tokio::test(start_paused = true)]
    async fn the_scopes_limit_is_exact() {
        for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
            for max_running in [1, 2, 100] {
                let runner = Runner::builder()
                    .scope_timeout(seconds(10))
                    .max_running(max_running)
                    .build();
                let log = Log::new();
                let request = runner.scope(async {
                    for _ in 0..3 {
                        after::defer(sleeps(&log, "stuck", seconds(60)));
                    }
                });
                request.order(order).await;
                runner.drain().await;
                log.assert(&["stuck dropped at 10000"; 3]);
                assert_eq!(balanced(&runner).timed_out, 3);
            }
        }
    }

    /// Sentence 17: exact also when a first poll takes real time: no clock but the runtime's counts.
    #[tokio::test(start_paused = true)]
    async fn the_scopes_limit_is_exact_although_real_time_passes() {
        let runner = Runner::builder().scope_timeout(seconds(10)).build();
        let log = Log::new();
        runner
            .scope(async {
                after::defer(async {
                    // Real time passes, and the paused clock stands still: not a synchronisation.
                    std::thread::sleep(Duration::from_millis(20));
                });
                after::defer(sleeps(&log, "stuck", seconds(60)));
            })
            .await;
        runner.drain().await;
        log.assert(&["stuck dropped at 10000"]);
    }

    /// Sentence 17: counted from the hand-over, and not from the batch's first turn.
    #[tokio::test(start_paused = true)]
    async fn the_scopes_time_begins_at_the_hand_over() {
        #[derive(Clone)]
        struct Kept(Batches);
        impl Spawner for Kept {
            fn spawn(&self, batch: Batch) {
                self.0.push(batch);
            }
            fn sleep(&self, duration: Duration) -> Sleep {
                Sleep::new(sleep(duration))
            }
        }
        let kept = Kept(Batches::default());
        let runner = Runner::builder()
            .spawner(kept.clone())
            .scope_timeout(seconds(10))
            .build();
        let log = Log::new();
        let request = runner.scope(async {
            after::defer(sleeps(&log, "stuck", seconds(60)));
        });
        request.await;
        sleep(seconds(4)).await;
        kept.0.take_one().await;
        log.assert(&["stuck dropped at 10000"]);
    }

    /// Sentence 17; P3: a limit for the whole after phase: what a task spawns apart has no new time of its own.
    #[tokio::test(start_paused = true)]
    async fn nested_work_that_is_split_off_has_the_scopes_time() {
        for order in [Order::Concurrent, Order::Parallel] {
            let runner = Runner::builder().scope_timeout(seconds(10)).build();
            let log = Log::new();
            let request = runner.scope(async {
                let nested = sleeps(&log, "nested", seconds(60));
                after::defer(async {
                    sleep(seconds(6)).await;
                    after::task("nested").spawned().defer(nested);
                });
            });
            request.order(order).await;
            runner.drain().await;
            log.assert(&["nested dropped at 10000"]);
        }
    }

    /// Sentence 15 and 17: late work is a hand-over of its own, with a time of its own.
    #[tokio::test(start_paused = true)]
    async fn late_work_has_a_time_of_its_own() {
        let runner = Runner::builder().scope_timeout(seconds(10)).build();
        let log = Log::new();
        let handle = runner
            .scope(async {
                after::defer(async {});
                after::handle()
            })
            .await;
        runner.drain().await;
        sleep(seconds(60)).await;
        handle.defer(sleeps(&log, "late", seconds(60)));
        handle.defer(sleeps(&log, "in time", seconds(9)));
        runner.drain().await;
        log.assert(&["in time ended at 9000", "late dropped at 10000"]);
    }

    /// Sentence 17: with wakers of their own (more than 32 tasks) each of many limits is exact.
    #[tokio::test(start_paused = true)]
    async fn limits_of_many_tasks_are_exact() {
        let runner = Runner::builder().build();
        let begun = Instant::now();
        let log = Arc::new(Mutex::new(Vec::new()));
        struct Gone(u64, Instant, Arc<Mutex<Vec<(u64, u128)>>>);
        impl Drop for Gone {
            fn drop(&mut self) {
                let at = self.1.elapsed().as_millis();
                self.2.lock().unwrap().push((self.0, at));
            }
        }
        runner
            .scope(async {
                for task in 0..60 {
                    let gone = Gone(task, begun, log.clone());
                    let limit = after::task("one of many").timeout(seconds(task + 1));
                    limit.defer(async move {
                        sleep(seconds(2 * (task % 30) + 1)).await;
                        drop(gone);
                    });
                }
            })
            .await;
        runner.drain().await;
        let mut gone = log.lock().unwrap().clone();
        gone.sort();
        for (task, at) in gone {
            let end = (task + 1).min(2 * (task % 30) + 1) * 1_000;
            assert_eq!(at, u128::from(end), "task {task}");
        }
        let stats = balanced(&runner);
        assert_eq!((stats.completed + stats.timed_out, stats.pending), (60, 0));
    }

    /// Sentence 17: two limits in one turn, the task's and the scope's: whichever is first, and each task once.
    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_both_limits_counts() {
        for (of_task, of_scope) in [(5, 10), (10, 5), (10, 10)] {
            let runner = Runner::builder()
                .task_timeout(seconds(of_task))
                .scope_timeout(seconds(of_scope))
                .build();
            let begun = Instant::now();
            runner
                .scope(async {
                    for _ in 0..3 {
                        after::defer(std::future::pending::<()>());
                    }
                })
                .await;
            runner.drain().await;
            assert_eq!(begun.elapsed(), seconds(of_task.min(of_scope)));
            assert_eq!(balanced(&runner).timed_out, 3);
        }
    }

    /// Sentences 11 and 17: a task that uses up tokio's budget at each of its polls has a time limit all the same.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_always_busy_is_past_its_limit_too() {
        #[derive(Clone)]
        struct Own;
        impl Spawner for Own {
            fn spawn(&self, batch: Batch) {
                tokio::spawn(batch);
            }
            fn sleep(&self, duration: Duration) -> Sleep {
                Sleep::new(sleep(duration))
            }
        }
        for builder in [Runner::builder(), Runner::builder().spawner(Own)] {
            let runner = builder.build();
            let request = runner.scope(async {
                for _ in 0..2 {
                    let busy = after::task("busy").timeout(seconds(10));
                    busy.defer(async {
                        loop {
                            tokio::task::consume_budget().await;
                        }
                    });
                }
            });
            request.await;
            // It is never idle, so the clock is moved by hand: a yield is a turn of the batch.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(balanced(&runner).timed_out, 0);
            tokio::time::advance(seconds(11)).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let stats = balanced(&runner);
            assert_eq!((stats.timed_out, stats.pending), (2, 0));
        }
    }

    /// Section 5: a runtime without `enable_time`: no panic of the batch, said once, another timer.
    #[test]
    fn a_runtime_without_a_timer_gets_another() {
        const TEST: &str = "timeouts::with_a_paused_clock::a_runtime_without_a_timer_gets_another";
        if is_child(TEST) {
            std::panic::set_hook(Box::new(|_| ()));
            for builder in [
                &mut tokio::runtime::Builder::new_current_thread(),
                tokio::runtime::Builder::new_multi_thread().worker_threads(1),
            ] {
                let runtime = builder.build().unwrap();
                let runner = Runner::builder().scope_timeout(seconds(60)).build();
                runtime.block_on(async {
                    for _ in 0..3 {
                        runner
                            .scope(async {
                                let stuck = after::task("stuck").timeout(SHORT);
                                stuck.defer(std::future::pending::<()>());
                                after::defer(yields(5));
                            })
                            .await;
                    }
                    runner.drain().await;
                });
                let stats = balanced(&runner);
                assert_eq!((stats.timed_out, stats.completed, stats.lost), (3, 3, 0));
            }
            return;
        }
        let text = standard_error_of(TEST);
        let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
        assert_eq!(count("enable_time"), 2, "once for each Runner: {text}");
        assert_eq!(count("timed out"), 6, "{text}");
    }
}

/// Sentence 17: `outcome()` in what a destructor defers at a limit is still the request's.
#[test]
fn work_deferred_at_a_limit_runs_with_the_requests_outcome() {
    let spawner = ByHand::default();
    let runner = Runner::new(spawner.clone());
    let ran = Arc::new(AtomicUsize::new(0));
    struct Defers(Arc<AtomicUsize>);
    impl Drop for Defers {
        fn drop(&mut self) {
            let ran = self.0.clone();
            let _ = after::try_defer(async move {
                assert_eq!(after::outcome(), Some(Outcome::Failed));
                ran.fetch_add(1, SeqCst);
            });
        }
    }
    let request = runner.scope(async {
        for _ in 0..40 {
            let defers = Defers(ran.clone());
            after::task("stuck").timeout(seconds(1)).defer(async move {
                std::future::pending::<()>().await;
                drop(defers);
            });
        }
        Err::<(), _>("no")
    });
    let _ = now_or_never(request.failed_if(Result::is_err));
    let mut batch = spawner.batches.take_one();
    for _ in 0..6 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    spawner.fire(seconds(1));
    polls_to_end(&mut batch, 10);
    assert_eq!(ran.load(SeqCst), 40);
    let stats = balanced(&runner);
    assert_eq!(
        (stats.timed_out, stats.completed, stats.pending),
        (40, 40, 0)
    );
}
