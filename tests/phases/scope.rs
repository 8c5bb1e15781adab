//! The request phase, polled by hand: what is current when, and what is handed over when.

use std::{
    cell::RefCell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use after::{Order, Outcome, Runner};

use crate::common::{
    CountingWaker, DefersOnDrop, Log, balanced, is_child, keeping, now_or_never, poll_once,
    polls_to_end, standard_error_of, yields,
};

/// Sentence 2: current while the inner future is polled, and only then.
#[test]
fn the_scope_is_current_while_its_future_is_polled() {
    let (runner, _batches) = keeping();
    let mut request = pin!(runner.scope(async {
        assert!(after::in_scope());
        yields(1).await;
        assert!(after::in_scope());
    }));
    assert!(!after::in_scope());
    assert!(poll_once(request.as_mut()).is_pending());
    assert!(!after::in_scope());
    assert!(poll_once(request.as_mut()).is_ready());
    assert!(!after::in_scope());
}

/// Sentence 2: the inner future is dropped as soon as it resolves, before the hand-over.
#[test]
fn the_future_is_dropped_before_the_hand_over() {
    let (runner, batches) = keeping();
    let log = Log::new();
    /// Keeps its guard until it is dropped itself.
    struct Keeps(#[allow(dead_code)] DefersOnDrop);
    impl Future for Keeps {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    let guard = DefersOnDrop {
        log: log.clone(),
        entry: "destructor",
    };
    let mut request = Box::pin(runner.scope(Keeps(guard)));
    assert!(poll_once(request.as_mut()).is_ready());
    assert_eq!(
        batches.take_one().len(),
        1,
        "while the scope itself is still there"
    );
}

/// Sentence 8: a scope that collected nothing hands over nothing, also when it has a context or a handle.
#[test]
fn a_scope_that_collected_nothing_hands_over_nothing() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {}));
    now_or_never(runner.scope(async { after::context::set(1) }));
    now_or_never(runner.scope(async { drop(after::handle()) }));
    drop(runner.scope(std::future::pending::<()>()));
    assert_eq!(batches.len(), 0);
    assert_eq!(balanced(&runner).deferred, 0);
}

/// Sentence 8: exactly once, and nothing more when the resolved scope is dropped.
#[test]
fn a_resolved_scope_is_not_handed_over_again() {
    let (runner, batches) = keeping();
    let mut request = Box::pin(runner.scope(async { after::defer(async {}) }));
    assert!(poll_once(request.as_mut()).is_ready());
    drop(request);
    drop(batches.take_one());
}

/// Sentence 9: everything of one scope is one batch and one call of the spawner, nested scopes apart.
#[test]
fn everything_of_one_scope_is_one_batch() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        for _ in 0..10 {
            after::defer(async {});
        }
        after::defer_blocking(|| ());
        after::handle().defer(async {});
    }));
    let mut batch = batches.take_one();
    assert_eq!(batch.len(), 12);
    assert_eq!(batch.names().count(), 12);
    let _ = poll_once(Pin::new(&mut batch));
}

/// Sentence 9b: the first poll starts nothing, wakes the batch and returns; without it a response would wait for tasks.
#[test]
fn the_first_poll_of_a_batch_starts_nothing() {
    let (runner, batches) = keeping();
    let started = Arc::new(AtomicUsize::new(0));
    now_or_never(runner.scope(async {
        let started = started.clone();
        after::defer(async move {
            started.fetch_add(1, SeqCst);
        });
    }));
    let mut batch = batches.take_one();
    let (counter, waker) = CountingWaker::new();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut batch).poll(&mut cx).is_pending());
    assert_eq!((started.load(SeqCst), counter.wakes()), (0, 1));
    assert!(Pin::new(&mut batch).poll(&mut cx).is_ready());
    assert_eq!((started.load(SeqCst), counter.wakes()), (1, 1));
}

/// Sentence 6; N10: never polled inside `defer`, not in a request, not in a task, not by a late handle.
#[test]
fn what_is_deferred_is_never_polled_inside_the_call() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let task = |name: &'static str| {
        let log = log.clone();
        async move { log.add(name) }
    };
    let mut handle = None;
    now_or_never(runner.scope(async {
        handle = Some(after::handle());
        after::defer(task("in the request"));
        log.assert(&[]);
        let nested = task("in the task");
        let log = log.clone();
        after::defer(async move {
            after::defer(nested);
            log.assert(&["in the request"]);
        });
    }));
    let mut batch = batches.take_one();
    polls_to_end(&mut batch, 4);
    log.assert(&["in the request", "in the task"]);
    handle.unwrap().defer(task("late"));
    log.assert(&["in the request", "in the task"]);
    polls_to_end(&mut batches.take_one(), 4);
    log.assert(&["in the request", "in the task", "late"]);
    assert_eq!(balanced(&runner).completed, 4);
}

/// Sentence 7; P1: the later task with a key replaces the earlier one and takes the later place.
#[test]
fn a_key_names_the_task_deferred_last() {
    let (runner, batches) = keeping();
    let held = Arc::new(());
    now_or_never(runner.scope(async {
        let first = held.clone();
        after::task("first")
            .key("k")
            .defer(async move { drop(first) });
        after::task("between").defer(async {});
        assert_eq!(Arc::strong_count(&held), 2);
        after::task("second").key(String::from("k")).defer(async {});
        assert_eq!(
            Arc::strong_count(&held),
            1,
            "the replaced task is dropped at once"
        );
        after::task("last").defer(async {});
    }));
    let mut batch = batches.take_one();
    assert!(batch.names().eq(["between", "second", "last"]));
    polls_to_end(&mut batch, 3);
    let stats = balanced(&runner);
    assert_eq!(
        (stats.deferred, stats.completed, stats.discarded),
        (4, 3, 1)
    );
}

/// Sentence 7; P1: `forget` takes a task back, in the request, through handles, and in a task for what it deferred itself.
#[test]
fn forget_takes_a_task_back_before_the_hand_over() {
    let (runner, batches) = keeping();
    assert!(!after::forget("outside"));
    now_or_never(runner.scope(async {
        after::task("a").key("a").defer(async {});
        assert!(!after::forget("other"));
        assert!(after::forget("a"));
        assert!(!after::forget("a"));
        let handle = after::handle();
        handle.task("b").key("b").defer(async {});
        assert!(after::forget("b"));
        handle.task("c").key("c").defer(async {
            after::task("d").key("d").defer(async {});
            assert!(!after::forget("c"), "handed over");
            assert!(after::forget("d"));
        });
    }));
    let mut batch = batches.take_one();
    assert!(batch.names().eq(["c"]));
    polls_to_end(&mut batch, 3);
    let stats = balanced(&runner);
    assert_eq!(
        (stats.deferred, stats.completed, stats.discarded),
        (4, 1, 3)
    );
}

/// Sentence 7: a request whose only task was taken back hands over nothing and balances.
#[test]
fn a_request_with_all_tasks_taken_back_hands_over_nothing() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::task("a").key("a").defer(async {});
        assert!(after::forget("a"));
    }));
    assert_eq!(batches.len(), 0);
    assert_eq!(balanced(&runner).pending, 0);
    now_or_never(runner.drain());
}

/// Sentence 7: no borrow of ours is held while the destructor of a replaced task, or of a context value, runs.
#[test]
fn destructors_of_what_is_replaced_may_defer() {
    let (runner, batches) = keeping();
    let log = Log::new();
    now_or_never(runner.scope(async {
        for entry in ["replaced", "forgotten"] {
            let guard = DefersOnDrop {
                log: log.clone(),
                entry,
            };
            after::task("keyed")
                .key("k")
                .defer(async move { drop(guard) });
        }
        assert!(after::forget("k"));
        let first = DefersOnDrop {
            log: log.clone(),
            entry: "context value",
        };
        after::context::set(Arc::new(first));
        after::context::with(|value: &Arc<DefersOnDrop>| {
            // No borrow is held here either: this may defer, and may replace what is being read.
            after::defer(async {});
            let _ = after::context::try_set(Arc::new(DefersOnDrop {
                log: value.log.clone(),
                entry: "second value",
            }));
        });
    }));
    let batch = &mut batches.take_one();
    assert_eq!(batch.len(), 4);
    polls_to_end(batch, 4);
    assert_eq!(
        log.entries()[..3],
        ["replaced", "forgotten", "context value"]
    );
}

/// Sentence 4: two scopes polled in turn on one thread never see each other's tasks or values.
#[test]
fn scopes_polled_in_turn_see_only_themselves() {
    let (runner, batches) = keeping();
    let request = |id: u32| {
        let runner = runner.clone();
        async move {
            let scope = runner.scope(async move {
                after::context::set(id);
                for _ in 0..10 {
                    yields(1).await;
                    assert_eq!(after::context::get::<u32>(), Some(id));
                    after::defer(async move { assert_eq!(after::context::get::<u32>(), Some(id)) });
                    after::task("keyed").key("k").defer(async {});
                }
                assert!(after::forget("k"));
            });
            scope.await;
        }
    };
    let mut requests: Vec<_> = (0..20).map(|id| Box::pin(request(id))).collect();
    while !requests.is_empty() {
        requests.retain_mut(|request| {
            assert!(!after::in_scope());
            poll_once(request.as_mut()).is_pending()
        });
    }
    let mut batches = batches.take_all();
    assert_eq!(batches.len(), 20);
    for batch in &mut batches {
        assert_eq!(batch.len(), 10);
        polls_to_end(batch, 3);
    }
    assert_eq!(balanced(&runner).completed, 200);
}

/// Sentence 3: the outer scope is current again after an inner one that panicked, and under a nested executor.
#[test]
fn leaving_a_nested_scope_restores_the_outer_one() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::context::set("outer");
        let panicking = runner.scope(async {
            after::defer(async {});
            panic!("inner");
        });
        assert!(catch_unwind(AssertUnwindSafe(|| now_or_never(panicking))).is_err());
        assert_eq!(after::context::get::<&str>(), Some("outer"));
        futures::executor::block_on(async {
            assert_eq!(after::context::get::<&str>(), Some("outer"));
            runner
                .scope(async { assert_eq!(after::context::get::<&str>(), None) })
                .await;
            after::defer(async {});
        });
        assert_eq!(after::context::get::<&str>(), Some("outer"));
    }));
    assert_eq!(batches.take_all().len(), 2);
}

/// Sentence 12: a plain scope that resolves to an error is Finished unless `failed_if` says otherwise.
#[test]
fn failed_if_decides_what_a_failure_is() {
    let (runner, batches) = keeping();
    let seen = Log::new();
    let request = || {
        let seen = seen.clone();
        async move {
            after::defer(async move { seen.add(format!("{:?}", after::outcome().unwrap())) });
            Err::<(), _>("no")
        }
    };
    let _ = now_or_never(runner.scope(request()));
    let _ = now_or_never(runner.scope(request()).failed_if(Result::is_err));
    let _ = now_or_never(runner.scope(request()).failed_if(Result::is_ok));
    for batch in &mut batches.take_all() {
        polls_to_end(batch, 2);
    }
    seen.assert(&["Finished", "Failed", "Finished"]);
}

/// Section 5: a `failed_if` that panics makes the outcome Panicked, and the panic goes on; it may defer.
#[test]
fn a_failed_if_that_panics_is_a_panic_of_the_request() {
    let (runner, batches) = keeping();
    let seen = Log::new();
    let note = seen.clone();
    let request = runner
        .scope(async move {
            after::defer(async move { note.add(format!("{:?}", after::outcome().unwrap())) });
        })
        .failed_if(|()| {
            after::defer(async {});
            panic!("in failed_if")
        });
    assert!(catch_unwind(AssertUnwindSafe(|| now_or_never(request))).is_err());
    let mut batch = batches.take_one();
    assert_eq!(batch.len(), 2);
    polls_to_end(&mut batch, 2);
    seen.assert(&["Panicked"]);
}

/// Sentences 5 and 8: a destructor that panics on completion is a panic of the request; its tasks are handed over.
#[test]
fn a_future_whose_destructor_panics_is_handed_over() {
    struct PanicsOnDrop(bool);
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            after::try_defer(async {}).unwrap();
            panic!("a destructor's");
        }
    }
    impl Future for PanicsOnDrop {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }
    }
    let (runner, batches) = keeping();
    // On completion the panic goes on, as it would without a scope.
    let resolves = runner.scope(PanicsOnDrop(true));
    assert!(catch_unwind(AssertUnwindSafe(|| now_or_never(resolves))).is_err());
    assert_eq!(batches.take_one().len(), 1);
    // A scope that is dropped never panics.
    drop(runner.scope(PanicsOnDrop(false)));
    assert_eq!(batches.take_one().len(), 1);
}

/// A held scope gives its batch to the caller; dropped or panicked before, it is handed over.
#[test]
fn a_held_scope_gives_its_batch_to_the_caller() {
    let (runner, batches) = keeping();
    let (answer, mut batch) = now_or_never(
        runner
            .scope(async {
                after::task("audit").defer(async {});
                7
            })
            .held(),
    );
    assert_eq!(
        (answer, batch.len(), batch.is_empty(), batches.len()),
        (7, 1, false, 0)
    );
    assert!(batch.names().eq(["audit"]));
    assert_eq!(balanced(&runner).pending, 1, "held is pending");
    polls_to_end(&mut batch, 2);
    assert!(batch.is_empty());
    assert_eq!(balanced(&runner).completed, 1);

    let ((), batch) = now_or_never(runner.scope(async {}).held());
    assert!(batch.is_empty());
    batch.release();
    assert_eq!(batches.len(), 0);

    let ((), batch) = now_or_never(runner.scope(async { after::defer(async {}) }).held());
    batch.release();
    drop(batches.take_one());

    let mut held = Box::pin(
        runner
            .scope(async {
                after::defer(async {});
                yields(1).await;
            })
            .held(),
    );
    assert!(poll_once(held.as_mut()).is_pending());
    drop(held);
    drop(batches.take_one());

    let panics = runner.scope(async {
        after::defer(async {});
        panic!("held");
    });
    assert!(catch_unwind(AssertUnwindSafe(|| now_or_never(panics.held()))).is_err());
    drop(batches.take_one());
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.lost), (1, 3));
}

/// Bad input: polling a finished scope says so.
#[test]
fn polling_a_finished_scope_panics_and_says_so() {
    let (runner, _batches) = keeping();
    let mut request = Box::pin(runner.scope(async {}));
    assert!(poll_once(request.as_mut()).is_ready());
    let payload = catch_unwind(AssertUnwindSafe(|| poll_once(request.as_mut()))).unwrap_err();
    let message = payload.downcast_ref::<&str>().unwrap();
    assert!(message.contains("polled after completion"), "{message}");
}

/// Sentence 5; N13: outside a scope `defer` panics at the caller's line and names `try_defer`. In a process of its own, for
/// the panic hook.
#[test]
fn defer_outside_a_scope_panics_at_the_callers_line() {
    const TEST: &str = "scope::defer_outside_a_scope_panics_at_the_callers_line";
    if !is_child(TEST) {
        standard_error_of(TEST);
        return;
    }
    thread_local! {
        static SEEN: RefCell<Option<(String, u32, String)>> = const { RefCell::new(None) };
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let location = info.location().unwrap();
        let message = info.payload().downcast_ref::<String>();
        let message = message.cloned().unwrap_or_default();
        SEEN.set(Some((location.file().into(), location.line(), message)));
        before(info);
    }));
    let check = |line: u32, call: &dyn Fn()| {
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        let (file, seen, message) = SEEN.take().unwrap();
        assert_eq!((file.as_str(), seen), (file!(), line), "{message}");
        message
    };
    let messages = [
        ("`try_defer`", check(line!(), &|| after::defer(async {}))),
        (
            "`try_defer`",
            check(line!(), &|| after::task("named").defer(async {})),
        ),
        (
            "`try_defer`",
            check(line!(), &|| after::defer_blocking(|| ())),
        ),
        (
            "`try_defer`",
            check(line!(), &|| after::task("named").defer_blocking(|| ())),
        ),
        ("`try_handle`", check(line!(), &|| drop(after::handle()))),
        ("`try_set`", check(line!(), &|| after::context::set(1))),
    ];
    for (instead, message) in messages {
        assert!(message.contains(instead), "{instead} in {message}");
        names_the_ways_to_a_scope(&message);
    }
}

/// For code that nothing is around, and for code that runs elsewhere than the request.
#[track_caller]
fn names_the_ways_to_a_scope(message: &str) {
    for way in [
        "`.layer(AfterLayer::new())`",
        "feature `tower`",
        "`after::scope`",
        "a spawned task",
        "`tower::buffer::Buffer`",
        "a framework that runs handlers on a task of its own",
        "`after::handle()`",
        "`AfterLayer::provide_handle`",
    ] {
        assert!(message.contains(way), "{way} in {message}");
    }
    assert!(!message.contains("  "), "{message}");
}

/// Sentence 5: `try_defer` gives the task back, untouched.
#[test]
fn try_defer_gives_the_task_back() {
    let task = async { 7 };
    let error = after::try_defer(async move {
        task.await;
    })
    .unwrap_err();
    let message = error.to_string();
    names_the_ways_to_a_scope(&message);
    assert!(message.contains("`try_defer`"), "{message}");
    assert_eq!(format!("{error:?}"), "TryDeferError { .. }");
    now_or_never(error.into_inner());
    let error = after::task("named").try_defer(async {}).unwrap_err();
    now_or_never(error.into_inner());
}

/// Sentence 5: it works, by giving the task back, in the destructors of thread-locals too.
#[test]
fn try_defer_works_in_thread_exit_destructors() {
    struct AtExit(std::sync::mpsc::Sender<(bool, bool)>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let given_back = after::try_defer(async {}).is_err();
            self.0.send((given_back, after::in_scope())).unwrap();
            // A scope here still hands over.
            let (runner, batches) = keeping();
            now_or_never(runner.scope(async { after::defer(async {}) }));
            self.0.send((batches.take_one().len() == 1, false)).unwrap();
        }
    }
    thread_local! {
        static GUARD: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        GUARD.set(Some(AtExit(tell)));
        // Both before and after our own thread-locals are made.
        let (runner, batches) = keeping();
        now_or_never(runner.scope(async { after::defer(async {}) }));
        polls_to_end(&mut batches.take_one(), 2);
    })
    .join()
    .unwrap();
    assert_eq!(told.recv().unwrap(), (true, false));
    assert_eq!(told.recv().unwrap(), (true, false));
}

/// Sentences 7 and 13: `into_future` is a user's code: it may defer, and may panic, without harm to the scope.
#[test]
fn into_future_may_defer_and_may_panic() {
    struct Task(bool);
    impl IntoFuture for Task {
        type Output = ();
        type IntoFuture = std::future::Ready<()>;
        fn into_future(self) -> Self::IntoFuture {
            after::defer(std::future::ready(()));
            assert!(!self.0, "told to");
            std::future::ready(())
        }
    }
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::defer(Task(false));
        assert!(catch_unwind(|| after::defer(Task(true))).is_err());
    }));
    polls_to_end(&mut batches.take_one(), 2);
    assert_eq!(balanced(&runner).completed, 3);
}

/// Sentence 11: nested and late work keeps the order's promise.
#[test]
fn sequential_order_holds_for_nested_work() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let request = runner.scope(async {
        for name in ["A", "B"] {
            let log = log.clone();
            after::defer(async move {
                log.add(format!("{name} starts"));
                let nested = log.clone();
                after::defer(async move {
                    nested.add(format!("{name}'s starts"));
                    yields(1).await;
                    nested.add(format!("{name}'s ends"));
                });
                yields(2).await;
                log.add(format!("{name} ends"));
            });
        }
    });
    now_or_never(request.order(Order::Sequential));
    polls_to_end(&mut batches.take_one(), 20);
    log.assert(&[
        "A starts",
        "A ends",
        "B starts",
        "B ends",
        "A's starts",
        "A's ends",
        "B's starts",
        "B's ends",
    ]);
}

/// The order of a Runner is the default of its scopes.
#[test]
fn the_runners_order_is_the_default() {
    let order = |runner: &Runner, request: Option<Order>| {
        let log = Log::new();
        let scope = runner.scope(async {
            for name in ["A", "B"] {
                let log = log.clone();
                after::defer(async move {
                    yields(1).await;
                    log.add(format!("{name} ends"));
                    log.add(format!("{name} is over"));
                    yields(1).await;
                    log.add(format!("{name} has gone"));
                });
            }
        });
        let scope = match request {
            Some(order) => scope.order(order),
            None => scope,
        };
        let ((), mut batch) = now_or_never(scope.held());
        polls_to_end(&mut batch, 20);
        log.entries()[2].clone()
    };
    // The third entry is A's last if A runs alone, and the other task's first if they run at once.
    let sequential = Runner::builder().order(Order::Sequential).build();
    assert_eq!(order(&sequential, None), "A has gone");
    assert_eq!(order(&sequential, Some(Order::Concurrent)), "A ends");
    let concurrent = Runner::builder().build();
    assert_eq!(order(&concurrent, None), "A ends");
}

/// Sentence 16: in a task and its destructors `outcome` answers; in a nested scope of a task it does not.
#[test]
fn outcome_answers_in_tasks_and_their_destructors() {
    struct Sees(Log);
    impl Drop for Sees {
        fn drop(&mut self) {
            self.0.add(format!("{:?}", after::outcome()));
        }
    }
    let (runner, batches) = keeping();
    let log = Log::new();
    assert_eq!(after::outcome(), None);
    now_or_never(runner.scope(async {
        let sees = Sees(log.clone());
        let inner = runner.clone();
        after::defer(async move {
            inner
                .scope(async { assert_eq!(after::outcome(), None) })
                .await;
            drop(sees);
        });
        let sees = Sees(log.clone());
        after::defer(async move {
            let _sees = sees;
            std::future::pending::<()>().await;
        });
    }));
    let mut batch = batches.take_one();
    let _ = poll_once(Pin::new(&mut batch));
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    drop(batch);
    log.assert(&["Some(Finished)", "Some(Finished)"]);
}

/// `Outcome::is_success` is Finished alone.
#[test]
fn only_finished_is_a_success() {
    assert!(Outcome::Finished.is_success());
    for outcome in [Outcome::Failed, Outcome::Cancelled, Outcome::Panicked] {
        assert!(!outcome.is_success());
    }
}

/// A task of an executor that itself runs inside a scope counts as inside that scope, unless it has its own.
#[test]
fn an_executor_inside_a_scope_runs_its_tasks_in_it() {
    let (runner, batches) = keeping();
    let ran = Rc::new(RefCell::new(false));
    now_or_never(runner.scope(async {
        let mut pool = futures::executor::LocalPool::new();
        let spawner = pool.spawner();
        let inner = runner.clone();
        let ran = ran.clone();
        futures::task::LocalSpawnExt::spawn_local(&spawner, async move {
            after::defer(async {});
            inner.scope(async { after::defer(async {}) }).await;
            *ran.borrow_mut() = true;
        })
        .unwrap();
        pool.run();
    }));
    assert!(*ran.borrow());
    let lens: Vec<_> = batches.take_all().iter().map(|batch| batch.len()).collect();
    assert_eq!(lens, [1, 1]);
}
