//! Defects that were found, each kept as the smallest program that showed it.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use after::{Batch, Order, Runner, spawner};

use crate::common::{
    self, CountingWaker, DefersOnDrop, Log, balanced, is_child, keeping, now_or_never, poll_once,
    polls_to_end, standard_error_of, yields,
};

/// A batch of one task, held.
fn held(runner: &Runner) -> Batch {
    now_or_never(runner.scope(async { after::defer(async {}) }).held()).1
}

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

/// The roster heard of the last task that ended only if others were queued, not if it had deferred them: a chain of tasks
/// grew the roster for ever, and the report named what had ended.
#[test]
fn a_task_that_ends_in_a_chain_is_off_the_roster() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::task("ends").defer(async {
            after::task("stuck").defer(std::future::pending::<()>());
        });
    }));
    let mut batch = batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    let report = now_or_never(runner.shutdown(Duration::ZERO));
    let names: Vec<_> = report.unfinished().iter().map(|task| task.name).collect();
    assert_eq!(names, ["stuck"]);
}

/// A drain that had been notified and was dropped passed its notification on to one that began later.
#[test]
fn a_drain_waits_for_a_moment_of_its_own() {
    let (runner, _batches) = keeping();
    let mut batch = held(&runner);
    let mut first = Box::pin(runner.drain());
    assert!(poll_once(first.as_mut()).is_pending());
    polls_to_end(&mut batch, 2);
    let _pending = held(&runner);
    let mut second = Box::pin(runner.drain());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(first);
    assert!(poll_once(second.as_mut()).is_pending());
}

/// Drops, when it is woken, a future that waits on the same list.
struct DropsOnWake(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for DropsOnWake {
    fn wake(self: Arc<Self>) {
        let waiting = self.0.lock().unwrap().take();
        drop(waiting);
    }
}

/// Waiters were woken under the lock of their list: a waker that dropped another waiter locked it again.
#[test]
fn a_waker_may_drop_other_waiters() {
    let (runner, _batches) = keeping();
    let mut batch = held(&runner);
    let inner = runner.clone();
    let mut other = Box::pin(async move { inner.drain().await });
    assert!(poll_once(other.as_mut()).is_pending());
    let waker = Waker::from(Arc::new(DropsOnWake(Mutex::new(Some(other)))));
    let mut drain = Box::pin(runner.drain());
    assert!(poll_with(&mut drain, &waker).is_pending());
    polls_to_end(&mut batch, 2);
    assert!(poll_once(drain.as_mut()).is_ready());
}

struct PanicsOnWake;

impl Wake for PanicsOnWake {
    fn wake(self: Arc<Self>) {
        panic!("a waker's");
    }
}

/// A waker that panicked kept those behind it from being woken, and left the list broken.
#[test]
fn a_waker_that_panics_costs_other_waiters_nothing() {
    let (runner, _batches) = keeping();
    let mut batch = held(&runner);
    let panics = Waker::from(Arc::new(PanicsOnWake));
    let (counter, counts) = CountingWaker::new();
    let mut first = Box::pin(runner.drain());
    let mut second = Box::pin(runner.drain());
    let of_this_runner = || now_or_never(runner.scope(async { Some(after::stopping()) }));
    let mut stopping = of_this_runner().unwrap();
    let mut also = of_this_runner().unwrap();
    assert!(poll_with(&mut first, &panics).is_pending());
    assert!(poll_with(&mut second, &counts).is_pending());
    assert!(poll_with(&mut stopping, &panics).is_pending());
    assert!(poll_with(&mut also, &counts).is_pending());
    polls_to_end(&mut batch, 2);
    assert_eq!(counter.wakes(), 1);
    now_or_never(runner.shutdown(Duration::ZERO));
    assert_eq!(counter.wakes(), 2);
    assert!(poll_once(first.as_mut()).is_ready() && poll_once(second.as_mut()).is_ready());
}

/// Each loss that left nothing pending started a thread of its own. In a process of its own: other tests lose tasks too.
#[cfg(target_os = "linux")]
#[test]
fn losses_share_one_thread() {
    const TEST: &str = "regressions::losses_share_one_thread";
    if !is_child(TEST) {
        standard_error_of(TEST);
        return;
    }
    let threads = || {
        let own = std::fs::read_dir("/proc/self/task").unwrap();
        own.filter(|thread| {
            let name = thread.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "after-losses")
        })
        .count()
    };
    let runner = Runner::new(spawner::from_fn(drop));
    for _ in 0..500 {
        now_or_never(runner.scope(async { after::defer(async {}) }));
    }
    assert_eq!(balanced(&runner).lost, 500);
    // One that has said what there was may be ending.
    assert!(threads() <= 2, "{} threads", threads());
}

/// With a handle the last reference to a context value was dropped where nothing caught its panic.
#[test]
fn a_context_value_that_panics_when_dropped_hurts_nobody() {
    let (runner, batches) = keeping();
    let answer = now_or_never(runner.scope(async {
        after::context::set(Bomb);
        let _ = after::handle();
        "answer"
    }));
    assert_eq!(answer, "answer");
    now_or_never(runner.scope(async {
        after::context::set(Bomb);
        let _ = after::handle();
        after::defer(async {});
    }));
    drop(batches.take_one());
    now_or_never(runner.scope(async {
        after::context::set(Bomb);
        after::defer(async {});
    }));
    polls_to_end(&mut batches.take_one(), 2);
    // While a panic unwinds, this aborted the process.
    let request = runner.scope(async {
        after::context::set(Bomb);
        let _ = after::handle();
        panic!("the request's");
    });
    let payload = catch_unwind(AssertUnwindSafe(|| now_or_never(request))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"the request's"));
    let stats = balanced(&runner);
    assert_eq!((stats.lost, stats.completed), (1, 1));
}

/// What a worker of `Threads` caught could panic again when it was dropped, and end the worker.
#[cfg(feature = "threads")]
#[test]
fn the_pool_outlives_payloads_that_panic() {
    struct Evil;
    impl Drop for Evil {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }
    let runner = Runner::new(spawner::Threads::default());
    futures::executor::block_on(async {
        for _ in 0..8 {
            runner
                .scope(async {
                    after::context::set(Evil);
                    let _ = after::handle();
                    after::defer(async { std::panic::panic_any(Evil) });
                })
                .await;
            runner.drain().await;
        }
        runner.scope(async { after::defer(async {}) }).await;
        runner.drain().await;
    });
    assert_eq!(balanced(&runner).completed, 1);
}

/// Notes, when the last reference goes, whether code there could defer.
struct DefersWhenDropped(Log);

impl Wake for DefersWhenDropped {
    fn wake(self: Arc<Self>) {}
}

impl Drop for DefersWhenDropped {
    fn drop(&mut self) {
        let deferred = after::try_defer(async {}).is_ok();
        self.0.add(format!("deferred: {deferred}"));
    }
}

/// The batch's waker was dropped while its registry was taken apart: what its destructor deferred went to the global
/// Runner and stayed pending there.
#[test]
fn what_a_dropped_waker_defers_is_on_the_right_account() {
    let (runner, _batches) = keeping();
    let global = Runner::global().stats();
    let request = runner.scope(async {
        for _ in 0..10 {
            after::defer(std::future::pending::<()>());
        }
    });
    let mut batch = now_or_never(request.held()).1;
    let log = Log::new();
    let waker = Waker::from(Arc::new(DefersWhenDropped(log.clone())));
    for _ in 0..200 {
        assert!(poll_with(&mut batch, &waker).is_pending());
    }
    drop(waker);
    drop(batch);
    log.assert(&["deferred: true"]);
    assert_eq!(Runner::global().stats(), global);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.lost), (11, 11));
}

/// A waker whose destructor panicked took along the tasks that had just joined.
#[test]
fn a_waker_that_panics_when_dropped_takes_no_task_along() {
    struct Fragile(#[allow(dead_code)] Bomb);
    impl Wake for Fragile {
        fn wake(self: Arc<Self>) {}
    }
    let (runner, batches) = keeping();
    let mut handle = None;
    now_or_never(runner.scope(async {
        handle = Some(after::handle());
        after::defer(std::future::pending::<()>());
    }));
    let mut batch = batches.take_one();
    for _ in 0..3 {
        let waker = Waker::from(Arc::new(Fragile(Bomb)));
        assert!(poll_with(&mut batch, &waker).is_pending());
        // The last reference is the one that the batch keeps.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
    }
    handle.unwrap().defer(async {});
    for _ in 0..3 {
        let _ = poll_once(Pin::new(&mut batch));
    }
    drop(batch);
    let stats = balanced(&runner);
    assert_eq!(
        (stats.deferred, stats.completed, stats.lost, stats.pending),
        (2, 1, 1, 0)
    );
}

/// A waker that defers inline, woken by `handle()`, made the account count more ends than tasks.
#[test]
fn a_waker_that_defers_does_not_unbalance_the_account() {
    struct DefersOnWake;
    impl Wake for DefersOnWake {
        fn wake(self: Arc<Self>) {
            let _ = after::task("late").key("k").try_defer(async {});
        }
    }
    let (runner, batches) = keeping();
    let mut drain = Box::pin(runner.drain());
    now_or_never(runner.scope(async {
        after::task("first").key("k").defer(async {});
        let waker = Waker::from(Arc::new(DefersOnWake));
        assert!(poll_with(&mut drain, &waker).is_pending());
        assert!(after::forget("k"));
        let handle = after::handle();
        let elsewhere = handle.clone();
        let forgotten = std::thread::spawn(move || elsewhere.sync_scope(|| after::forget("k")));
        assert!(forgotten.join().unwrap());
        balanced(&runner);
    }));
    assert_eq!(batches.len(), 0);
    assert_eq!(balanced(&runner).discarded, 2);
}

/// The destructor of an attached future was not caught, as a scope's is.
#[test]
fn an_attached_future_whose_destructor_panics_does_not_panic() {
    let (runner, _batches) = keeping();
    now_or_never(runner.scope(async {
        let bomb = Bomb;
        drop(after::handle().scope(async move {
            let _bomb = bomb;
            std::future::pending::<()>().await;
        }));
    }));
}

/// A batch that held the last reference to its Runner dropped the spawner where nothing caught its panic.
#[test]
fn a_spawner_that_panics_when_dropped_hurts_no_batch() {
    struct Fragile(common::Batches, #[allow(dead_code)] Bomb);
    impl after::Spawner for Fragile {
        fn spawn(&self, batch: Batch) {
            self.0.push(batch);
        }
    }
    let batches = common::Batches::default();
    let runner = Runner::new(Fragile(batches.clone(), Bomb));
    now_or_never(runner.scope(async { after::defer(async {}) }));
    let mut batch = batches.take_one();
    drop(runner);
    drop(batches);
    polls_to_end(&mut batch, 2);
}

/// Late work forgot the order of its scope.
#[test]
fn late_work_keeps_the_order_of_its_scope() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut handle = None;
    let request = runner.scope(async { handle = Some(after::handle()) });
    now_or_never(request.order(Order::Sequential));
    let inner = log.clone();
    handle.unwrap().defer(async move {
        for name in ["A", "B"] {
            let log = inner.clone();
            after::defer(async move {
                log.add(format!("{name} starts"));
                yields(2).await;
                log.add(format!("{name} ends"));
            });
        }
    });
    polls_to_end(&mut batches.take_one(), 20);
    log.assert(&["A starts", "A ends", "B starts", "B ends"]);
}

/// A replaced context value lived on to the end of the scope when there was a handle.
#[test]
fn a_replaced_context_value_is_dropped_at_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let (runner, _batches) = keeping();
    now_or_never(runner.scope(async {
        after::context::set(Counted(drops.clone()));
        let _handle = after::handle();
        after::context::set(Counted(drops.clone()));
        assert_eq!(drops.load(SeqCst), 1);
    }));
    assert_eq!(drops.load(SeqCst), 2);
}

/// Runners and handles could not be used across `catch_unwind`.
#[test]
fn runners_and_handles_are_unwind_safe() {
    fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<Runner>();
    unwind_safe::<after::Handle>();
    unwind_safe::<after::TaskBuilder>();
}

/// What a destructor defers through a handle while its batch is dropped was handed over as a batch of its own.
#[test]
fn what_a_lost_tasks_destructor_defers_is_lost_with_a_handle_too() {
    let (runner, batches) = keeping();
    let log = Log::new();
    now_or_never(runner.scope(async {
        let _ = after::handle();
        let guard = DefersOnDrop {
            log: log.clone(),
            entry: "never runs",
        };
        after::defer(async move { drop(guard) });
    }));
    drop(batches.take_one());
    assert_eq!(batches.len(), 0);
    assert_eq!(balanced(&runner).lost, 2);
}

/// Sentences 2 and 8: `failed_if` panics, and so does the destructor of the answer that it looked at: the first panic goes
/// on, nothing aborts, and what the answer's destructor defers is handed over with the rest.
#[test]
fn a_failed_if_that_panics_beside_an_answer_whose_destructor_panics_does_not_abort() {
    struct Answer(Log);

    impl Drop for Answer {
        fn drop(&mut self) {
            let log = self.0.clone();
            after::defer(async move { log.add(format!("answer {:?}", after::outcome().unwrap())) });
            panic!("the answer's destructor");
        }
    }

    let (runner, batches) = common::keeping();
    let log = Log::new();
    let answer = Answer(log.clone());
    let scope = runner
        .scope(async { answer })
        .failed_if(|_| panic!("the judge"));
    let payload = catch_unwind(AssertUnwindSafe(|| now_or_never(scope))).err();
    let payload = payload.expect("the panic goes on");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"the judge"));
    polls_to_end(&mut batches.take_one(), 100);
    log.assert(&["answer Panicked"]);
    assert_eq!(common::balanced(&runner).completed, 1);
}

/// What a task deferred and took back was not on the account before some task of its batch had ended.
#[test]
fn what_a_task_defers_and_forgets_is_on_the_account_when_its_turn_is_over() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::defer(async {
            after::task("taken back").key("key").defer(async {});
            assert!(after::forget("key"));
            yields(1).await;
        });
    }));
    let mut batch = batches.take_one();
    for _ in 0..2 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.discarded, stats.pending), (2, 1, 1));
    assert!(poll_once(Pin::new(&mut batch)).is_ready());
}
