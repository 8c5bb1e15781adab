//! What a batch waits for, on another thread: those who wake its tasks, what was split off, closures, time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use after::{Batch, Order};
use loom::{future::block_on, thread};

use crate::world::{Event, World, join, model, model_with, pend, poll_once, take_a_turn};

/// A batch whose tasks are about to get wakers of their own, and two events.
struct Waiting {
    batch: Batch,
    /// The numbers of the tasks that have the two places.
    waits: [usize; 2],
    events: [Event; 2],
    /// What the other tasks wait for.
    others: Event,
    /// After so many polls each task has been polled with its own waker.
    polls: usize,
}

impl Waiting {
    /// Those in these two places wait for an event each.
    fn new(world: &World, tasks: usize, places: [usize; 2]) -> Waiting {
        // Up to 32 tasks get wakers after three rounds; more of them after the first, which takes several turns.
        let (rounds, turns) = if tasks > 32 {
            (1, tasks.div_ceil(32))
        } else {
            (3, 1)
        };
        let (events, others) = (<[Event; 2]>::default(), Event::default());
        // Each round starts one further on, and so does the one that gives them their places.
        let waits = places.map(|place| (place + rounds) % tasks);
        let tasks = (0..tasks).map(|place| {
            let number = waits.iter().position(|waits| *waits == place);
            let event = number.map(|number| events[number].wait());
            let others = others.wait();
            world.ledger.task_with(place, async move {
                pend(rounds).await;
                match event {
                    Some(event) => event.await,
                    None => others.await,
                }
            })
        });
        Waiting {
            batch: world.plain_batch(tasks),
            waits,
            events,
            others,
            // The first poll starts nothing.
            polls: 1 + (rounds + 1) * turns,
        }
    }

    /// Polls until only the two are left.
    fn poll_with(&mut self, waker: &Waker) {
        for poll in 0..2 * self.polls {
            // Not before each has a place of its own.
            if poll == self.polls {
                self.others.set();
            }
            let poll = Pin::new(&mut self.batch).poll(&mut Context::from_waker(waker));
            assert!(poll.is_pending());
        }
        assert_eq!(self.batch.len(), 2);
    }

    /// Sets each event on a thread of its own.
    fn wake(self) -> (Batch, [thread::JoinHandle<()>; 2]) {
        let elsewhere = self.events.map(|event| thread::spawn(move || event.set()));
        (self.batch, elsewhere)
    }

    /// Polls the batch with one waker from the first time to the last, while both are woken.
    fn run_to_the_end(mut self, world: &World) {
        let waits = self.waits;
        let elsewhere = block_on(async {
            let waker = std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
            self.poll_with(&waker);
            let (batch, elsewhere) = self.wake();
            batch.await;
            elsewhere
        });
        join(elsewhere);
        assert!(waits.iter().all(|task| world.ledger.has_run(*task)));
    }
}

/// Race 6: tasks that are woken while their batch looks whom to poll, or polls them, are polled again.
///
/// Broken: `BlockMarks::take` read the bits and cleared them in two steps.
#[test]
fn tasks_that_are_woken_while_their_batch_looks_are_polled() {
    model(|world| Waiting::new(world, 9, [0, 1]).run_to_the_end(world));
}

/// Race 6: the same for tasks beyond the first block, which have a bit for their block too. (In a model a block has 4.)
///
/// Broken: `Ready::gather` took the block's bit after those of its tasks.
#[test]
fn tasks_of_a_later_block_that_are_woken_while_their_batch_looks_are_polled() {
    model(|world| Waiting::new(world, 9, [4, 5]).run_to_the_end(world));
    model(|world| Waiting::new(world, 9, [0, 5]).run_to_the_end(world));
}

/// Race 6: the same for tasks beyond the first 4 blocks, whose blocks have their bits in words with a bit each.
///
/// Broken: `LaterBlocks::take` took a word's bits before its bit in the word above.
#[test]
fn tasks_of_a_later_word_that_are_woken_while_their_batch_looks_are_polled() {
    // Of two blocks of one word; of one block; of the first block and another word; of two words.
    for (tasks, places) in [
        (21, [16, 20]),
        (18, [16, 17]),
        (18, [0, 17]),
        (33, [16, 32]),
    ] {
        model(move |world| Waiting::new(world, tasks, places).run_to_the_end(world));
    }
}

/// Race 6: the same for tasks beyond the first 4 words.
///
/// Broken: `Word::mark` went no further up than to the word above.
#[test]
fn tasks_beyond_many_words_that_are_woken_while_their_batch_looks_are_polled() {
    for places in [[64, 65], [16, 65]] {
        model(move |world| Waiting::new(world, 66, places).run_to_the_end(world));
    }
}

/// Race 6: the same for a batch that is polled with another waker from now on.
///
/// Broken: `Marks::take` did not write if it saw no bit, though the waker had moved.
#[test]
fn tasks_that_are_woken_while_their_batch_moves_are_polled() {
    for (tasks, places) in [(9, [0, 1]), (9, [4, 5]), (18, [16, 17])] {
        model(move |world| {
            let mut waiting = Waiting::new(world, tasks, places);
            waiting.poll_with(Waker::noop());
            let waits = waiting.waits;
            let (batch, elsewhere) = waiting.wake();
            block_on(batch);
            join(elsewhere);
            assert!(waits.iter().all(|task| world.ledger.has_run(*task)));
        });
    }
}

/// Race 6: tasks are woken while their batch is polled once more and dropped. They have ended, or are lost.
///
/// Broken: `Registry::take_running` did not give back what has wakers of its own.
#[test]
fn tasks_that_are_woken_while_their_batch_is_dropped_have_ended_or_are_lost() {
    model(|world| {
        let mut waiting = Waiting::new(world, 9, [0, 1]);
        waiting.poll_with(Waker::noop());
        let waits = waiting.waits;
        let (mut batch, elsewhere) = waiting.wake();
        let _ = poll_once(Pin::new(&mut batch));
        drop(batch);
        join(elsewhere);
        let ended = waits.map(|task| u64::from(world.ledger.has_run(task)));
        assert_eq!(world.runner.stats().lost, 2 - ended[0] - ended[1]);
    });
}

/// Sentence 9: a held batch that is awaited waits for what was split off it, which ends on another thread meanwhile.
///
/// Broken: `Group::is_done` did not look again after it had left the waker.
#[test]
fn a_batch_sees_the_end_of_what_was_split_off_it() {
    model(|world| {
        let tasks = [0, 1].map(|number| world.ledger.task(number));
        let request = async {
            for task in tasks {
                after::task("apart").spawned().defer(task);
            }
        };
        let mut held = Box::pin(world.runner.scope(request).held());
        let std::task::Poll::Ready(((), mut batch)) = poll_once(held.as_mut()) else {
            panic!("the request has ended");
        };
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        let elsewhere = world
            .take_batches()
            .into_iter()
            .map(|apart| thread::spawn(move || block_on(apart)));
        let elsewhere: Vec<_> = elsewhere.collect();
        block_on(batch);
        assert_eq!(world.runner.stats().pending, 0);
        join(elsewhere);
    });
}

/// Sentence 13: a closure returns while its batch looks whether it has.
///
/// Broken: `Blocking::poll_work` locked twice, once to look and once to leave its waker.
#[test]
fn a_batch_sees_the_end_of_a_closure() {
    model(|world| {
        let closure = world.ledger.closure(0);
        let mut request = Box::pin(world.runner.scope(async { after::defer_blocking(closure) }));
        assert!(poll_once(request.as_mut()).is_ready());
        block_on(world.take_batch());
        assert_eq!(world.runner.stats().completed, 1);
    });
}

/// Sentences 17 and 18b: a batch is dropped while a closure of it begins. Once it was dropped, none begins.
///
/// Broken: `Slot::begin` did not look whether the closure was abandoned.
#[test]
fn a_closure_does_not_begin_once_its_batch_was_dropped() {
    model(|world| {
        let gone = Arc::new(AtomicBool::new(false));
        let late = Arc::new(AtomicBool::new(false));
        let (looks, notes, closure) = (gone.clone(), late.clone(), world.ledger.closure(0));
        let request = async {
            after::defer_blocking(move || {
                notes.store(looks.load(Ordering::Relaxed), Ordering::Relaxed);
                closure();
            });
        };
        let mut request = Box::pin(world.runner.scope(request));
        assert!(poll_once(request.as_mut()).is_ready());
        let mut batch = world.take_batch();
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        // Gives the closure to another thread, which may be quick.
        let _ = poll_once(Pin::new(&mut batch));
        drop(batch);
        gone.store(true, Ordering::Relaxed);
        world.join_blocking();
        assert!(!late.load(Ordering::Relaxed));
        match world.runner.stats().lost {
            // It had returned, and its batch had not heard of it.
            0 => assert!(world.ledger.has_run(0)),
            _ => world.ledger.nobody_heard_of(0),
        }
    });
}

/// Sentence 17: the time of a scope is up for all that was split off it: the member that polls the sleep may end
/// while it fires, and another one polls it then.
///
/// Broken: `Member::drop` woke nobody.
#[test]
fn the_time_of_a_scope_is_up_for_all_its_batches() {
    let limited = |builder: after::RunnerBuilder| {
        let builder = builder.order(Order::Parallel);
        builder.scope_timeout(Duration::from_secs(1))
    };
    model_with(limited, |world| {
        let ends = world.ledger.task_with(0, take_a_turn());
        let never = world.ledger.task_with(1, Event::default().wait());
        let request = async {
            after::defer(ends);
            after::defer(never);
        };
        let mut request = Box::pin(world.runner.scope(request));
        assert!(poll_once(request.as_mut()).is_ready());
        let batches = world.take_batches().into_iter();
        let running = batches.map(|batch| thread::spawn(move || block_on(batch)));
        let running: Vec<_> = running.collect();
        world.clock.set();
        join(running);
        let ended = u64::from(world.ledger.has_run(0));
        assert_eq!(world.runner.stats().timed_out, 2 - ended);
    });
}
