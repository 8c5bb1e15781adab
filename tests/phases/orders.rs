//! `Order::Parallel` and `spawned()`: sentences 9 and 11.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use after::{Batch, Order, Outcome};

use crate::common::{
    self, DefersOnDrop, Log, balanced, keeping, keeping_with, now_or_never, poll_once,
    polls_to_end, yields,
};

fn names(batch: &Batch) -> Vec<String> {
    batch.names().map(String::from).collect()
}

/// Sentence 9: each task marked `spawned()` is one call of the spawner; all others together are one.
#[test]
fn each_spawned_task_is_a_call_of_its_own() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::task("a").defer(async {});
        after::task("b").spawned().defer(async {});
        after::task("c").defer(async {});
        after::task("d").spawned().defer(async {});
        after::task("e").spawned().defer_blocking(|| ());
    }));
    let batches = batches.take_all();
    assert_eq!(batches.len(), 4);
    let mut split: Vec<_> = batches.iter().map(names).collect();
    split.sort();
    assert_eq!(split, [vec!["a", "c"], vec!["b"], vec!["d"], vec!["e"]]);
    drop(batches);
    assert_eq!(balanced(&runner).lost, 5);
}

/// Sentences 9 and 11: under `Parallel` every task is, and the calls come in the order of deferral.
#[test]
fn under_parallel_each_task_is_a_call_in_the_order_of_deferral() {
    let (runner, batches) = keeping_with(|builder| builder.order(Order::Parallel));
    now_or_never(runner.scope(async {
        after::task("a").defer(async {});
        after::task("b").key("b").defer(async {});
        after::task("c").spawned().defer(async {});
        after::task("d").on_success().defer(async {});
        after::task("e").on_failure().defer(async {});
    }));
    let batches = batches.take_all();
    let calls: Vec<_> = batches.iter().map(names).collect();
    assert_eq!(calls, [["a"], ["b"], ["c"], ["d"]]);
    for mut batch in batches {
        polls_to_end(&mut batch, 2);
    }
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.discarded), (4, 1));
    assert_eq!(stats.pending, 0);
}

/// Sentence 9: a handle in the scope adds no call of the spawner without a task.
#[test]
fn under_parallel_no_call_is_without_a_task() {
    let (runner, batches) = keeping();
    let request = runner.scope(async {
        drop(after::handle());
        after::task("a").defer(async {});
        after::task("b").defer(async {});
    });
    now_or_never(request.order(Order::Parallel));
    let calls: Vec<_> = batches.take_all().iter().map(Batch::len).collect();
    assert_eq!(calls, [1, 1]);
}

/// Sentence 11: `Scope::order` goes over the Runner's default, both ways.
#[test]
fn the_order_of_a_scope_goes_over_that_of_its_runner() {
    let defers = || async {
        after::defer(async {});
        after::defer(async {});
    };
    let (runner, batches) = keeping_with(|builder| builder.order(Order::Parallel));
    now_or_never(runner.scope(defers()));
    assert_eq!(batches.take_all().len(), 2);
    now_or_never(runner.scope(defers()).order(Order::Concurrent));
    assert_eq!(batches.take_all().len(), 1);
    let (runner, batches) = keeping();
    now_or_never(runner.scope(defers()));
    assert_eq!(batches.take_all().len(), 1);
    now_or_never(runner.scope(defers()).order(Order::Parallel));
    assert_eq!(batches.take_all().len(), 2);
}

/// Sentence 16: outcome and context are visible in what was split off, and frozen.
#[test]
fn what_is_split_off_has_outcome_and_context() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let request = runner.scope(async {
        after::context::set("of the request");
        let reads = |log: Log| async move {
            let (outcome, value) = (after::outcome(), after::context::get::<&str>());
            assert_eq!(after::context::try_set("again"), Err("again"));
            log.add(format!("{outcome:?} {value:?}"));
        };
        let (first, nested) = (log.clone(), log.clone());
        after::task("a").spawned().defer(async move {
            reads(first).await;
            after::task("nested").spawned().defer(reads(nested));
        });
        let third = log.clone();
        after::task("b").spawned().defer_blocking(move || {
            let (outcome, value) = (after::outcome(), after::context::get::<&str>());
            third.add(format!("{outcome:?} {value:?}"));
        });
        Err::<(), _>("no")
    });
    let _ = now_or_never(request.failed_if(Result::is_err));
    let mut apart = batches.take_all();
    let mut blocking = apart.pop().unwrap();
    polls_to_end(&mut apart[0], 3);
    polls_to_end(&mut batches.take_one(), 3);
    futures::executor::block_on(&mut blocking);
    log.assert(&["Some(Failed) Some(\"of the request\")"; 3]);
    assert_eq!(balanced(&runner).completed, 3);
}

/// Sentence 11: nested work under `Parallel` is spawned apart too, at any depth; its outer one does not wait for it.
#[test]
fn nested_work_under_parallel_is_spawned_apart() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let request = runner.scope(async {
        let log = log.clone();
        after::defer(async move {
            log.add("outer");
            after::defer(async move {
                log.add("inner");
                after::defer(async move { log.add("innermost") });
            });
        });
    });
    now_or_never(request.order(Order::Parallel));
    for entries in 1..=3 {
        let mut batch = batches.take_one();
        assert_eq!(log.entries().len(), entries - 1);
        polls_to_end(&mut batch, 3);
        assert_eq!(log.entries().len(), entries);
    }
    assert_eq!(batches.len(), 0);
    log.assert(&["outer", "inner", "innermost"]);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 14: what a spawned task defers is of its own batch, and starts in order.
#[test]
fn what_a_spawned_task_defers_joins_its_batch() {
    let (runner, batches) = keeping();
    let log = Log::new();
    now_or_never(runner.scope(async {
        let log = log.clone();
        after::task("outer").spawned().defer(async move {
            for name in ["a", "b"] {
                let log = log.clone();
                after::task(name).defer(async move { log.add(name) });
            }
            yields(2).await;
            log.add("outer");
        });
    }));
    let mut batch = batches.take_one();
    polls_to_end(&mut batch, 10);
    log.assert(&["a", "b", "outer"]);
    assert_eq!(balanced(&runner).completed, 3);
}

/// Sentences 11 and 19: so many nested tasks that each gets a waker: a spawned task is not lost among them.
#[test]
fn a_spawned_task_among_many_nested_ones_is_not_lost() {
    for place in [0, 3] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        now_or_never(runner.scope(async {
            for _ in 0..place {
                after::defer(async {});
            }
            let log = log.clone();
            after::task("outer").spawned().defer(async move {
                for _ in 0..50 {
                    after::defer(yields(3));
                }
                gate.await.unwrap();
                log.add("outer");
            });
        }));
        for mut batch in batches.take_all() {
            if batch.names().all(|name| name != "outer") {
                polls_to_end(&mut batch, 3);
                continue;
            }
            for _ in 0..20 {
                assert!(poll_once(Pin::new(&mut batch)).is_pending());
            }
            assert_eq!(batch.len(), 1, "its gate is closed");
            assert_eq!(names(&batch), ["outer"]);
            batches.push(batch);
        }
        open.send(()).unwrap();
        polls_to_end(&mut batches.take_one(), 20);
        log.assert(&["outer"]);
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.pending), (51 + place, 0));
    }
}

/// Sentence 20: the report of a shutdown names what is unfinished of a spawned task's batch, and nothing else.
#[test]
fn the_roster_tells_a_spawned_task_from_what_it_defers() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::defer(async {});
        after::task("outer").spawned().defer(async {
            after::task("nested, stuck").defer(std::future::pending::<()>());
            after::task("nested, quick").defer(async {});
            yields(1).await;
        });
    }));
    let mut kept = batches.take_all();
    for batch in &mut kept {
        for _ in 0..5 {
            let _ = poll_once(Pin::new(batch));
        }
    }
    let limit = std::time::Duration::from_millis(1);
    let report = futures::executor::block_on(runner.shutdown(limit));
    let unfinished: Vec<_> = report.unfinished().iter().map(|task| task.name).collect();
    assert_eq!(unfinished, ["nested, stuck"]);
}

/// Sentence 15: late work keeps the order: under `Parallel` each is a call, in `Concurrent` a batch of its own too.
#[test]
fn late_work_keeps_the_order() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut handle = None;
    let request = runner.scope(async {
        handle = Some(after::handle());
        after::defer(async {});
    });
    now_or_never(request.order(Order::Parallel));
    let handle = handle.unwrap();
    batches.drive(4);
    let log_of_late = log.clone();
    handle.task("late").defer(async move {
        for name in ["a", "b"] {
            let log = log_of_late.clone();
            after::task(name).defer(async move { log.add(name) });
        }
    });
    let mut late = batches.take_one();
    polls_to_end(&mut late, 3);
    let apart = batches.take_all();
    assert_eq!(apart.iter().map(names).collect::<Vec<_>>(), [["a"], ["b"]]);
    for mut batch in apart {
        polls_to_end(&mut batch, 3);
    }
    log.assert(&["a", "b"]);
    assert_eq!(balanced(&runner).completed, 4);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 11: nested and late work under `Sequential` runs one after the other too.
#[test]
fn nested_and_late_work_under_sequential_keeps_its_promise() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut handle = None;
    let task = |name: &'static str| {
        let log = log.clone();
        async move {
            log.add(format!("{name} starts"));
            yields(2).await;
            log.add(format!("{name} ends"));
        }
    };
    let request = runner.scope(async {
        handle = Some(after::handle());
        let nested = (task("nested 1"), task("nested 2"));
        let outer = task("outer");
        after::defer(async move {
            after::defer(nested.0);
            after::defer(nested.1);
            outer.await;
        });
        after::defer(task("second"));
    });
    now_or_never(request.order(Order::Sequential));
    batches.drive(8);
    let late = (task("late 1"), task("late 2"));
    handle.unwrap().defer(async move {
        after::defer(late.0);
        after::defer(late.1);
    });
    batches.drive(8);
    let expected: Vec<_> = [
        "outer", "second", "nested 1", "nested 2", "late 1", "late 2",
    ]
    .iter()
    .flat_map(|name| [format!("{name} starts"), format!("{name} ends")])
    .collect();
    assert_eq!(log.entries(), expected);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Section 3, 9: `len` and `names` of a held batch have the spawned tasks in the order of deferral.
#[test]
fn a_held_batch_has_its_spawned_tasks_in_order() {
    let (runner, batches) = keeping();
    let ((), batch) = now_or_never(
        runner
            .scope(async {
                after::task("a").spawned().defer(async {});
                after::task("b").defer(async {});
                after::task("c").key("c").spawned().defer(async {});
                after::task("d").defer(async {});
                after::task("e").spawned().defer(async {});
            })
            .held(),
    );
    assert_eq!(batch.len(), 5);
    assert_eq!(names(&batch), ["a", "b", "c", "d", "e"]);
    assert_eq!(batches.len(), 0, "nothing is spawned before the release");
    batch.release();
    assert_eq!(batches.len(), 4);
    for mut batch in batches.take_all() {
        polls_to_end(&mut batch, 2);
    }
    assert_eq!(balanced(&runner).completed, 5);
}

/// Sentence 9: awaiting a held batch hands its spawned tasks to the spawner, and waits for them.
#[test]
fn awaiting_a_held_batch_waits_for_its_spawned_tasks() {
    for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
        let (runner, batches) = keeping();
        let request = runner.scope(async {
            after::task("a").defer(async {});
            after::task("b").spawned().defer(async {});
        });
        let ((), mut batch) = now_or_never(request.order(order).held());
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        let apart = batches.take_all();
        let expected = if order == Order::Parallel { 2 } else { 1 };
        assert_eq!(apart.len(), expected, "{order:?}");
        for _ in 0..5 {
            assert!(poll_once(Pin::new(&mut batch)).is_pending(), "{order:?}");
        }
        let (counter, waker) = common::CountingWaker::new();
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(std::future::Future::poll(Pin::new(&mut batch), &mut cx).is_pending());
        let wakes = counter.wakes();
        for mut batch in apart {
            polls_to_end(&mut batch, 3);
        }
        assert!(counter.wakes() > wakes, "the last one wakes who waits");
        assert!(poll_once(Pin::new(&mut batch)).is_ready());
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.pending), (2, 0));
    }
}

/// Sentence 9, item 2 of the issue: also for what its spawned tasks spawn.
#[test]
fn awaiting_a_held_batch_waits_for_what_its_spawned_tasks_spawn() {
    let (runner, batches) = keeping();
    let request = runner.scope(async {
        after::task("outer").spawned().defer(async {
            after::task("inner").spawned().defer(async {
                after::task("innermost").spawned().defer(async {});
            });
        });
    });
    let ((), mut batch) = now_or_never(request.held());
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    for name in ["outer", "inner", "innermost"] {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        let mut apart = batches.take_one();
        assert_eq!(names(&apart), [name]);
        polls_to_end(&mut apart, 3);
    }
    polls_to_end(&mut batch, 2);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 9, item 2 of the issue: and for what a plain task of it spawns, when it had none at first.
#[test]
fn awaiting_a_held_batch_waits_for_what_its_plain_tasks_spawn() {
    for special in [false, true] {
        let (runner, batches) = keeping();
        let request = runner.scope(async {
            if special {
                after::task("other").on_success().defer(async {});
            }
            after::defer(async { after::task("nested").spawned().defer(async {}) });
        });
        let ((), mut batch) = now_or_never(request.held());
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        let mut apart = batches.take_one();
        for _ in 0..4 {
            assert!(
                poll_once(Pin::new(&mut batch)).is_pending(),
                "its nested spawned task has not run (special: {special})"
            );
        }
        polls_to_end(&mut apart, 3);
        polls_to_end(&mut batch, 2);
        assert_eq!(balanced(&runner).pending, 0);
    }
}

/// Sentence 9: a spawned task of an awaited batch that is lost is not waited for any longer.
#[test]
fn a_lost_spawned_task_is_not_waited_for() {
    let (runner, batches) = keeping();
    let request = runner.scope(async {
        after::task("a")
            .spawned()
            .defer(std::future::pending::<()>());
        after::task("b").defer(async {});
    });
    let ((), mut batch) = now_or_never(request.held());
    for _ in 0..4 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    drop(batches.take_one());
    polls_to_end(&mut batch, 1);
    let stats = balanced(&runner);
    assert_eq!((stats.lost, stats.completed, stats.pending), (1, 1, 0));
}

/// Sentences 9 and 18b: a held batch that is dropped loses its spawned tasks too, once each.
#[test]
fn a_held_batch_that_is_dropped_loses_its_spawned_tasks() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let ((), batch) = now_or_never(
        runner
            .scope(async {
                for spawned in [true, false] {
                    let guard = DefersOnDrop {
                        log: log.clone(),
                        entry: "never",
                    };
                    let task = after::task("a");
                    let task = if spawned { task.spawned() } else { task };
                    task.defer(async move { drop(guard) });
                }
            })
            .held(),
    );
    drop(batch);
    assert_eq!(batches.len(), 0);
    log.assert(&[]);
    let stats = balanced(&runner);
    // Each with what its destructor has deferred.
    assert_eq!((stats.deferred, stats.lost, stats.pending), (4, 4, 0));
}

/// Sentence 19: each spawner call that panics loses its own task alone.
#[test]
fn a_spawner_that_refuses_one_spawned_task_loses_only_that() {
    let batches = common::Batches::default();
    let (keep, calls) = (batches.clone(), AtomicUsize::new(0));
    let runner = after::Runner::new(after::spawner::from_fn(move |batch| {
        if calls.fetch_add(1, SeqCst) == 1 {
            panic!("the spawner's");
        }
        keep.push(batch);
    }));
    let request = runner.scope(async {
        for _ in 0..3 {
            after::defer(async {});
        }
    });
    now_or_never(request.order(Order::Parallel));
    batches.drive(3);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.lost, stats.pending), (2, 1, 0));
}

every_runtime! {
    /// Sentences 11 and 20: parallel, nested, late and held tasks are all waited for by `drain`, and all on the account.
    async fn drain_waits_for_everything_that_was_split_off(runner) {
        let done = Arc::new(AtomicUsize::new(0));
        let task = |steps| {
            let done = done.clone();
            async move {
                yields(steps).await;
                done.fetch_add(1, SeqCst);
            }
        };
        for order in [Order::Parallel, Order::Concurrent, Order::Sequential] {
            for step in 0..20 {
                let request = runner.scope(async {
                    for steps in 0..3 {
                        after::defer(task(steps));
                    }
                    let nested = (task(1), task(2));
                    after::task("outer").spawned().defer(async move {
                        assert_eq!(after::outcome(), Some(Outcome::Finished));
                        after::defer(nested.0);
                        after::task("nested").spawned().defer(nested.1);
                    });
                    let done = done.clone();
                    after::task("closure").spawned().defer_blocking(move || {
                        done.fetch_add(1, SeqCst);
                    });
                    after::handle()
                });
                let handle = if step % 2 == 0 {
                    request.order(order).await
                } else {
                    let (handle, batch) = request.order(order).held().await;
                    assert_eq!(batch.len(), 5);
                    batch.await;
                    handle
                };
                handle.task("late").spawned().defer(task(0));
            }
        }
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!(stats.pending, 0);
        assert_eq!((stats.deferred, stats.completed), (60 * 8, 60 * 8));
        assert_eq!(done.load(SeqCst), 60 * 7);
    }

    /// Sentence 9: awaited where it was held, a batch ends when its spawned tasks have.
    async fn an_awaited_batch_ends_last(runner) {
        for _ in 0..20 {
            let done = Arc::new(AtomicUsize::new(0));
            let task = || {
                let done = done.clone();
                async move {
                    yields(3).await;
                    done.fetch_add(1, SeqCst);
                }
            };
            let request = runner.scope(async {
                let nested = task();
                let outer = task();
                after::task("outer").spawned().defer(async move {
                    after::task("nested").spawned().defer(nested);
                    outer.await;
                });
                after::defer(task());
            });
            let ((), batch) = request.held().await;
            batch.await;
            assert_eq!(done.load(SeqCst), 3);
        }
        assert_eq!(balanced(&runner).pending, 0);
    }
}

/// Sentence 11: `Parallel` and `spawned()` really spread over threads: two that meet at a barrier of threads.
#[cfg(feature = "tokio")]
mod on_several_threads {
    use super::*;
    use std::sync::Barrier;

    fn meets(barrier: &Arc<Barrier>) -> impl Future<Output = ()> + Send + use<> {
        let barrier = barrier.clone();
        async move {
            barrier.wait();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn parallel_tasks_run_at_the_same_time() {
        let runner = after::Runner::builder().order(Order::Parallel).build();
        let barrier = Arc::new(Barrier::new(2));
        runner
            .scope(async {
                after::defer(meets(&barrier));
                after::defer(meets(&barrier));
            })
            .await;
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn spawned_tasks_run_beside_their_siblings() {
        let runner = after::Runner::builder().build();
        let barrier = Arc::new(Barrier::new(2));
        runner
            .scope(async {
                after::defer(meets(&barrier));
                after::task("apart").spawned().defer(meets(&barrier));
            })
            .await;
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn nested_parallel_tasks_run_at_the_same_time() {
        let runner = after::Runner::builder().build();
        let barrier = Arc::new(Barrier::new(2));
        let request = runner.scope(async {
            let nested = (meets(&barrier), meets(&barrier));
            after::defer(async {
                after::defer(nested.0);
                after::defer(nested.1);
            });
        });
        request.order(Order::Parallel).await;
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 3);
    }
}
