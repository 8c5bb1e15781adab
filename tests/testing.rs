//! The test kit: P7.

mod common;

use std::{cell::Cell, panic::AssertUnwindSafe, sync::Once, time::Duration};

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
        assert!(message.contains("2 did not complete"), "{message}");
        assert!(message.contains("`mail` (deferred at tests/testing.rs:"), "{message}");
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
        assert!(message.contains("1 did not complete; 1 on a Runner"), "{message}");
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

/// What a test is told: the text of the panic, and the line of this file where it was.
async fn panic_of(run: impl Future<Output = ()>) -> (String, u32) {
    thread_local! {
        static LINE: Cell<u32> = const { Cell::new(0) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().filter(|place| place.file() == file!());
            LINE.set(place.map_or(0, |place| place.line()));
            before(panic);
        }));
    });
    let panicked = AssertUnwindSafe(run).catch_unwind().await;
    let payload = panicked.expect_err("it panics");
    (
        payload.downcast_ref::<String>().unwrap().clone(),
        LINE.get(),
    )
}

every_runtime! {
    /// A test that has not read its response has run nothing: it is told so, and what to do.
    async fn run_panics_while_a_request_is_open(_runner) {
        let recorder = Recorder::new();
        let mut request = recorder.runner().open();
        // Nothing is deferred yet: nothing was missed.
        recorder.run().await;
        request.enter(|| after::task("audit").defer(async {}));
        let (text, line) = panic_of(async {
            recorder.run().await
        })
        .await;
        assert_eq!(
            text,
            "1 task belongs to a request that has not ended: read its response's body to the end, or drop it, which makes \
             the request cancelled"
        );
        assert_eq!(line, line!() - 8, "at the line of the caller's await");
        request.end(Outcome::Finished);
        recorder.run().await;
        assert_eq!(recorder.runner().stats().completed, 1);
    }

    /// A batch that the test holds is not run either.
    async fn run_panics_while_a_batch_is_held(_runner) {
        let recorder = Recorder::new();
        let request = async { after::task("audit").defer(async {}) };
        let ((), batch) = recorder.runner().scope(request).held().await;
        let (text, _) = panic_of(recorder.run()).await;
        assert_eq!(text, "1 task belongs to a batch that is held: release it, or await it");
        let stuck = recorder.run_within(Duration::ZERO).await.unwrap_err();
        assert!(stuck.unfinished().is_empty());
        assert_eq!(
            stuck.to_string(),
            "still unfinished after 0ns: 1 task belongs to a batch that is held: release it, or await it"
        );
        batch.release();
        recorder.run().await;
    }

    /// `run_within` waits for a request that is open, and runs what it hands over; at the limit it says what is open.
    async fn run_within_waits_for_an_open_request(_runner) {
        let recorder = Recorder::new();
        let mut request = recorder.runner().open();
        request.enter(|| after::task("audit").defer(async {}));
        let stuck = recorder.run_within(Duration::ZERO).await.unwrap_err();
        assert!(stuck.to_string().contains("1 task belongs to a request that has not ended"), "{stuck}");
        let mut run = Box::pin(recorder.run_within(Duration::from_secs(3_600)));
        assert!(common::poll_once(run.as_mut()).is_pending());
        request.end(Outcome::Finished);
        assert_eq!(run.await.unwrap().completed, 1);
    }

    /// What timed out, was lost or was shed is a failure of the test too; the place of the `defer` and the key say which.
    async fn run_panics_for_whatever_did_not_complete(_runner) {
        let recorder = Recorder::new();
        let runner = recorder.runner();
        runner.scope(async {
            after::task("slow").key("user:7").timeout(Duration::ZERO).defer(std::future::pending::<()>());
            after::task("fine").defer(async {});
        })
        .await;
        let place = recorder.tasks()[0].location;
        let (text, line) = panic_of(async {
            recorder.run().await
        })
        .await;
        assert_eq!(
            text,
            format!("of the recorded tasks 1 did not complete; `slow` (key `user:7`, deferred at {place}) timed out")
        );
        assert_eq!(line, line!() - 7);

        let ((), batch) = runner.scope(async { after::task("left").defer(async {}) }).held().await;
        drop(batch);
        let (text, _) = panic_of(recorder.run()).await;
        assert!(text.contains("`left` (deferred at "), "{text}");
        assert!(text.ends_with("was lost"), "{text}");
        // Said once.
        recorder.run().await;
    }

    /// Of a Runner that is not the recorder's it knows how many.
    async fn run_panics_for_what_timed_out_on_another_runner(_runner) {
        let recorder = Recorder::new();
        let runner = after::Runner::builder().spawner(recorder.clone()).task_timeout(Duration::from_nanos(1)).build();
        runner.scope(async { after::task("slow").defer(std::future::pending::<()>()) }).await;
        let (text, _) = panic_of(recorder.run()).await;
        assert_eq!(text, "of the recorded tasks 1 did not complete; 1 on a Runner that is not the recorder's");
    }

    /// A failure is told with its causes.
    async fn a_failure_is_told_with_its_causes(_runner) {
        let (_, recorder) = capture(async {
            after::task("mail").defer(async { Err::<(), _>(Because("sending mail", Some(&Because("connection refused", None)))) });
        })
        .await;
        let (text, _) = panic_of(recorder.run()).await;
        assert!(text.ends_with("failed: sending mail: connection refused"), "{text}");
    }

    /// `tasks` has what `names` has, with keys and places; also of a Runner that tells nobody of its tasks.
    async fn tasks_are_recorded_with_their_keys_and_places(_runner) {
        let recorder = Recorder::new();
        let plain = after::Runner::new(recorder.clone());
        for runner in [recorder.runner(), plain] {
            runner.scope(async {
                after::task("audit").defer(async {});
                after::task("mail").key("user:7").defer(async {});
            })
            .await;
        }
        let tasks = recorder.tasks();
        let seen: Vec<_> = tasks.iter().map(|task| (task.name, task.key.as_deref())).collect();
        let once = [("audit", None), ("mail", Some("user:7"))];
        assert_eq!(seen, [once, once].concat());
        assert!(tasks.iter().all(|task| task.location.file() == file!()));
        assert_eq!(tasks[1].location.line(), tasks[0].location.line() + 1);
        recorder.run().await;
    }

    /// `Debug` lists what was recorded and what has run.
    async fn debug_says_what_has_run(_runner) {
        let recorder = Recorder::new();
        let runner = recorder.runner();
        let stuck = || std::future::pending::<()>();
        runner.scope(async {
            after::task("audit").defer(async {});
            after::task("mail").key("user:7").defer(stuck());
        })
        .await;
        assert_eq!(
            format!("{recorder:?}"),
            r#"Recorder {"audit": not run, "mail": not run (key "user:7")}"#
        );
        recorder.run_within(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(
            format!("{recorder:?}"),
            r#"Recorder {"audit": has run, "mail": not run (key "user:7")}"#
        );
        recorder.clear();
        runner.scope(async { after::task("last").defer(async {}) }).await;
        recorder.run().await;
        assert_eq!(format!("{recorder:?}"), r#"Recorder {"last": has run}"#);
    }

    /// `clear` begins anew: what has not run is dropped, and no failure of it.
    async fn clear_forgets_what_was_recorded(_runner) {
        let recorder = Recorder::new();
        let runner = recorder.runner();
        let alive = std::sync::Arc::new(());
        let task = alive.clone();
        runner.scope(async {
            after::task("set up").defer(async move { drop(task) });
            after::task("apart").spawned().defer(async {});
        })
        .await;
        recorder.clear();
        assert_eq!(std::sync::Arc::strong_count(&alive), 1, "it is dropped");
        assert!(recorder.is_empty() && recorder.tasks().is_empty());
        recorder.run().await;
        let stats = balanced(&runner);
        assert_eq!((stats.lost, stats.pending), (2, 0));
        runner.scope(async { after::task("audit").defer(async {}) }).await;
        assert_eq!(recorder.names(), ["audit"]);
        recorder.run().await;
    }
}

/// An error with a cause.
#[derive(Debug)]
struct Because(&'static str, Option<&'static Because>);

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Because {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.map(|cause| cause as _)
    }
}

/// What is cleared while it is run goes on, and is not on the new list.
#[test]
fn what_is_cleared_while_it_runs_goes_on() {
    let recorder = Recorder::new();
    let runner = recorder.runner();
    let (answer, question) = futures::channel::oneshot::channel::<()>();
    common::now_or_never(runner.scope(async {
        after::task("asks").defer(async move { question.await.unwrap_or_default() });
    }));
    let mut run = Box::pin(recorder.run());
    for _ in 0..3 {
        assert!(common::poll_once(run.as_mut()).is_pending());
    }
    recorder.clear();
    assert!(recorder.is_empty());
    common::now_or_never(runner.scope(async { after::task("audit").defer(async {}) }));
    drop(answer);
    common::polls_to_end(&mut run, 10);
    assert_eq!(format!("{recorder:?}"), r#"Recorder {"audit": has run}"#);
    assert_eq!(runner.stats().completed, 2);
}
