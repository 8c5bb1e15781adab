//! A handle on one thread, the end of its request on another.

use loom::thread;

use crate::world::{join, model, poll_once};

/// Sentence 15, race 1: what comes through a handle while the request ends is handed over with it, joins its batch, or
/// is a batch of its own; it runs in each case.
///
/// Broken: `Inbox::store` locked twice, once to look at the phase and once to store.
#[test]
fn what_a_handle_defers_beside_the_hand_over_runs_once() {
    model(|world| {
        let (mut request, handle) = world.request(1);
        let task = world.ledger.task(1);
        let elsewhere = thread::spawn(move || handle.defer(task));
        assert!(poll_once(request.as_mut()).is_ready());
        world.run_spawned();
        elsewhere.join().unwrap();
        world.run_spawned();
        assert!(world.ledger.has_run(0) && world.ledger.has_run(1));
    });
}

/// Sentences 8 and 15, race 1: as above, when the request has collected nothing itself, and its end may be that of the
/// inbox.
///
/// Broken: as above.
#[test]
fn what_a_handle_defers_beside_the_end_of_an_idle_request_runs_once() {
    model(|world| {
        let (mut request, handle) = world.request(0);
        let task = world.ledger.task(0);
        let elsewhere = thread::spawn(move || handle.defer(task));
        assert!(poll_once(request.as_mut()).is_ready());
        elsewhere.join().unwrap();
        assert_eq!(world.run_spawned(), 1, "one batch");
        assert!(world.ledger.has_run(0));
    });
}

/// Sentences 8 and 15, race 1: as above, when the request is dropped, and two threads defer.
///
/// Broken: as above.
#[test]
fn what_two_handles_defer_while_the_client_goes_runs_once() {
    model(|world| {
        let (request, handle) = world.request(0);
        let elsewhere = [0, 1].map(|number| {
            let (handle, task) = (handle.clone(), world.ledger.task(number));
            thread::spawn(move || handle.defer(task))
        });
        drop(request);
        join(elsewhere);
        world.run_spawned();
        assert!(world.ledger.has_run(0) && world.ledger.has_run(1));
    });
}

/// Sentence 7, race 1: a key names one task that has not been handed over. Its successor replaces it, or comes too late
/// for that and runs beside it.
///
/// Broken: as the first.
#[test]
fn a_keyed_task_is_replaced_or_handed_over_and_never_both() {
    model(|world| {
        let (mut request, handle) = world.request(0);
        handle.task("first").key("k").defer(world.ledger.task(0));
        let second = world.ledger.task(1);
        let elsewhere = thread::spawn(move || handle.task("second").key("k").defer(second));
        assert!(poll_once(request.as_mut()).is_ready());
        world.run_spawned();
        elsewhere.join().unwrap();
        world.run_spawned();
        assert!(world.ledger.has_run(1));
        let replaced = world.runner.stats().discarded == 1;
        assert_eq!(replaced, !world.ledger.has_run(0));
    });
}

/// Sentence 7, race 1: `forget` beside the hand-over takes the task back, or says that it was too late.
///
/// Broken: `Inbox::forget` looked whether there is such a task, and removed it, under two locks.
#[test]
fn a_task_is_taken_back_or_runs() {
    model(|world| {
        let (mut request, handle) = world.request(0);
        handle.task("it").key("k").defer(world.ledger.task(0));
        let elsewhere = thread::spawn(move || handle.sync_scope(|| after::forget("k")));
        assert!(poll_once(request.as_mut()).is_ready());
        world.run_spawned();
        let forgotten = elsewhere.join().unwrap();
        assert_eq!(forgotten, !world.ledger.has_run(0));
        assert_eq!(forgotten, world.runner.stats().discarded == 1);
    });
}
