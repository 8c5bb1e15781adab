//! The end of a batch, and its drop, against those who bring it work or wake it.

use std::pin::Pin;

use loom::{future::block_on, thread};

use crate::world::{Event, join, model, poll_once};

/// Sentence 15, race 2: what comes through a handle while its batch ends joins it or is a batch of its own.
///
/// Broken: `Inbox::batch_ends` locked twice, once to look and once to set the phase.
#[test]
fn what_a_handle_defers_at_the_end_of_the_batch_runs_once() {
    model(|world| {
        let (batch, handle) = world.batch(1);
        let task = world.ledger.task(1);
        let elsewhere = thread::spawn(move || handle.defer(task));
        block_on(batch);
        elsewhere.join().unwrap();
        world.run_spawned();
        assert!(world.ledger.has_run(0) && world.ledger.has_run(1));
    });
}

/// Sentence 15, race 2: as above, on two threads.
///
/// Broken: as above.
#[test]
fn what_two_handles_defer_at_the_end_of_the_batch_runs_once() {
    model(|world| {
        let (batch, handle) = world.batch(1);
        let elsewhere = [1, 2].map(|number| {
            let (handle, task) = (handle.clone(), world.ledger.task(number));
            thread::spawn(move || handle.defer(task))
        });
        block_on(batch);
        join(elsewhere);
        world.run_spawned();
        assert!(world.ledger.has_run(1) && world.ledger.has_run(2));
    });
}

/// Sentence 15, race 2: a batch whose tasks wait is woken by what comes through a handle. Its only task waits for the
/// one that comes.
///
/// Broken: `Inbox::batch_waits` looked whether something had come, and left its waker, under two locks.
#[test]
fn what_a_handle_defers_wakes_a_batch_that_waits() {
    model(|world| {
        let (mut request, handle) = world.request(0);
        let come = Event::default();
        handle.defer(world.ledger.task_with(0, come.wait()));
        assert!(poll_once(request.as_mut()).is_ready());
        let task = world.ledger.task_with(1, async move { come.set() });
        let elsewhere = thread::spawn(move || handle.defer(task));
        block_on(world.take_batch());
        elsewhere.join().unwrap();
        assert!(world.ledger.has_run(0) && world.ledger.has_run(1));
    });
}

/// Sentences 15 and 18b, race 6: a handle has the waker of a batch that waits, and uses it while the batch is dropped.
/// What it brings is lost with the batch, or is a batch of its own and runs.
///
/// Broken: `closing::lose` did not look into the inbox.
#[test]
fn what_a_handle_defers_into_a_batch_that_is_dropped_is_lost_or_runs() {
    model(|world| {
        let (mut request, handle) = world.request(0);
        handle.defer(world.ledger.task_with(0, Event::default().wait()));
        assert!(poll_once(request.as_mut()).is_ready());
        let mut batch = world.take_batch();
        for _ in 0..2 {
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
        }
        let task = world.ledger.task(1);
        let elsewhere = thread::spawn(move || handle.defer(task));
        drop(batch);
        elsewhere.join().unwrap();
        world.run_spawned();
        let lost = if world.ledger.has_run(1) { 1 } else { 2 };
        assert_eq!(world.runner.stats().lost, lost);
    });
}
