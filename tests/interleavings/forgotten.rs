//! `mem::forget` of a scope and of a batch: nothing unsound, nothing runs, and the account and the report of a shutdown
//! say so (sentences 19 and 20).

use std::{pin::Pin, sync::Arc, time::Duration};

use after::{Batch, Overflow, Runner};

use crate::common::{self, balanced, keeping, keeping_with, now_or_never, poll_once, yields};

/// Polled once, and forgotten: its tasks are never handed over and never dropped.
fn forgotten_scope(runner: &Runner, tasks: usize, held: &Arc<()>) {
    let mut scope = Box::pin(runner.scope(async {
        for _ in 0..tasks {
            let held = held.clone();
            after::task("forgotten").defer(async move { drop(held) });
        }
        yields(1).await;
    }));
    assert!(poll_once(scope.as_mut()).is_pending());
    assert!(!after::in_scope(), "it is not current either");
    std::mem::forget(scope);
}

/// Handed over, polled so often, and forgotten.
fn forgotten_batch(mut batch: Batch, polls: usize) {
    for _ in 0..polls {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    std::mem::forget(batch);
}

fn other_scopes_go_on(runner: &Runner, batches: &common::Batches) {
    let before = balanced(runner);
    now_or_never(runner.scope(async { after::task("other").defer(async {}) }));
    batches.drive(3);
    let stats = balanced(runner);
    assert_eq!(stats.completed, before.completed + 1);
    assert_eq!(stats.pending, before.pending);
}

/// One of its tasks, at least, is counted: the others are counted with the hand-over, which does not come.
#[test]
fn a_forgotten_scope_stays_pending_and_shutdown_says_so() {
    let (runner, batches) = keeping();
    let held = Arc::new(());
    forgotten_scope(&runner, 3, &held);
    other_scopes_go_on(&runner, &batches);
    assert_eq!((Arc::strong_count(&held), batches.len()), (4, 0));
    let mut drain = Box::pin(runner.drain());
    assert!(poll_once(drain.as_mut()).is_pending());
    let report = now_or_never(runner.shutdown(Duration::ZERO));
    assert!(!report.is_clean());
    let stats = report.stats();
    assert!((1..=3).contains(&stats.pending), "{stats:?}");
    // It has no age: it has not ended.
    assert!(report.unfinished().is_empty());
    let text = report.to_string();
    let said = format!("{} of requests that have not ended", stats.pending);
    assert!(text.contains(&said), "{text}");
}

/// With a handle every task is counted, and what the handle brings goes the same way.
#[test]
fn a_forgotten_scope_with_a_handle_keeps_what_comes_later() {
    let (runner, batches) = keeping();
    let mut handle = None;
    let mut scope = Box::pin(runner.scope(async {
        handle = Some(after::handle());
        after::defer(async {});
        yields(1).await;
    }));
    assert!(poll_once(scope.as_mut()).is_pending());
    std::mem::forget(scope);
    let handle = handle.unwrap();
    handle.task("keyed").key("k").defer(async {});
    handle.defer(async {});
    assert!(
        handle.sync_scope(|| after::forget("k")),
        "it is still the request"
    );
    assert_eq!(handle.sync_scope(after::outcome), None);
    other_scopes_go_on(&runner, &batches);
    let stats = balanced(&runner);
    assert_eq!((stats.discarded, stats.pending, batches.len()), (1, 2, 0));
    let report = now_or_never(runner.shutdown(Duration::ZERO));
    assert!(
        report
            .to_string()
            .contains("2 of requests that have not ended"),
        "{report}"
    );
}

/// Whenever it is forgotten, the tasks that have not ended are named, with their place; those that have are not.
#[test]
fn tasks_of_a_forgotten_batch_stay_pending_and_shutdown_names_them() {
    for polls in [0, 1, 2] {
        let (runner, batches) = keeping();
        let held = Arc::new(());
        let line = line!() + 5;
        now_or_never(runner.scope(async {
            after::task("ends").defer(async {});
            let held = held.clone();
            #[rustfmt::skip]
            after::task("stuck").defer(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
        }));
        forgotten_batch(batches.take_one(), polls);
        other_scopes_go_on(&runner, &batches);
        assert_eq!(Arc::strong_count(&held), 2, "never dropped");
        let report = now_or_never(runner.shutdown(Duration::ZERO));
        let names: Vec<_> = report.unfinished().iter().map(|task| task.name).collect();
        let expected: &[_] = if polls == 2 {
            &["stuck"]
        } else {
            &["ends", "stuck"]
        };
        assert_eq!(names, expected, "after {polls} polls");
        assert_eq!(report.stats().pending as usize, expected.len());
        let stuck = report.unfinished().last().unwrap();
        assert_eq!(
            (stuck.location.file(), stuck.location.line()),
            (file!(), line)
        );
    }
}

/// The permits of a forgotten batch are never given on, nor is the place of one that waits: the documentation says so.
/// Memory stays bounded all the same.
#[test]
fn a_forgotten_batch_keeps_its_permits() {
    let (runner, batches) = keeping_with(|builder| {
        builder
            .max_running(1)
            .max_waiting(1)
            .overflow(Overflow::Shed)
    });
    now_or_never(runner.scope(async { after::task("first").defer(std::future::pending::<()>()) }));
    forgotten_batch(batches.take_one(), 2);
    for _ in 0..5 {
        now_or_never(runner.scope(async { after::task("behind").defer(async {}) }));
    }
    batches.drive(5);
    let stats = balanced(&runner);
    assert_eq!((stats.pending, stats.shed, stats.completed), (2, 4, 0));
    let report = now_or_never(runner.shutdown(Duration::ZERO));
    let names: Vec<_> = report.unfinished().iter().map(|task| task.name).collect();
    assert_eq!(names, ["first", "behind"]);
}

/// A batch that waits for one that was forgotten waits for ever, and says that nothing of its own is left.
#[test]
fn an_awaited_batch_waits_for_a_forgotten_one() {
    let (runner, batches) = keeping();
    let scope = runner.scope(async {
        after::task("own").defer(async {});
        after::task("apart").spawned().defer(async {});
    });
    let ((), mut batch) = now_or_never(scope.held());
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    forgotten_batch(batches.take_one(), 1);
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(batch.len(), 0);
    drop(batch);
    let report = now_or_never(runner.shutdown(Duration::ZERO));
    let names: Vec<_> = report.unfinished().iter().map(|task| task.name).collect();
    assert_eq!(names, ["apart"]);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.lost, stats.pending), (1, 0, 1));
}
