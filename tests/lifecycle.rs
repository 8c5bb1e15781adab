//! The end of a request's life: what a shutdown waits for, when the values of a request go, and what code keeps that goes on
//! after its request.

mod common;

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use after::{Runner, ShutdownReport};
use common::{balanced, keeping, now_or_never, poll_once, polls_to_end};

/// Far away: no test waits for it.
const FAR: Duration = Duration::from_secs(3_600);

/// A shutdown that was woken by a moment with nothing pending, and polled after `meanwhile`: what it waits for is what
/// `meanwhile` has left; `finish` ends that.
fn woken_late<T>(runner: &Runner, meanwhile: impl FnOnce() -> T, finish: impl FnOnce(T)) {
    let ((), mut first) = now_or_never(runner.scope(async { after::defer(async {}) }).held());
    let mut shutdown = pin!(runner.shutdown(FAR));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    polls_to_end(&mut first, 3);
    let left = meanwhile();
    assert!(
        poll_once(shutdown.as_mut()).is_pending(),
        "{:?}",
        runner.stats()
    );
    finish(left);
    let report = now_or_never(shutdown);
    assert!(report.is_clean(), "{report}");
    balanced(runner);
}

/// Sentence 20: a shutdown is clean, or it has waited until its limit. Here a handle defers between the moment with nothing
/// pending and the poll that hears of it: the report said "1 unfinished after 3600s".
#[test]
fn a_shutdown_waits_for_what_a_handle_defers_before_it_is_polled() {
    let (runner, batches) = keeping();
    let handle = now_or_never(runner.scope(async { after::handle() }));
    woken_late(
        &runner,
        || handle.defer(async {}),
        |()| assert_eq!(polls_to_end(&mut batches.take_one(), 3), 2),
    );
}

/// Sentence 20: the same with a request in progress, which has deferred something and ends later.
#[test]
fn a_shutdown_waits_for_a_request_that_began_before_it_is_polled() {
    let (runner, batches) = keeping();
    woken_late(
        &runner,
        || {
            let mut request = Box::pin(runner.scope(async {
                // A scope in a scope is a request of its own.
                after::defer(async {});
                std::future::pending::<()>().await;
            }));
            assert!(poll_once(request.as_mut()).is_pending());
            request
        },
        |request| {
            drop(request);
            polls_to_end(&mut batches.take_one(), 3);
        },
    );
}

/// Sentence 20: the same with a held batch, and with one that is released.
#[test]
fn a_shutdown_waits_for_a_batch_that_was_held_before_it_is_polled() {
    let (runner, batches) = keeping();
    let hold = || now_or_never(runner.scope(async { after::defer(async {}) }).held()).1;
    woken_late(&runner, hold, |mut batch| {
        polls_to_end(&mut batch, 3);
    });
    let release = || hold().release();
    woken_late(&runner, release, |()| {
        polls_to_end(&mut batches.take_one(), 3);
    });
}

/// Sentence 20: the same with a nested scope, whose own request is not pending by itself.
#[test]
fn a_shutdown_waits_for_a_nested_scope_that_began_before_it_is_polled() {
    let (runner, batches) = keeping();
    woken_late(
        &runner,
        || {
            now_or_never(runner.scope(async {
                runner.scope(async { after::defer(async {}) }).await;
            }));
        },
        |()| {
            polls_to_end(&mut batches.take_one(), 3);
        },
    );
}

/// Sentence 20: any number of such moments, for any number of shutdowns; one with a limit of zero reports at once.
#[test]
fn several_shutdowns_wait_through_several_moments() {
    let (runner, batches) = keeping();
    let handle = now_or_never(runner.scope(async { after::handle() }));
    handle.defer(async {});
    let mut shutdowns: Vec<Pin<Box<dyn Future<Output = ShutdownReport>>>> = Vec::new();
    for limit in [FAR, FAR, Duration::MAX] {
        shutdowns.push(Box::pin(runner.shutdown(limit)));
    }
    for _ in 0..3 {
        for shutdown in &mut shutdowns {
            assert!(poll_once(shutdown.as_mut()).is_pending());
        }
        polls_to_end(&mut batches.take_one(), 3);
        handle.defer(async {});
        let report = now_or_never(runner.shutdown(Duration::ZERO));
        assert_eq!(report.stats().pending, 1);
    }
    for shutdown in &mut shutdowns {
        assert!(poll_once(shutdown.as_mut()).is_pending());
    }
    polls_to_end(&mut batches.take_one(), 3);
    for shutdown in shutdowns {
        assert!(now_or_never(shutdown).is_clean());
    }
}
