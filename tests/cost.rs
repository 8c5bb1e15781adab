//! What is allocated: nothing until something is deferred, then one box a task and two a scope at the most.

mod common;

use std::pin::pin;

use allocation_counter::measure;
use common::{now_or_never, poll_once, yields};

/// Sentence 1: an idle scope allocates nothing, on no path.
#[test]
fn an_idle_scope_allocates_nothing() {
    let runner = after::Runner::builder().build();
    let allocated = measure(|| {
        now_or_never(after::scope(async {}));
        now_or_never(after::scope(async { 1 }).failed_if(|one| *one == 1));
        let sequential = after::scope(async {}).order(after::Order::Sequential);
        let ((), batch) = now_or_never(sequential.held());
        batch.release();
        now_or_never(runner.scope(async {}));
        let mut request = pin!(after::scope(yields(3)));
        while poll_once(request.as_mut()).is_pending() {}
        let mut dropped = pin!(after::scope(yields(3)));
        let _ = poll_once(dropped.as_mut());
        assert!(!after::in_scope());
        let _ = after::outcome();
        let _ = after::context::get::<u32>();
    });
    assert_eq!(allocated.count_total, 0);
    let asked_in_a_scope = measure(|| {
        now_or_never(after::scope(async {
            assert!(after::in_scope());
            let _ = after::outcome();
            let _ = after::context::get::<u32>();
            let _ = after::forget("nothing");
        }));
    });
    assert_eq!(asked_in_a_scope.count_total, 0);
}

/// The promise: for 1, 3 and 8 tasks at most n + 2 allocations, the runtime's own for the batch included.
#[cfg(feature = "tokio")]
#[test]
fn n_tasks_cost_at_most_n_plus_two_allocations() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let runner = after::Runner::global();
        for n in [1, 3, 8] {
            let request = || {
                after::scope(async {
                    for _ in 0..n {
                        after::defer(async {});
                    }
                })
            };
            // The first ones fill what is reused: the runtime's queue, the roster's entry.
            for _ in 0..10 {
                request().await;
                runner.drain().await;
            }
            let requests = measure(|| now_or_never(request()));
            runner.drain().await;
            assert!(
                requests.count_total <= n + 2,
                "{} allocations for {n} tasks",
                requests.count_total
            );
            println!("{n} tasks: {} allocations", requests.count_total);
        }
    });
}

/// Running them allocates nothing.
#[test]
fn running_tasks_allocates_nothing() {
    let (runner, batches) = common::keeping();
    for round in 0..3 {
        now_or_never(runner.scope(async {
            for _ in 0..8 {
                after::defer(yields(2));
            }
        }));
        let mut batch = batches.take_one();
        let running = measure(|| while poll_once(std::pin::Pin::new(&mut batch)).is_pending() {});
        // The first fills what is reused.
        assert!(
            running.count_total == 0 || round == 0,
            "{running:?} in round {round}"
        );
    }
}
