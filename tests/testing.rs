//! The test kit: P7.

mod common;

use std::{panic::AssertUnwindSafe, time::Duration};

use after::{
    Outcome,
    testing::{Recorder, Stuck, capture},
};
use common::{Log, balanced, is_child, standard_error_of, yields};
use futures::FutureExt as _;

every_runtime! {
    /// `capture` gives the output and what was deferred, and runs nothing until it is told to.
    async fn capture_records_and_runs_nothing(_runner) {
        let log = Log::new();
        let request = {
            let log = log.clone();
            async move {
                for name in ["first", "second"] {
                    let log = log.clone();
                    after::task(name).defer(async move { log.add(name) });
                }
                7
            }
        };
        let (answer, recorder) = capture(request).await;
        assert_eq!(answer, 7);
        assert_eq!(recorder.names(), ["first", "second"]);
        assert_eq!((recorder.len(), recorder.is_empty()), (2, false));
        assert!(recorder.contains("second") && !recorder.contains("third"));
        log.assert(&[]);
        recorder.run().await;
        log.assert(&["first", "second"]);
        // What was recorded stays known.
        assert!(recorder.contains("first"));
        // Nothing is left, and nothing runs twice.
        recorder.run().await;
        log.assert(&["first", "second"]);
    }

    /// `run` goes to quiescence: nested work, scopes opened by tasks, late work through a handle, blocking work.
    async fn run_goes_on_until_nothing_is_left(_runner) {
        let recorder = Recorder::new();
        let runner = recorder.runner();
        let log = Log::new();
        runner
            .scope({
                let (log, inner) = (log.clone(), runner.clone());
                async move {
                    after::defer(async move {
                        let handle = after::handle();
                        after::defer({
                            let log = log.clone();
                            async move { log.add("nested") }
                        });
                        inner
                            .scope({
                                let log = log.clone();
                                async move { after::defer(async move { log.add("of a scope inside") }) }
                            })
                            .await;
                        let late = log.clone();
                        after::defer_blocking(move || {
                            handle.defer(async move { late.add("of a closure") });
                        });
                    });
                }
            })
            .await;
        recorder.run().await;
        let mut entries = log.entries();
        entries.sort();
        assert_eq!(entries, ["nested", "of a closure", "of a scope inside"]);
        assert_eq!(balanced(&runner).pending, 0);
    }

    /// `run` panics when all have ended if one failed or panicked, and names them.
    async fn run_panics_if_a_task_failed_or_panicked(_runner) {
        let log = Log::new();
        let (_, recorder) = capture(async {
            after::task("mail").defer(async { Err::<(), _>("no route") });
            after::task("audit").defer(async { panic!("of a task") });
            let log = log.clone();
            after::task("fine").defer(async move {
                yields(3).await;
                log.add("fine");
            });
        })
        .await;
        let run = AssertUnwindSafe(recorder.run()).catch_unwind().await;
        let message = *run.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("2 failed or panicked"), "{message}");
        assert!(message.contains("`mail` (tests/testing.rs:"), "{message}");
        assert!(message.contains("failed: no route"), "{message}");
        assert!(message.contains("panicked: of a task"), "{message}");
        log.assert(&["fine"]);
    }

    /// `run_within` names the stuck tasks, and they can be run further.
    async fn run_within_names_the_stuck_tasks(_runner) {
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        let (_, recorder) = capture(async move {
            after::task("stuck").defer(async move { gate.await.unwrap() });
            after::task("quick").defer(async {});
        })
        .await;
        let stuck: Stuck = recorder.run_within(Duration::from_millis(20)).await.unwrap_err();
        let names: Vec<_> = stuck.unfinished().iter().map(|task| task.name).collect();
        assert_eq!(names, ["stuck"]);
        let text = stuck.to_string();
        assert!(text.starts_with("still unfinished after 20ms: `stuck` (tests/testing.rs:"), "{text}");
        open.send(()).unwrap();
        let stats = recorder.run_within(Duration::from_secs(60)).await.unwrap();
        assert_eq!((stats.completed, stats.pending), (2, 0));
    }

    /// `run_within` does not panic: what failed is in the stats.
    async fn run_within_counts_failures(_runner) {
        let (_, recorder) = capture(async {
            after::defer(async { Err::<(), _>("no") });
            after::defer(async { panic!("no") });
        })
        .await;
        let stats = recorder.run_within(Duration::from_secs(60)).await.unwrap();
        assert_eq!((stats.failed, stats.panicked), (1, 1));
        recorder.run().await;
    }

    /// A recorder is a spawner for any Runner; of a foreign one it knows that tasks failed.
    async fn a_recorder_is_a_spawner_for_any_runner(_runner) {
        let recorder = Recorder::new();
        let runner = after::Runner::builder().spawner(recorder.clone()).build();
        runner.scope(async { after::task("fails").defer(async { Err::<(), _>("no") }) }).await;
        assert!(recorder.contains("fails"));
        let run = AssertUnwindSafe(recorder.run()).catch_unwind().await;
        let message = *run.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("1 failed or panicked; 1 on a Runner"), "{message}");
    }
}

/// Conditions, outcome and context are what they are in production.
#[test]
fn recorded_tasks_know_the_outcome() {
    futures::executor::block_on(async {
        let recorder = Recorder::new();
        let request = recorder.runner().scope(async {
            after::task("receipt").on_success().defer(async {});
            after::task("alarm").on_failure().defer(async {
                assert_eq!(after::outcome(), Some(Outcome::Failed));
            });
            Err::<(), _>("no")
        });
        let _ = request.failed_if(Result::is_err).await;
        assert_eq!(recorder.names(), ["alarm"]);
        recorder.run().await;
        assert_eq!(balanced(&recorder.runner()).discarded, 1);
    });
}

/// A recorder that is dropped with unrun tasks leaves nothing behind.
#[test]
fn what_is_never_run_is_lost_with_the_recorder() {
    futures::executor::block_on(async {
        let (_, recorder) = capture(async { after::defer(async {}) }).await;
        let runner = recorder.runner();
        drop(recorder);
        assert_eq!(balanced(&runner).lost, 1);
        let held = std::sync::Arc::new(());
        let inner = held.clone();
        let (_, recorder) = capture(async move { after::defer(async move { drop(inner) }) }).await;
        drop(recorder);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    });
}

/// A test that looks only at what was deferred need not run it: it is counted as lost, and nothing is said.
#[test]
fn what_is_never_run_is_lost_without_a_word() {
    const TEST: &str = "what_is_never_run_is_lost_without_a_word";
    struct Defers;
    impl Drop for Defers {
        fn drop(&mut self) {
            let _ = after::try_defer(async {});
        }
    }
    if is_child(TEST) {
        futures::executor::block_on(async {
            let (_, recorder) = capture(async {
                for _ in 0..3 {
                    after::task("never run").defer(async {});
                    after::task("never run").spawned().defer(async {});
                }
                after::task("never run").defer_blocking(|| ());
            })
            .await;
            let (runner, clone) = (recorder.runner(), recorder.clone());
            let request = runner.scope(async {
                let defers = Defers;
                after::defer(async move { drop(defers) });
            });
            request.order(after::Order::Parallel).await;
            drop(recorder);
            assert_eq!(balanced(&runner).pending, 8);
            drop(clone);
            assert_eq!(balanced(&runner).lost, 9);
            assert!(runner.shutdown(Duration::from_secs(9)).await.is_clean());
            // What is lost otherwise is reported as ever.
            let runner = after::Runner::builder().build();
            let request = async { after::task("dropped").defer(async {}) };
            drop(runner.scope(request).held().await);
            runner.drain().await;
        });
        return;
    }
    let text = standard_error_of(TEST);
    assert!(!text.contains("never run"), "{text}");
    let lines = text.lines().filter(|line| line.starts_with("after: "));
    assert_eq!(lines.count(), 1, "{text}");
    assert!(text.contains("dropped"), "{text}");
}

/// Time limits of recorded tasks go by the paused clock too.
#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn time_limits_obey_a_paused_clock() {
    let (_, recorder) = capture(async {
        let slow = tokio::time::sleep(Duration::from_secs(60));
        after::task("slow")
            .timeout(Duration::from_secs(10))
            .defer(slow);
        after::defer_blocking(|| ());
    })
    .await;
    let started = tokio::time::Instant::now();
    let stats = recorder.run_within(Duration::from_secs(60)).await.unwrap();
    assert_eq!((stats.timed_out, stats.completed), (1, 1));
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}

/// With tokio's clock paused hours pass at once, and `run_within` measures real time.
#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn a_paused_clock_is_obeyed() {
    let started = tokio::time::Instant::now();
    let (_, recorder) = capture(async {
        after::defer(tokio::time::sleep(Duration::from_secs(3_600)));
    })
    .await;
    let stats = recorder.run_within(Duration::from_secs(60)).await.unwrap();
    assert_eq!(stats.completed, 1);
    assert_eq!(started.elapsed(), Duration::from_secs(3_600));
}

/// A run hears of what is handed over while it waits, on another task of the runtime, say.
#[tokio::test]
async fn run_hears_of_what_is_handed_over_while_it_waits() {
    let recorder = Recorder::new();
    let runner = recorder.runner();
    let inner = runner.clone();
    runner
        .scope(async move {
            after::task("waits").defer(async move {
                let (answer, answered) = tokio::sync::oneshot::channel::<()>();
                tokio::spawn(inner.scope(async move {
                    after::task("answers").defer(async move {
                        let _ = answer.send(());
                    });
                }));
                answered.await
            });
        })
        .await;
    recorder.run().await;
    assert_eq!(balanced(&runner).completed, 2);
}

/// `run_within` keeps to its limit also if tasks hand over others without end.
#[test]
fn run_within_ends_although_more_comes_without_end() {
    async fn again(runner: after::Runner) {
        loop {
            runner.scope(async { after::defer(async {}) }).await;
            yields(1).await;
        }
    }
    let recorder = Recorder::new();
    let runner = recorder.runner();
    let inner = runner.clone();
    futures::executor::block_on(async {
        runner
            .scope(async move { after::task("again").defer(again(inner)) })
            .await;
        let stuck = recorder.run_within(Duration::from_millis(20)).await;
        assert!(stuck.is_err());
    });
}
