//! The hand-over where it hurts: from destructors, on threads outside any runtime, after the runtime has gone, while
//! unwinding; and batches that are dropped.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use after::{Runner, spawner};

use crate::common::{
    self, Batches, DefersOnDrop, Log, balanced, is_child, keeping, now_or_never, poll_once,
    standard_error_of, yields,
};

/// A request that has deferred `tasks` tasks and waits for ever.
fn waiting(
    runner: &Runner,
    tasks: usize,
) -> Pin<Box<after::Scope<impl Future<Output = ()> + use<>>>> {
    let mut request = Box::pin(runner.scope(async move {
        for _ in 0..tasks {
            after::defer(async {});
        }
        std::future::pending::<()>().await;
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    request
}

/// Sentence 8: a scope that dies in somebody else's panic is Cancelled, is handed over while unwinding, and nothing aborts.
#[test]
fn a_scope_dropped_while_unwinding_is_handed_over_as_cancelled() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut request = Box::pin(runner.scope({
        let log = log.clone();
        async move {
            let _guard = DefersOnDrop {
                log: log.clone(),
                entry: "destructor",
            };
            after::defer(async move { log.add(format!("{:?}", after::outcome().unwrap())) });
            std::future::pending::<()>().await;
        }
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _request = request;
        panic!("somebody else's");
    }));
    assert!(unwound.is_err());
    common::polls_to_end(&mut batches.take_one(), 3);
    log.assert(&["Cancelled", "destructor"]);
}

/// Sentence 10: a destructor that panics inside a scope that is dropped while unwinding does not abort the process.
#[test]
fn a_panicking_destructor_in_an_unwinding_scope_does_not_abort() {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let (runner, batches) = keeping();
    let mut request = Box::pin(runner.scope(async {
        let _bad = PanicsOnDrop;
        after::defer(async {});
        std::future::pending::<()>().await;
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _request = request;
        panic!("the first");
    }));
    assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"the first"));
    drop(batches.take_one());
}

/// Sentence 10: a spawner that panics means lost tasks, not a broken request, also while unwinding.
#[test]
fn a_spawner_that_panics_loses_the_tasks_and_nothing_else() {
    let runner = Runner::new(spawner::from_fn(|_batch| panic!("the spawner's")));
    let answer = now_or_never(runner.scope(async {
        after::defer(async {});
        after::defer(async {});
        7
    }));
    assert_eq!(answer, 7);
    assert_eq!(balanced(&runner).lost, 2);
    let request = waiting(&runner, 1);
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _request = request;
        panic!("somebody else's");
    }));
    assert!(unwound.is_err());
    assert_eq!(balanced(&runner).lost, 3);
}

/// Sentence 10: a spawner that drops the batch loses its tasks; what their destructors defer is lost in turn (18b).
#[test]
fn what_destructors_of_lost_tasks_defer_is_lost_in_turn() {
    struct DefersAgain {
        depth: usize,
        dropped: Arc<AtomicUsize>,
    }
    impl Drop for DefersAgain {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, SeqCst);
            if self.depth > 0 {
                let again = DefersAgain {
                    depth: self.depth - 1,
                    dropped: self.dropped.clone(),
                };
                after::try_defer(async move { drop(again) }).unwrap();
            } else {
                panic!("the last");
            }
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    for hold_a_handle in [false, true] {
        let runner = Runner::new(spawner::from_fn(drop));
        now_or_never(runner.scope(async {
            if hold_a_handle {
                let _ = after::handle();
            }
            let guard = DefersAgain {
                depth: 3,
                dropped: dropped.clone(),
            };
            after::defer(async move { drop(guard) });
        }));
        assert_eq!(dropped.swap(0, SeqCst), 4);
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.lost), (4, 4));
    }
}

/// 18b: a batch dropped in the middle of its work loses what is unfinished, with the scope current.
#[test]
fn a_batch_dropped_in_the_middle_loses_what_is_unfinished() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut handle = None;
    now_or_never(runner.scope(async {
        handle = Some(after::handle());
        after::context::set("value");
        after::defer(async {});
        let guard = DefersOnDrop {
            log: log.clone(),
            entry: "never runs",
        };
        after::defer(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        after::defer(async { panic!("counted") });
    }));
    let mut batch = batches.take_one();
    for _ in 0..2 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    drop(batch);
    log.assert(&[]);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.panicked, stats.lost), (1, 1, 2));
    // The batch is over: what the handle brings now is a batch of its own, and the values are gone.
    handle.unwrap().defer(async {
        assert_eq!(after::context::get::<&str>(), None);
        assert_eq!(after::outcome(), Some(after::Outcome::Finished));
    });
    common::polls_to_end(&mut batches.take_one(), 2);
    assert_eq!(balanced(&runner).completed, 2);
}

/// A finished batch may be polled again, as a fused future.
#[test]
fn a_finished_batch_stays_ready() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async { after::defer(async {}) }));
    let mut batch = batches.take_one();
    common::polls_to_end(&mut batch, 2);
    assert!(poll_once(Pin::new(&mut batch)).is_ready());
    assert_eq!(balanced(&runner).completed, 1);
}

/// Sentence 10: on a thread outside any runtime a Runner uses the runtime that it saw first, not a pool that happens to
/// be there.
#[cfg(feature = "tokio")]
#[test]
fn a_first_defer_in_a_destructor_on_a_foreign_thread_finds_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("the-runtime")
        .build()
        .unwrap();
    let runner = Runner::builder().build();
    // The Runner sees the runtime.
    runtime.block_on(runner.scope(async { after::defer(async {}) }));
    let log = Log::new();
    let mut request = Box::pin(runner.scope({
        let log = log.clone();
        async move {
            struct NotesThread(Log);
            impl Drop for NotesThread {
                fn drop(&mut self) {
                    let log = self.0.clone();
                    let _ = after::try_defer(async move {
                        log.add(std::thread::current().name().unwrap_or_default());
                    });
                }
            }
            let _guard = NotesThread(log);
            std::future::pending::<()>().await;
        }
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    std::thread::spawn(move || drop(request)).join().unwrap();
    runtime.block_on(runner.drain());
    log.assert(&["the-runtime"]);
}

/// Sentence 10: a scope that deferred inside a runtime is handed over to it from any thread.
#[cfg(feature = "tokio")]
#[test]
fn a_scope_dropped_on_a_foreign_thread_goes_to_the_runtime_of_its_first_defer() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let runner = Runner::builder().build();
    let mut request = Box::pin(runner.scope(async {
        after::defer(async {
            assert!(tokio::runtime::Handle::try_current().is_ok());
        });
        std::future::pending::<()>().await;
    }));
    {
        let _inside = runtime.enter();
        assert!(poll_once(request.as_mut()).is_pending());
    }
    std::thread::spawn(move || drop(request)).join().unwrap();
    runtime.block_on(runner.drain());
    assert_eq!(balanced(&runner).completed, 1);
}

/// Sentence 10: a hand-over to a runtime that was named and has gone loses the tasks, on any thread, and never panics
/// (P10). Of one that was found: `runtimes_gone`.
#[cfg(feature = "tokio")]
#[test]
fn a_hand_over_to_a_runtime_that_has_gone_loses_the_tasks() {
    for flavour in [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ]
    .iter_mut()
    {
        let runtime = flavour.build().unwrap();
        let runner = Runner::new(spawner::Tokio::from(runtime.handle().clone()));
        let request = {
            let _inside = runtime.enter();
            waiting(&runner, 3)
        };
        let late = runtime.block_on(async {
            let (handle, batch) = runner.scope(async { after::handle() }).held().await;
            drop(batch);
            handle
        });
        drop(runtime);
        drop(request);
        late.defer(async {});
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.lost, stats.pending), (4, 4, 0));
        now_or_never(runner.drain());
    }
}

/// Sentence 20: what is unfinished when the runtime is dropped becomes lost, closures that wait for a thread included.
#[cfg(feature = "tokio")]
#[test]
fn tasks_are_lost_when_their_runtime_is_dropped() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let runner = Runner::builder().build();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    runtime.block_on(runner.scope(async {
        after::defer(std::future::pending::<()>());
        after::defer_blocking(move || {
            tell.send(()).unwrap();
            let _ = gate.recv();
        });
        // Stands behind the other: there is one thread.
        after::defer_blocking(|| ());
    }));
    told.recv().unwrap();
    runtime.shutdown_background();
    drop(open);
    futures::executor::block_on(runner.drain());
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.pending), (3, 0));
    assert!(stats.lost >= 1, "{stats:?}");
}

/// Section 5: the blocking half whose closure is dropped unrun wakes the waiting half: lost. Its captures may defer.
#[test]
fn a_closure_dropped_unrun_is_lost_and_its_siblings_go_on() {
    struct DropsBlocking(Batches);
    impl after::Spawner for DropsBlocking {
        fn spawn(&self, batch: after::Batch) {
            self.0.push(batch);
        }
        fn spawn_blocking(&self, work: spawner::BlockingWork) {
            drop(work);
        }
    }
    let batches = Batches::default();
    let runner = Runner::new(DropsBlocking(batches.clone()));
    let log = Log::new();
    now_or_never(runner.scope(async {
        let guard = DefersOnDrop {
            log: log.clone(),
            entry: "its captures' work",
        };
        after::task("dropped").defer_blocking(move || drop(guard));
        after::defer(async {});
    }));
    common::polls_to_end(&mut batches.take_one(), 4);
    log.assert(&["its captures' work"]);
    let stats = balanced(&runner);
    assert_eq!((stats.lost, stats.completed), (1, 2));
}

/// A spawner whose `spawn_blocking` panics loses that task alone.
#[test]
fn a_spawn_blocking_that_panics_loses_that_task_alone() {
    struct PanicsBlocking(Batches);
    impl after::Spawner for PanicsBlocking {
        fn spawn(&self, batch: after::Batch) {
            self.0.push(batch);
        }
        fn spawn_blocking(&self, _: spawner::BlockingWork) {
            panic!("no threads");
        }
    }
    let batches = Batches::default();
    let runner = Runner::new(PanicsBlocking(batches.clone()));
    now_or_never(runner.scope(async {
        after::defer_blocking(|| ());
        after::defer(async {});
    }));
    common::polls_to_end(&mut batches.take_one(), 4);
    let stats = balanced(&runner);
    assert_eq!((stats.lost, stats.completed), (1, 1));
}

/// P8: a timeout and a `select!` drop the request; what it has deferred runs.
#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn a_timeout_and_a_select_hand_over_what_was_deferred() {
    let runner = Runner::builder().build();
    let log = Log::new();
    let request = |entry: &'static str| {
        let log = log.clone();
        runner.scope(async move {
            let _guard = DefersOnDrop {
                log: log.clone(),
                entry,
            };
            after::defer(async move { log.add(format!("{:?}", after::outcome().unwrap())) });
            std::future::pending::<()>().await;
        })
    };
    let second = std::time::Duration::from_secs(1);
    assert!(
        tokio::time::timeout(second, request("timeout"))
            .await
            .is_err()
    );
    runner.drain().await;
    tokio::select! {
        biased;
        _ = request("select") => unreachable!(),
        _ = yields(1) => {}
    }
    runner.drain().await;
    log.assert(&["Cancelled", "timeout", "Cancelled", "select"]);
}

/// Section 5: panic payloads may panic when they are dropped.
#[test]
fn a_payload_that_panics_when_dropped_hurts_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::defer(async { std::panic::panic_any(Bomb) });
        after::defer(async {});
    }));
    common::polls_to_end(&mut batches.take_one(), 2);
    let stats = balanced(&runner);
    assert_eq!((stats.panicked, stats.completed), (1, 1));
}

/// Section 5: an error whose `Display` panics is reported and counted all the same. In a process of its own: where there is
/// a subscriber, that decides whether the error is shown.
#[test]
fn an_error_whose_display_panics_hurts_nobody() {
    const TEST: &str = "handover::an_error_whose_display_panics_hurts_nobody";
    if !is_child(TEST) {
        let said = standard_error_of(TEST);
        assert!(said.contains("in Display"), "{said}");
        return;
    }
    #[derive(Debug)]
    struct Bad;
    impl std::fmt::Display for Bad {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("in Display");
        }
    }
    impl std::error::Error for Bad {}
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::defer(async { Err::<(), _>(Bad) });
        after::defer(async {});
    }));
    common::polls_to_end(&mut batches.take_one(), 2);
    let stats = balanced(&runner);
    assert_eq!((stats.failed, stats.completed), (1, 1));
}

/// A waker that panics takes no task along: the batch is whole, and may be polled again.
#[test]
fn a_waker_that_panics_takes_no_task_along() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker's");
        }
    }
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async { after::defer(yields(1)) }));
    let mut batch = batches.take_one();
    let waker = std::task::Waker::from(Arc::new(Panics));
    let mut cx = std::task::Context::from_waker(&waker);
    for _ in 0..2 {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut batch).poll(&mut cx).is_ready()
        }));
    }
    assert_eq!(balanced(&runner).deferred, 1);
    let mut polls = 0;
    while !batch.is_empty() && polls < 4 {
        let _ = poll_once(Pin::new(&mut batch));
        polls += 1;
    }
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 10: `from_fn` may run the batch wherever it likes, even inside the call, although the contract forbids it.
#[test]
fn a_spawner_that_runs_the_batch_inside_the_call_is_tolerated() {
    let runner = Runner::new(spawner::from_fn(
        futures::executor::block_on::<after::Batch>,
    ));
    let log = Log::new();
    now_or_never(runner.scope(async {
        let log = log.clone();
        after::defer(async move {
            log.add("task");
            after::defer(async move { log.add("nested") });
        });
    }));
    log.assert(&["task", "nested"]);
}

/// Sentence 15 and 20: dropping a batch while a handle pushes into it loses nothing silently.
#[test]
fn a_handle_and_a_dropped_batch_balance() {
    let (runner, batches) = keeping();
    for _ in 0..200 {
        let mut handle = None;
        now_or_never(runner.scope(async {
            handle = Some(after::handle());
            after::defer(async {});
        }));
        let batch = batches.take_one();
        let handle = handle.unwrap();
        let pushing = std::thread::spawn(move || {
            for _ in 0..10 {
                handle.defer(async {});
            }
        });
        drop(batch);
        pushing.join().unwrap();
        for mut late in batches.take_all() {
            common::polls_to_end(&mut late, 3);
        }
    }
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.pending), (200 * 11, 0));
}
