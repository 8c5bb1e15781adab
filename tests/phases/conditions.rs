//! Conditions: sentence 12, and rows P1 and P5 of the conformance list.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
};

use after::{Outcome, Runner};

use crate::common::{
    Batches, DefersOnDrop, Log, balanced, keeping, now_or_never, poll_once, polls_to_end, yields,
};

/// Defers one task for each condition, named after it.
fn defer_one_of_each() {
    after::task("always").defer(async {});
    after::task("on success").on_success().defer(async {});
    after::task("on failure").on_failure().defer(async {});
    after::task("finished")
        .when(|outcome| outcome == Outcome::Finished)
        .defer(async {});
    after::task("failed")
        .when(|outcome| outcome == Outcome::Failed)
        .defer(async {});
    after::task("cancelled")
        .when(|outcome| outcome == Outcome::Cancelled)
        .defer(async {});
    after::task("panicked")
        .when(|outcome| outcome == Outcome::Panicked)
        .defer(async {});
}

/// Ends a request as `outcome` says, with one task of each condition.
fn end_as(outcome: Outcome, runner: &Runner) {
    match outcome {
        Outcome::Finished => now_or_never(runner.scope(async { defer_one_of_each() })),
        Outcome::Failed => {
            let request = runner.scope(async {
                defer_one_of_each();
                Err::<(), _>("no")
            });
            assert!(now_or_never(request.failed_if(Result::is_err)).is_err());
        }
        Outcome::Cancelled => {
            let mut request = Box::pin(runner.scope(async {
                defer_one_of_each();
                std::future::pending::<()>().await;
            }));
            assert!(poll_once(request.as_mut()).is_pending());
        }
        Outcome::Panicked => {
            let request = runner.scope(async {
                defer_one_of_each();
                panic!("the handler's");
            });
            assert!(catch_unwind(AssertUnwindSafe(|| now_or_never(request))).is_err());
        }
        _ => unreachable!("no other outcome"),
    }
}

fn names(batch: &after::Batch) -> Vec<String> {
    batch.names().map(String::from).collect()
}

/// The only batch, run to its end.
fn run_one(batches: &Batches) {
    polls_to_end(&mut batches.take_one(), 20);
}

/// Sentence 12; P5: on success, on failure, always, and any predicate, for each way in which a request ends.
#[test]
fn a_condition_is_decided_on_the_outcome() {
    for (outcome, expected) in [
        (Outcome::Finished, ["always", "on success", "finished"]),
        (Outcome::Failed, ["always", "on failure", "failed"]),
        (Outcome::Cancelled, ["always", "on failure", "cancelled"]),
        (Outcome::Panicked, ["always", "on failure", "panicked"]),
    ] {
        let (runner, batches) = keeping();
        end_as(outcome, &runner);
        let mut batch = batches.take_one();
        assert_eq!(names(&batch), expected, "{outcome:?}");
        assert_eq!(batch.len(), 3);
        assert_eq!(
            balanced(&runner).discarded,
            4,
            "decided at the hand-over, before the spawner gets the batch"
        );
        polls_to_end(&mut batch, 3);
        let stats = balanced(&runner);
        assert_eq!(
            (stats.deferred, stats.completed, stats.discarded),
            (7, 3, 4)
        );
    }
}

every_runtime! {
    /// Sentence 12: the same through every runtime's spawner, with `outcome()` in the task.
    async fn only_the_tasks_whose_condition_holds_run(runner) {
        let log = Log::new();
        let note = |entry: &'static str| {
            let log = log.clone();
            async move { log.add(format!("{entry} {:?}", after::outcome().unwrap())) }
        };
        let request = |result: Result<(), &'static str>| runner.scope(async move {
            yields(1).await;
            after::task("receipt").on_success().defer(note("receipt"));
            after::task("alarm").on_failure().defer(note("alarm"));
            result
        });
        let _ = request(Ok(())).failed_if(Result::is_err).await;
        runner.drain().await;
        let _ = request(Err("no")).failed_if(Result::is_err).await;
        runner.drain().await;
        log.assert(&["receipt Finished", "alarm Failed"]);
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.completed, stats.discarded), (4, 2, 2));
    }
}

/// Sentence 12: a plain scope that resolves to `Err` is Finished unless `failed_if` says otherwise.
#[test]
fn an_error_alone_is_no_failure() {
    let (runner, batches) = keeping();
    let _ = now_or_never(runner.scope(async {
        after::task("success").on_success().defer(async {});
        after::task("failure").on_failure().defer(async {});
        Err::<(), _>("no")
    }));
    assert_eq!(names(&batches.take_one()), ["success"]);
}

/// The trap of section 5: a `failed_if` that panics makes the outcome Panicked, for conditions too.
#[test]
fn a_failed_if_that_panics_decides_as_a_panic() {
    let (runner, batches) = keeping();
    let request = runner.scope(async {
        after::task("success").on_success().defer(async {});
        after::task("panicked")
            .when(|outcome| outcome == Outcome::Panicked)
            .defer(async {});
    });
    let request = request.failed_if(|()| panic!("a predicate's"));
    assert!(catch_unwind(AssertUnwindSafe(|| now_or_never(request))).is_err());
    assert_eq!(names(&batches.take_one()), ["panicked"]);
}

/// Sentence 12: the last condition that is set counts.
#[test]
fn the_last_condition_counts() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        let failure_last = after::task("a").on_success().on_failure();
        failure_last.defer(async {});
        let success_last = after::task("b").on_failure().when(|_| false).on_success();
        success_last.defer(async {});
    }));
    assert_eq!(names(&batches.take_one()), ["b"]);
}

/// Sentence 12, item 1 of the issue: the destructors of discarded tasks may defer, at any depth, and that work runs.
#[test]
fn what_destructors_of_discarded_tasks_defer_runs() {
    /// Defers, when dropped, a task that is discarded in turn, `depth` times over.
    struct Chain(usize, Log);
    impl Drop for Chain {
        fn drop(&mut self) {
            let (depth, log) = (self.0, self.1.clone());
            if depth == 0 {
                let _ = after::try_defer(async move { log.add("end of the chain") });
                return;
            }
            let next = Chain(depth - 1, log);
            let task = async move { drop(next) };
            let _ = after::task("link").on_failure().try_defer(task);
        }
    }
    for with_handle in [false, true] {
        let (runner, batches) = keeping();
        let log = Log::new();
        now_or_never(runner.scope(async {
            if with_handle {
                drop(after::handle());
            }
            let chain = Chain(3, log.clone());
            after::task("link")
                .on_failure()
                .defer(async move { drop(chain) });
        }));
        let mut batch = batches.take_one();
        assert_eq!(batch.len(), 1, "what is left of it: the end of the chain");
        polls_to_end(&mut batch, 3);
        log.assert(&["end of the chain"]);
        let stats = balanced(&runner);
        assert_eq!(
            (stats.deferred, stats.discarded, stats.completed),
            (5, 4, 1)
        );
        assert_eq!(stats.pending, 0);
    }
}

/// Sentence 12: a scope of which nothing is to run hands over nothing, and nothing of it stays pending.
#[test]
fn a_scope_of_which_nothing_runs_hands_over_nothing() {
    for with_handle in [false, true] {
        let (runner, batches) = keeping();
        let mut handle = None;
        now_or_never(runner.scope(async {
            handle = with_handle.then(after::handle);
            after::task("a").on_failure().defer(async {});
            after::task("b").on_failure().spawned().defer(async {});
            after::task("c").on_failure().defer_blocking(|| ());
        }));
        assert_eq!(batches.len(), 0);
        now_or_never(runner.drain());
        assert_eq!(balanced(&runner).discarded, 3);
        if let Some(handle) = handle {
            handle.defer(async {});
            run_one(&batches);
            assert_eq!(balanced(&runner).completed, 1, "late work is a batch");
        }
    }
}

/// A discarded task is dropped with its scope current; a destructor that panics hurts neither siblings nor answer.
#[test]
fn a_discarded_task_is_dropped_with_its_scope_current() {
    struct Reads(Log);
    impl Drop for Reads {
        fn drop(&mut self) {
            let (outcome, value) = (after::outcome(), after::context::get::<u8>());
            self.0.add(format!("{outcome:?} {value:?}"));
            panic!("a discarded task's");
        }
    }
    let (runner, batches) = keeping();
    let log = Log::new();
    let answer = now_or_never(runner.scope(async {
        after::context::set(7_u8);
        let reads = Reads(log.clone());
        after::task("a")
            .on_failure()
            .defer(async move { drop(reads) });
        after::task("b").defer(async {});
        "answer"
    }));
    assert_eq!(answer, "answer");
    log.assert(&["Some(Finished) Some(7)"]);
    run_one(&batches);
    let stats = balanced(&runner);
    assert_eq!((stats.discarded, stats.completed), (1, 1));
}

/// The trap of section 5: a `when` that panics: its task counts as panicked and does not run, its siblings do.
#[test]
fn a_condition_that_panics_costs_only_its_own_task() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let answer = now_or_never(runner.scope(async {
        let (ran, guard) = (log.clone(), log.clone());
        let guard = DefersOnDrop {
            log: guard,
            entry: "destructor",
        };
        after::task("a").defer(async {});
        after::task("b")
            .when(|_| panic!("a condition's"))
            .defer(async move {
                drop(guard);
                ran.add("never");
            });
        after::task("c").on_success().defer(async {});
        42
    }));
    assert_eq!(answer, 42);
    assert_eq!(balanced(&runner).panicked, 1);
    run_one(&batches);
    log.assert(&["destructor"]);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.completed, stats.panicked), (4, 3, 1));
}

/// The trap of section 5: a `when` may defer, and what it defers is of its request.
#[test]
fn a_condition_may_defer() {
    fn defers(outcome: Outcome) -> bool {
        after::task("of the condition").on_success().defer(async {});
        outcome.is_success()
    }
    for with_handle in [false, true] {
        let (runner, batches) = keeping();
        now_or_never(runner.scope(async {
            if with_handle {
                drop(after::handle());
            }
            after::task("a").when(defers).defer(async {
                // At the join, too.
                after::task("nested").when(defers).defer(async {});
            });
        }));
        let mut batch = batches.take_one();
        assert_eq!(names(&batch), ["a", "of the condition"]);
        polls_to_end(&mut batch, 20);
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.completed), (4, 4));
        assert_eq!(stats.pending, 0);
    }
}

/// The trap of section 5: conditions of nested tasks are decided when they join.
#[test]
fn conditions_of_nested_tasks_are_decided_when_they_join() {
    let (runner, batches) = keeping();
    let log = Log::new();
    now_or_never(runner.scope(async {
        let log = log.clone();
        after::defer(async move {
            let (good, bad) = (log.clone(), log.clone());
            let guard = DefersOnDrop {
                log: log.clone(),
                entry: "destructor of the discarded",
            };
            after::task("good")
                .on_success()
                .defer(async move { good.add("good") });
            after::task("bad").on_failure().defer(async move {
                drop(guard);
                bad.add("bad");
            });
            after::task("panics")
                .when(|_| panic!("a nested condition's"))
                .defer(async {});
        });
    }));
    run_one(&batches);
    log.assert(&["good", "destructor of the discarded"]);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.completed), (5, 3));
    assert_eq!((stats.discarded, stats.panicked), (1, 1));
}

/// The trap of section 5: so are those of tasks deferred through a handle while the batch runs.
#[test]
fn conditions_of_tasks_that_join_by_a_handle_are_decided_then() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let (open, gate) = futures::channel::oneshot::channel::<()>();
    let mut handle = None;
    now_or_never(runner.scope(async {
        handle = Some(after::handle());
        after::defer(async move { gate.await.unwrap() });
    }));
    let handle = handle.unwrap();
    let mut batch = batches.take_one();
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    let (good, bad) = (log.clone(), log.clone());
    handle
        .task("good")
        .on_success()
        .defer(async move { good.add("good") });
    handle
        .task("bad")
        .on_failure()
        .defer(async move { bad.add("bad") });
    assert_eq!(balanced(&runner).discarded, 0);
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(balanced(&runner).discarded, 1);
    open.send(()).unwrap();
    polls_to_end(&mut batch, 5);
    log.assert(&["good"]);
    assert_eq!(balanced(&runner).completed, 2);
}

/// The trap of section 5: and those of late tasks, each at its own hand-over.
#[test]
fn conditions_of_late_tasks_are_decided_at_once() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut handle = None;
    let request = runner.scope(async {
        handle = Some(after::handle());
        after::defer(async {});
        Err::<(), _>("no")
    });
    let _ = now_or_never(request.failed_if(Result::is_err));
    run_one(&batches);
    let handle = handle.unwrap();
    let guard = DefersOnDrop {
        log: log.clone(),
        entry: "destructor",
    };
    handle.task("late").on_success().defer(async move {
        drop(guard);
    });
    // Outside any scope, and yet of this one: a discarded task is dropped with its scope current.
    let mut batch = batches.take_one();
    assert_eq!(batch.len(), 1);
    polls_to_end(&mut batch, 3);
    log.assert(&["destructor"]);
    let late = log.clone();
    handle
        .task("late")
        .on_failure()
        .defer(async move { late.add("late") });
    run_one(&batches);
    log.assert(&["destructor", "late"]);
    let stats = balanced(&runner);
    assert_eq!(
        (stats.deferred, stats.completed, stats.discarded),
        (4, 3, 1)
    );
    assert_eq!(stats.pending, 0);
}

/// The trap of section 5: of a held batch before it is given out, so that `len` and `names` are what will run.
#[test]
fn a_held_batch_names_what_will_run() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let guard = DefersOnDrop {
        log: log.clone(),
        entry: "destructor",
    };
    let ((), batch) = now_or_never(
        runner
            .scope(async {
                after::task("a").on_success().defer(async {});
                after::task("b")
                    .on_failure()
                    .defer(async move { drop(guard) });
                after::task("c").spawned().on_success().defer(async {});
                after::task("d").spawned().on_failure().defer(async {});
                after::task("e").defer_blocking(|| ());
            })
            .held(),
    );
    assert_eq!(batch.len(), 4);
    let names = names(&batch);
    assert_eq!(names[..3], ["a", "c", "e"]);
    assert!(
        names[3].contains("DefersOnDrop"),
        "named after its type: {names:?}"
    );
    assert_eq!(balanced(&runner).discarded, 2);
    batch.release();
    assert_eq!(batches.len(), 2, "the spawned one apart");
    drop(batches.take_all());

    let ((), batch) = now_or_never(
        runner
            .scope(async { after::task("a").on_failure().defer(async {}) })
            .held(),
    );
    assert!(batch.is_empty());
    assert_eq!(batch.names().count(), 0);
    batch.release();
    assert_eq!(batches.len(), 0);
    assert_eq!(balanced(&runner).pending, 0);
}

/// P1: a key replaces the earlier task with its condition; the later one's condition decides.
#[test]
fn a_key_and_a_condition_go_together() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        let first = after::task("first").key("a").on_success();
        first.defer(async {});
        // The replaced one does not come back when its successor is discarded: last one wins.
        let second = after::task("second").key("a").on_failure();
        second.defer(async {});
        let third = after::task("third").key("b").on_failure();
        third.defer(async {});
        let fourth = after::task("fourth").key("b").on_success();
        fourth.defer(async {});
        let fifth = after::task("fifth").key("c").on_success();
        fifth.defer(async {});
        assert!(after::forget("c"));
        after::task("sixth").key("d").defer(async {
            // Nested, too: a key names what has not joined.
            let nested = after::task("nested").key("n").on_success();
            nested.defer(async {});
            let nested = after::task("nested again").key("n").on_failure();
            nested.defer(async {});
        });
    }));
    let mut batch = batches.take_one();
    assert_eq!(names(&batch), ["fourth", "sixth"]);
    polls_to_end(&mut batch, 4);
    let stats = balanced(&runner);
    assert_eq!(
        (stats.deferred, stats.completed, stats.discarded),
        (8, 2, 6)
    );
}

/// P1: Laravel's deferred functions run only on success unless `always()`; nested ones were dropped. Here neither.
#[test]
fn without_a_condition_tasks_run_however_the_request_ends() {
    for outcome in [
        Outcome::Finished,
        Outcome::Failed,
        Outcome::Cancelled,
        Outcome::Panicked,
    ] {
        let (runner, batches) = keeping();
        end_as(outcome, &runner);
        assert!(batches.take_one().names().any(|name| name == "always"));
    }
}

/// Sentence 12: a nested scope's conditions are decided on its own outcome.
#[test]
fn a_nested_scope_decides_on_its_own_outcome() {
    let (runner, batches) = keeping();
    let _ = now_or_never(
        runner
            .scope(async {
                after::task("outer").on_failure().defer(async {});
                runner
                    .scope(async { after::task("inner").on_success().defer(async {}) })
                    .await;
                assert_eq!(names(&batches.take_one()), ["inner"]);
                Err::<(), _>("no")
            })
            .failed_if(Result::is_err),
    );
    assert_eq!(names(&batches.take_one()), ["outer"]);
}

/// Sentence 12 and the roster: what was discarded is not named as unfinished.
#[test]
fn discarded_tasks_are_not_on_the_roster() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::task("a").on_failure().defer(async {});
        after::task("b").defer(std::future::pending::<()>());
    }));
    let limit = std::time::Duration::from_millis(1);
    let report = futures::executor::block_on(runner.shutdown(limit));
    let unfinished: Vec<_> = report.unfinished().iter().map(|task| task.name).collect();
    assert_eq!(unfinished, ["b"]);
    drop(batches.take_one());
    assert_eq!(balanced(&runner).lost, 1);
}
