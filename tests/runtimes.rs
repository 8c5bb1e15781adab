//! The behaviour suite: each test is written once and run on every runtime of the table in `common`.

mod common;

use std::{
    cell::Cell,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use after::{Order, Outcome};
#[cfg(feature = "threads")]
use common::TABLE;
use common::{DefersOnDrop, Log, balanced, yields};
use futures::FutureExt as _;

/// The table names every spawner of the crate, both flavours of tokio, and a bare `block_on`.
#[cfg(feature = "threads")]
#[test]
fn no_runtime_is_missing_from_the_table() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spawner");
    let mut expected = vec!["BlockOn".to_string()];
    for file in std::fs::read_dir(directory).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in source.lines() {
            let Some(name) = line.strip_prefix("impl Spawner for ") else {
                continue;
            };
            match name.trim_end_matches(" {") {
                "Tokio" if cfg!(feature = "tokio") => {
                    expected.extend(["TokioCurrentThread".into(), "TokioMultiThread".into()]);
                }
                "Smol" if cfg!(feature = "smol") => expected.push("Smol".into()),
                "AsyncStd" if cfg!(feature = "async-std") => expected.push("AsyncStd".into()),
                "Tokio" | "Smol" | "AsyncStd" => {}
                // Runs nothing: it is what there is without a runtime and without features.
                "Nowhere" => {}
                other => expected.push(other.into()),
            }
        }
    }
    let mut table: Vec<String> = TABLE.iter().map(|runtime| format!("{runtime:?}")).collect();
    expected.sort();
    table.sort();
    assert_eq!(table, expected);
}

every_runtime! {
    /// Sentence 8: a scope is handed over when its future resolves; N1: the answer does not wait for the tasks.
    async fn tasks_run_once_the_request_is_over(runner) {
        let log = Log::new();
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        let answer = runner
            .scope({
                let log = log.clone();
                async move {
                    after::defer({
                        let log = log.clone();
                        async move {
                            gate.await.unwrap();
                            log.add("task");
                        }
                    });
                    log.add("answer");
                    42
                }
            })
            .await;
        // The request has resolved although its task can't end yet.
        assert_eq!(answer, 42);
        assert_eq!(runner.stats().pending, 1);
        open.send(()).unwrap();
        runner.drain().await;
        log.assert(&["answer", "task"]);
    }

    /// Sentences 2 and 8; N4: what was deferred so far runs when the client goes, its destructors' work included.
    async fn tasks_of_a_dropped_request_run(runner) {
        let log = Log::new();
        let mut request = Box::pin(runner.scope({
            let log = log.clone();
            async move {
                let _guard = DefersOnDrop { log: log.clone(), entry: "destructor" };
                after::defer({
                    let log = log.clone();
                    async move { log.add(format!("task {:?}", after::outcome().unwrap())) }
                });
                std::future::pending::<()>().await;
            }
        }));
        assert!(request.as_mut().now_or_never().is_none());
        drop(request);
        runner.drain().await;
        log.assert(&["task Cancelled", "destructor"]);
    }

    /// Sentences 2 and 8; N5: what was deferred so far runs when the handler panics, and the panic goes on.
    async fn tasks_of_a_panicked_request_run(runner) {
        let log = Log::new();
        let request = runner.scope({
            let log = log.clone();
            async move {
                let _guard = DefersOnDrop { log: log.clone(), entry: "destructor" };
                after::defer({
                    let log = log.clone();
                    async move { log.add(format!("task {:?}", after::outcome().unwrap())) }
                });
                panic!("the handler's");
            }
        });
        let payload = AssertUnwindSafe(request).catch_unwind().await.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"the handler's"));
        runner.drain().await;
        log.assert(&["task Panicked", "destructor"]);
    }

    /// Sentence 2: a destructor may defer on completion, before the hand-over.
    async fn a_destructor_may_defer_on_completion(runner) {
        let log = Log::new();
        runner
            .scope({
                let log = log.clone();
                async move {
                    let _guard = DefersOnDrop { log, entry: "destructor" };
                }
            })
            .await;
        runner.drain().await;
        log.assert(&["destructor"]);
    }

    /// Sentence 3: the innermost scope collects; leaving it restores the outer one.
    async fn nested_scopes_collect_for_themselves(runner) {
        let log = Log::new();
        let note = |entry: String| {
            let log = log.clone();
            async move { log.add(entry) }
        };
        runner
            .scope(async {
                after::context::set("outer");
                runner
                    .scope(async {
                        assert_eq!(after::context::get::<&str>(), None);
                        after::context::set("inner");
                        after::defer(note(format!("{:?}", after::context::get::<&str>())));
                    })
                    .await;
                // The inner request is over: its task runs, the outer's can't yet.
                while runner.stats().completed == 0 {
                    yields(1).await;
                    std::thread::yield_now();
                }
                log.assert(&["Some(\"inner\")"]);
                assert_eq!(after::context::get::<&str>(), Some("outer"));
                after::defer(note("outer".into()));
            })
            .await;
        runner.drain().await;
        log.assert(&["Some(\"inner\")", "outer"]);
    }

    /// Sentence 11; N6: started in order, run concurrently: 60, 30 and 10 steps end in the order C, B, A.
    async fn tasks_start_in_order_and_run_concurrently(runner) {
        let log = Log::new();
        runner
            .scope(async {
                for (name, steps) in [("A", 60), ("B", 30), ("C", 10)] {
                    let log = log.clone();
                    after::defer(async move {
                        log.add(format!("{name} starts"));
                        yields(steps).await;
                        log.add(format!("{name} ends"));
                    });
                }
            })
            .await;
        runner.drain().await;
        log.assert(&["A starts", "B starts", "C starts", "C ends", "B ends", "A ends"]);
    }

    /// Sentence 11: sequential tasks start when the one before has ended, failed or panicked; P2: no failure skips one.
    async fn sequential_tasks_run_one_after_the_other(runner) {
        let log = Log::new();
        let request = runner.scope(async {
            for name in ["A", "B", "C"] {
                let log = log.clone();
                after::defer(async move {
                    log.add(format!("{name} starts"));
                    yields(3).await;
                    log.add(format!("{name} ends"));
                    match name {
                        "A" => panic!("A's"),
                        _ => Err::<(), _>(format!("{name}'s")),
                    }
                });
            }
        });
        request.order(Order::Sequential).await;
        runner.drain().await;
        log.assert(&["A starts", "A ends", "B starts", "B ends", "C starts", "C ends"]);
        let stats = balanced(&runner);
        assert_eq!((stats.panicked, stats.failed), (1, 2));
    }

    /// Sentence 13; N7: a panic, an early panic, an error and a panic of a closure hurt neither siblings nor answer.
    async fn failures_touch_nothing_else(runner) {
        let done = Arc::new(AtomicUsize::new(0));
        let answer = runner
            .scope(async {
                let sibling = |steps| {
                    let done = done.clone();
                    async move {
                        yields(steps).await;
                        done.fetch_add(1, SeqCst);
                    }
                };
                after::defer(sibling(0));
                after::defer(async { panic!("at once") });
                after::defer(async {
                    yields(1).await;
                    panic!("later")
                });
                after::defer(async { Err::<(), _>("an error") });
                after::defer_blocking(|| panic!("of a closure"));
                after::defer_blocking(|| "x".parse::<u8>());
                after::defer(sibling(5));
                let done = done.clone();
                after::defer_blocking(move || {
                    done.fetch_add(1, SeqCst);
                });
                "answer"
            })
            .await;
        assert_eq!(answer, "answer");
        runner.drain().await;
        assert_eq!(done.load(SeqCst), 3);
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.failed, stats.panicked), (3, 2, 3));
    }

    /// Sentence 13: a task whose destructor panics is a panicked one, and nothing more.
    async fn a_task_whose_destructor_panics_is_counted(runner) {
        struct PanicsOnDrop;
        impl Drop for PanicsOnDrop {
            fn drop(&mut self) {
                panic!("a destructor's");
            }
        }
        /// Resolves at once and keeps what it holds until it is dropped.
        struct Keeps(#[allow(dead_code)] PanicsOnDrop);
        impl std::future::Future for Keeps {
            type Output = ();
            fn poll(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<()> {
                std::task::Poll::Ready(())
            }
        }
        runner
            .scope(async {
                after::defer(Keeps(PanicsOnDrop));
                after::defer(async {});
            })
            .await;
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.panicked), (1, 1));
    }

    /// Sentence 13: on the blocking pool scope, context and outcome are current too, and work may be deferred.
    async fn a_blocking_closure_is_in_the_scope(runner) {
        let log = Log::new();
        runner
            .scope(async {
                after::context::set(7_u32);
                let log = log.clone();
                after::defer_blocking(move || {
                    assert!(after::in_scope());
                    assert_eq!(after::context::get::<u32>(), Some(7));
                    assert_eq!(after::outcome(), Some(Outcome::Finished));
                    let thread = std::thread::current().id();
                    log.add("closure");
                    after::defer(async move {
                        log.add(format!("its task, elsewhere: {}", std::thread::current().id() != thread));
                    });
                });
            })
            .await;
        runner.drain().await;
        log.assert(&["closure", "its task, elsewhere: true"]);
        assert_eq!(runner.stats().completed, 2);
    }

    /// Sentence 14; N8: a task may defer again, at any depth, and the inner one does not wait for the outer's end.
    async fn a_task_may_defer_again_at_any_depth(runner) {
        fn nest(depth: usize, log: Log) {
            after::defer(async move {
                if depth > 0 {
                    nest(depth - 1, log.clone());
                }
                log.add(depth.to_string());
            });
        }
        let log = Log::new();
        let (tell, told) = futures::channel::oneshot::channel();
        runner
            .scope(async {
                nest(5, log.clone());
                after::defer(async {
                    // Ends only when the task that it deferred has run.
                    after::defer(async { tell.send(()).unwrap() });
                    told.await.unwrap();
                });
            })
            .await;
        runner.drain().await;
        log.assert(&["5", "4", "3", "2", "1", "0"]);
        assert_eq!(runner.stats().completed, 8);
    }

    /// Sentence 15: a handle defers before, while and after the tasks run; N9: late work is on the account.
    async fn a_handle_defers_before_during_and_after_the_batch(runner) {
        let log = Log::new();
        let note = |entry: &'static str| {
            let log = log.clone();
            async move { log.add(entry) }
        };
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        let mut handle = None;
        runner
            .scope(async {
                handle = Some(after::handle());
                after::defer({
                    let log = log.clone();
                    async move {
                        gate.await.unwrap();
                        log.add("first");
                    }
                });
                let handle = after::handle();
                let before = note("before");
                std::thread::spawn(move || handle.defer(before)).join().unwrap();
            })
            .await;
        let handle = handle.unwrap();
        while log.entries().is_empty() {
            yields(1).await;
            std::thread::yield_now();
        }
        // The batch waits for its gate: what comes now must wake it and join it.
        handle.task("during").defer(note("during"));
        while runner.stats().pending > 1 {
            yields(1).await;
            std::thread::yield_now();
        }
        open.send(()).unwrap();
        runner.drain().await;
        log.assert(&["before", "during", "first"]);

        handle.defer(async { assert_eq!(after::outcome(), Some(Outcome::Finished)) });
        handle.defer(note("after"));
        assert_eq!(runner.stats().deferred, 5);
        runner.drain().await;
        log.assert(&["before", "during", "first", "after"]);
        assert_eq!(balanced(&runner).completed, 5);
    }

    /// Sentence 15: futures and closures that run elsewhere are in the scope of their handle.
    async fn subtasks_defer_into_the_scope_of_their_handle(runner) {
        let log = Log::new();
        runner
            .scope(async {
                after::context::set("shared");
                let mut subtask = Box::pin(after::handle().scope({
                    let log = log.clone();
                    async move {
                        let _guard = DefersOnDrop { log: log.clone(), entry: "its destructor" };
                        assert_eq!(after::context::get::<&str>(), Some("shared"));
                        after::defer(async move { log.add("subtask") });
                        std::future::pending::<()>().await;
                    }
                }));
                let handle = after::handle();
                let closure = log.clone();
                std::thread::spawn(move || {
                    assert!(subtask.as_mut().now_or_never().is_none());
                    assert!(!after::in_scope());
                    drop(subtask);
                    handle.sync_scope(|| after::defer(async move { closure.add("closure") }));
                    assert!(!after::in_scope());
                })
                .join()
                .unwrap();
                log.assert(&[]);
            })
            .await;
        runner.drain().await;
        log.assert(&["subtask", "its destructor", "closure"]);
    }

    /// Sentence 16: in a task, outcome and context answer as they stood at the end of the request, and are frozen.
    async fn the_context_is_frozen_at_the_hand_over(runner) {
        let request = runner.scope(async {
            after::context::set(1_u32);
            after::defer(async {
                assert_eq!(after::outcome(), Some(Outcome::Failed));
                assert_eq!(after::context::get::<u32>(), Some(2));
                assert_eq!(after::context::try_set(3_u32), Err(3));
                assert_eq!(after::context::try_set("another type"), Err("another type"));
                let set = std::panic::catch_unwind(|| after::context::set(4_u32));
                assert!(set.is_err());
                assert_eq!(after::context::get::<u32>(), Some(2));
            });
            after::context::set(2_u32);
            assert_eq!(after::outcome(), None);
            Err::<(), _>("no")
        });
        let _ = request.failed_if(Result::is_err).await;
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 1);
    }

    /// Sentence 18; N18: the memory of finished siblings is freed while one is stuck.
    async fn a_stuck_task_holds_only_itself(runner) {
        let data = Arc::new(());
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        runner
            .scope(async {
                for _ in 0..100 {
                    let data = data.clone();
                    after::defer(async move {
                        yields(2).await;
                        drop(data);
                    });
                }
                after::defer(async move { gate.await.unwrap() });
            })
            .await;
        while runner.stats().pending > 1 {
            yields(1).await;
            std::thread::yield_now();
        }
        assert_eq!(Arc::strong_count(&data), 1);
        open.send(()).unwrap();
        runner.drain().await;
    }

    /// N16: a thousand tasks of one request all run.
    async fn a_thousand_tasks_all_run(runner) {
        let done = Arc::new(AtomicUsize::new(0));
        runner
            .scope(async {
                for step in 0..1_000 {
                    let done = done.clone();
                    after::defer(async move {
                        yields(step % 7).await;
                        done.fetch_add(1, SeqCst);
                    });
                }
            })
            .await;
        runner.drain().await;
        assert_eq!(done.load(SeqCst), 1_000);
        assert_eq!(balanced(&runner).completed, 1_000);
    }

    /// Sentence 19: every snapshot balances, also those that are taken inside a request and inside a task.
    async fn every_snapshot_balances(runner) {
        let inner = runner.clone();
        runner
            .scope(async {
                assert_eq!(balanced(&runner).deferred, 0);
                after::defer(async {});
                assert_eq!(balanced(&runner).pending, 1);
                after::task("keyed").key("k").defer(async {});
                after::task("keyed").key("k").defer(async {});
                assert_eq!(balanced(&runner).discarded, 1);
                after::defer(async move {
                    let stats = balanced(&inner);
                    assert_eq!((stats.deferred, stats.completed, stats.pending), (4, 2, 1));
                    after::defer(async {});
                    assert_eq!(balanced(&inner).pending, 2);
                });
            })
            .await;
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.completed, stats.pending), (5, 4, 0));
    }

    /// Sentence 20: a scope that has collected a task is pending, handed over or not.
    async fn drain_waits_for_requests_that_have_collected_something(runner) {
        let log = Log::new();
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        let request = runner.scope({
            let log = log.clone();
            async move {
                after::defer({
                    let log = log.clone();
                    async move { log.add("task") }
                });
                gate.await.unwrap();
                log.add("answer");
            }
        });
        let drain = async {
            assert!(runner.drain().now_or_never().is_none());
            open.send(()).unwrap();
            runner.drain().await;
            log.add("drained");
        };
        futures::join!(request, drain);
        log.assert(&["answer", "task", "drained"]);
    }

    /// Sentence 20: `shutdown` resolves `stopping` in tasks, accepts what comes meanwhile, and waits for it.
    async fn shutdown_stops_long_tasks_and_waits_for_them(runner) {
        let log = Log::new();
        runner
            .scope(async {
                let log = log.clone();
                after::defer(async move {
                    after::stopping().await;
                    log.add("told to stop");
                    after::defer(async move {
                        // It stays resolved.
                        after::stopping().await;
                        log.add("what it deferred");
                    });
                });
            })
            .await;
        let (first, second) = futures::join!(
            runner.shutdown(Duration::from_secs(60)),
            runner.shutdown(Duration::MAX),
        );
        assert!(first.is_clean() && second.is_clean(), "{first} {second}");
        log.assert(&["told to stop", "what it deferred"]);
        // Nothing is closed.
        runner.scope(async { after::defer(async {}) }).await;
        assert!(runner.shutdown(Duration::from_secs(60)).await.is_clean());
        assert_eq!(balanced(&runner).completed, 3);
    }

    /// Sentence 20; N15: what is unfinished at the limit is named, stays pending and goes on running.
    async fn shutdown_names_what_is_unfinished_at_its_limit(runner) {
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        let line = line!() + 3;
        runner
            .scope(async {
                after::task("stuck").defer(async move { gate.await.unwrap() });
                after::task("quick").defer(async {});
            })
            .await;
        // On a loaded machine it may not have run within the limit.
        while balanced(&runner).completed == 0 {
            yields(1).await;
        }
        let report = runner.shutdown(Duration::from_millis(50)).await;
        assert!(!report.is_clean());
        let [stuck] = report.unfinished() else {
            panic!("one is unfinished: {report}");
        };
        assert_eq!(stuck.name, "stuck");
        assert_eq!((stuck.location.file(), stuck.location.line()), (file!(), line));
        assert!(stuck.age > Duration::ZERO);
        let text = report.to_string();
        assert!(text.contains("1 unfinished after 50ms: `stuck`"), "{text}");
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(balanced(&runner).pending, 1);
        open.send(()).unwrap();
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 2);
    }

    /// Sentence 8: many requests at once, each handed over exactly once.
    async fn each_request_is_handed_over_exactly_once(runner) {
        let done = Arc::new(Mutex::new(vec![0; 100]));
        let requests = (0..100).map(|request| {
            let done = done.clone();
            runner.scope(async move {
                yields(request % 5).await;
                after::defer(async move { done.lock().unwrap()[request] += 1 });
                yields(request % 3).await;
            })
        });
        futures::future::join_all(requests).await;
        runner.drain().await;
        assert!(done.lock().unwrap().iter().all(|runs| *runs == 1));
    }

    /// The list: a scope around a future that is not `Send` works; its tasks are.
    async fn the_request_need_not_be_send(runner) {
        let local = Rc::new(Cell::new(1));
        let ran = Arc::new(AtomicBool::new(false));
        runner
            .scope(async {
                local.set(2);
                yields(1).await;
                let ran = ran.clone();
                after::defer(async move { ran.store(true, SeqCst) });
            })
            .await;
        runner.drain().await;
        assert!(ran.load(SeqCst) && local.get() == 2);
    }

    /// Sentence 15: a closure that comes through a handle runs with the request's tasks, and late by itself; and a handle
    /// knows its Runner, for scopes of one's own.
    async fn a_handle_defers_closures_and_knows_its_runner(runner) {
        let log = Log::new();
        let note = |entry| {
            let log = log.clone();
            move || log.add(format!("{entry}: {:?}", after::outcome()))
        };
        let handle = runner.scope(async {
            let handle = after::handle();
            handle.defer_blocking(note("in the request"));
            handle
        }).await;
        runner.drain().await;
        handle.defer_blocking(note("late"));
        runner.drain().await;
        handle.runner().scope(async { after::defer_blocking(note("of its own")) }).await;
        runner.drain().await;
        log.assert(&[
            "in the request: Some(Finished)",
            "late: Some(Finished)",
            "of its own: Some(Finished)",
        ]);
        assert_eq!(balanced(&runner).completed, 3);
    }
}
