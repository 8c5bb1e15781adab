//! Permits and room, passed on while those who wait for them go.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use after::{Order, Overflow, RunnerBuilder};
use loom::{future::block_on, thread};

use crate::world::{Event, World, join, model_with, poll_once, take_a_turn};

fn one_at_a_time(builder: RunnerBuilder) -> RunnerBuilder {
    builder.max_running(1)
}

/// Sentence 21, race 4: a permit is passed on while the one who is next in line is dropped: it goes to the one behind.
///
/// Broken: `Limit::withdraw` did not give back what was granted and not taken.
#[test]
fn a_permit_passed_on_to_a_dropped_waiter_goes_to_the_next() {
    model_with(one_at_a_time, |world| {
        let running = Running::default();
        let first = world.plain_batch([running.task(world, 0)]);
        let dropped = world.plain_batch([running.task(world, 1)]);
        let last = world.plain_batch([running.task(world, 2)]);
        let first = thread::spawn(move || block_on(first));
        let dropping = thread::spawn(move || drop(dropped));
        block_on(last);
        join([first, dropping]);
        assert!(!world.ledger.has_run(1) && world.ledger.has_run(2));
        assert_eq!(world.runner.stats().lost, 1);
    });
}

/// Sentence 21, race 4: as above, when the batch that has the permit is dropped, too, before its task has ended.
///
/// Broken: `closing::lose` did not give up the permits of what runs.
#[test]
fn the_permit_of_a_dropped_batch_goes_to_the_next() {
    model_with(one_at_a_time, |world| {
        let never = Event::default().wait();
        let mut first = world.plain_batch([world.ledger.task_with(0, never)]);
        for _ in 0..2 {
            assert!(poll_once(Pin::new(&mut first)).is_pending());
        }
        let dropped = world.plain_batch([world.ledger.task(1)]);
        let last = world.plain_batch([world.ledger.task(2)]);
        let dropping = [first, dropped].map(|batch| thread::spawn(move || drop(batch)));
        block_on(last);
        join(dropping);
        assert!(world.ledger.has_run(2));
        assert_eq!(world.runner.stats().lost, 2);
    });
}

/// Sentence 21, race 4: two batches on two threads want the only permit, and no moment sees two of their tasks run.
///
/// Broken: `watched::take_permits` left the waker after it had looked.
#[test]
fn no_two_tasks_have_the_same_permit() {
    model_with(one_at_a_time, |world| {
        let running = Running::default();
        let batches = [0, 1].map(|number| world.plain_batch([running.task(world, number)]));
        let [first, second] = batches;
        let elsewhere = thread::spawn(move || block_on(first));
        block_on(second);
        elsewhere.join().unwrap();
        assert!(world.ledger.has_run(0) && world.ledger.has_run(1));
    });
}

fn one_after_the_other(builder: RunnerBuilder) -> RunnerBuilder {
    one_at_a_time(builder).order(Order::Sequential)
}

/// Sentence 21, race 4: as above, when each batch passes its permit on from its first task to its second.
///
/// Broken: `watched::give_permit_on` called `Limit::leave` for a batch that has passed its permit on.
#[test]
fn no_two_tasks_have_the_same_permit_when_it_is_passed_on() {
    model_with(one_after_the_other, |world| {
        let running = Running::default();
        let batches = [0, 2].map(|first| {
            let tasks = [first, first + 1].map(|number| running.task(world, number));
            world.plain_batch(tasks)
        });
        let [first, second] = batches;
        let elsewhere = thread::spawn(move || block_on(first));
        block_on(second);
        elsewhere.join().unwrap();
        assert!((0..4).all(|task| world.ledger.has_run(task)));
    });
}

fn one_waits(builder: RunnerBuilder) -> RunnerBuilder {
    let builder = builder.max_running(1).max_waiting(1);
    builder.overflow(Overflow::Backpressure)
}

/// Sentence 21, race 4: room that becomes free while the scope that is next in line for it is dropped goes to the scope
/// behind.
///
/// Broken: `Room::drop` did not give back the room that it was promised.
#[test]
fn room_passed_on_to_a_dropped_scope_goes_to_the_next() {
    model_with(one_waits, |world| {
        let running = Running::default();
        let first = world.plain_batch([running.task(world, 0)]);
        let second = world.plain_batch([running.task(world, 1)]);
        let [mut dropped, mut last] = [2, 3].map(|number| {
            let task = running.task(world, number);
            Box::pin(world.runner.scope(async { after::defer(task) }))
        });
        assert!(poll_once(dropped.as_mut()).is_pending());
        assert!(poll_once(last.as_mut()).is_pending());
        let running = thread::spawn(move || {
            block_on(first);
            block_on(second);
        });
        let dropping = thread::spawn(move || drop(dropped));
        block_on(last);
        join([running, dropping]);
        world.run_spawned();
        // What can't wait any more is accepted up to twice the limit: nothing was shed.
        assert!((0..4).all(|task| world.ledger.has_run(task)));
    });
}

/// How many tasks run now: no more than one.
#[derive(Clone, Default)]
struct Running {
    now: Arc<AtomicUsize>,
}

impl Running {
    fn task(&self, world: &World, number: usize) -> impl Future<Output = ()> + Send + use<> {
        let now = self.now.clone();
        world.ledger.task_with(number, async move {
            assert_eq!(now.fetch_add(1, Ordering::Relaxed), 0, "two tasks run");
            take_a_turn().await;
            now.fetch_sub(1, Ordering::Relaxed);
        })
    }
}
