//! The account, read and waited for on one thread, while tasks end and come on others.

use std::time::Duration;

use after::{Runner, ShutdownReport, Stats};
use loom::{future::block_on, thread};

use crate::world::{World, join, model, pend, poll_once, shorter_model};

/// Sentence 20, race 3: `drain` begins to wait while the last task ends, and is woken, or sees that it has ended.
///
/// Broken: `Account::drain` looked before it made the waiter.
#[test]
fn drain_does_not_miss_the_end_of_the_last_task() {
    model(|world| {
        let batch = world.plain_batch([world.ledger.task(0)]);
        let elsewhere = thread::spawn(move || block_on(batch));
        block_on(world.runner.drain());
        assert_eq!(world.runner.stats().pending, 0);
        elsewhere.join().unwrap();
    });
}

/// Sentence 20, race 3: as above, when the last two tasks end on two threads, and so in two shards of the account.
///
/// Broken: `Account::change` looked whether somebody waits before it locked the shard.
#[test]
fn drain_does_not_miss_the_end_of_the_last_task_on_two_threads() {
    model(|world| {
        let elsewhere = [0, 1].map(|number| {
            let batch = world.plain_batch([world.ledger.task(number)]);
            thread::spawn(move || block_on(batch))
        });
        block_on(world.runner.drain());
        assert_eq!(world.runner.stats().pending, 0);
        join(elsewhere);
    });
}

/// Sentence 20, race 3: as above, when a request goes on, and its task ends, on a thread that nobody has seen before, in
/// whose shard nothing was: only those that were used are locked.
///
/// Broken: `sync::numbered_threads` looked with a load alone.
#[test]
fn drain_does_not_miss_the_end_of_the_last_task_on_a_new_thread() {
    model(|world| {
        let task = world.ledger.task(0);
        let mut request = Box::pin(world.runner.scope(async {
            after::defer(task);
            pend(1).await;
        }));
        assert!(poll_once(request.as_mut()).is_pending());
        let serving = world.clone();
        let elsewhere = thread::spawn(move || {
            block_on(request);
            serving.run_spawned();
        });
        block_on(world.runner.drain());
        assert_eq!(world.runner.stats().pending, 0);
        elsewhere.join().unwrap();
    });
}

/// Sentence 20, race 3: as above, when the last batch is dropped. What it has lost makes the account watched, too,
/// until it is reported.
///
/// Broken: as the first.
#[test]
fn drain_does_not_miss_the_drop_of_the_last_batch() {
    model(|world| {
        let batch = world.plain_batch([world.ledger.task(0)]);
        let elsewhere = thread::spawn(move || drop(batch));
        block_on(world.runner.drain());
        assert_eq!(world.runner.stats().lost, 1);
        elsewhere.join().unwrap();
    });
}

/// Sentence 20, race 3: a drain that is dropped while the last task ends leaves the other one's wake-up alone.
///
/// Broken: `Signal::leave` removed the waker with the lowest number instead of its own.
#[test]
fn a_drain_that_is_given_up_takes_no_wake_up_from_another() {
    model(|world| {
        let batch = world.plain_batch([world.ledger.task(0)]);
        let mut given_up = Box::pin(drain(world.runner.clone()));
        let mut kept = Box::pin(drain(world.runner.clone()));
        let _ = poll_once(kept.as_mut());
        let _ = poll_once(given_up.as_mut());
        let running = thread::spawn(move || block_on(batch));
        let giving_up = thread::spawn(move || drop(given_up));
        block_on(kept);
        join([running, giving_up]);
    });
}

/// Sentence 20, race 3: a drain waits for a moment after its call. One that was before, and of which another one is
/// told meanwhile, is not its own.
///
/// Broken: `Account::change_watched` advanced the signal after it had unlocked the shards.
#[test]
fn drain_does_not_take_an_earlier_moment_for_its_own() {
    model(|world| {
        let first = world.plain_batch([world.ledger.task(0)]);
        let mut earlier = Box::pin(world.runner.drain());
        assert!(poll_once(earlier.as_mut()).is_pending());
        let elsewhere = thread::spawn(move || block_on(first));
        let second = world.plain_batch([world.ledger.task(1)]);
        let mut later = Box::pin(world.runner.drain());
        // Twice: the other thread may tell of its moment between the two.
        assert!(poll_once(later.as_mut()).is_pending());
        assert!(poll_once(later.as_mut()).is_pending());
        block_on(second);
        block_on(later);
        elsewhere.join().unwrap();
    });
}

/// Sentence 20, race 3: as above, of what a request in progress has deferred: until its hand-over it is counted without a
/// lock.
///
/// Broken: `Account::wait_if_pending` made the waiter before it locked the shards.
#[test]
fn drain_waits_for_what_a_request_in_progress_has_deferred() {
    model(|world| {
        let first = world.plain_batch([world.ledger.task(0)]);
        let mut earlier = Box::pin(world.runner.drain());
        assert!(poll_once(earlier.as_mut()).is_pending());
        let elsewhere = thread::spawn(move || block_on(first));
        let task = world.ledger.task(1);
        let mut request = Box::pin(world.runner.scope(async {
            after::defer(task);
            pend(1).await;
        }));
        assert!(poll_once(request.as_mut()).is_pending());
        let mut later = Box::pin(world.runner.drain());
        // Twice: the other thread may tell of its moment between the two.
        assert!(poll_once(later.as_mut()).is_pending());
        assert!(poll_once(later.as_mut()).is_pending());
        block_on(request);
        block_on(world.take_batch());
        block_on(later);
        elsewhere.join().unwrap();
    });
}

/// Sentence 20, race 3: losses that wait to be reported make the account watched, as a drain does. Their report, by a
/// shutdown that does not wait, leaves the drain's watch alone.
///
/// Broken: `Account::report_losses` set the attention to zero instead of lowering it.
#[test]
fn a_report_of_losses_does_not_hide_a_drain() {
    model(|world| {
        let [dropped, ends] = [0, 1].map(|number| world.plain_batch([world.ledger.task(number)]));
        let mut drained = Box::pin(world.runner.drain());
        assert!(poll_once(drained.as_mut()).is_pending());
        let dropping = thread::spawn(move || drop(dropped));
        let running = thread::spawn(move || block_on(ends));
        block_on(world.runner.shutdown(Duration::ZERO));
        block_on(drained);
        assert_eq!(world.runner.stats().lost, 1);
        join([dropping, running]);
    });
}

async fn drain(runner: Runner) {
    runner.drain().await;
}

/// Sentence 19: every value that another thread reads balances, while a request ends, and its task.
///
/// Broken: `Account::total` read the first defers before the shards were locked.
#[test]
fn every_value_of_stats_balances() {
    model(|world| {
        let serving = world.clone();
        let elsewhere = thread::spawn(move || {
            let batch = serving.plain_batch([serving.ledger.task(0), serving.ledger.task(1)]);
            block_on(batch);
        });
        let mut before = 0;
        for _ in 0..3 {
            let stats = world.runner.stats();
            // `pending` is the difference of the others: one that does not balance would be far more.
            assert!(stats.pending <= 2 && stats.deferred <= 2, "{stats:?}");
            assert!(stats.completed >= before);
            before = stats.completed;
        }
        elsewhere.join().unwrap();
    });
}

/// Sentence 19: as above, when the tasks come through a handle and end at once.
///
/// Broken: `Inbox::store` counted the task after it had unlocked the inbox.
#[test]
fn no_task_ends_before_it_is_counted() {
    model(|world| {
        let (batch, handle) = world.batch(1);
        let task = world.ledger.task(1);
        let running = thread::spawn(move || block_on(batch));
        let deferring = thread::spawn(move || handle.defer(task));
        for _ in 0..2 {
            let Stats { pending, .. } = world.runner.stats();
            assert!(pending <= 2, "{pending} pending");
        }
        join([running, deferring]);
    });
}

/// Sentence 20, race 5: of two shutdowns at once both tell the tasks to stop, wait for them, and have a clean report.
///
/// Broken: `Account::begin_stopping` woke before it said that it is stopping.
#[test]
fn two_shutdowns_both_wait_for_the_tasks_that_they_stop() {
    shorter_model(|world| {
        let stops = world.ledger.task_with(0, async { after::stopping().await });
        let batch = world.plain_batch([stops]);
        let running = thread::spawn(move || block_on(batch));
        let other = world.clone();
        let elsewhere = thread::spawn(move || shut_down(&other));
        assert!(shut_down(world).is_clean());
        assert!(elsewhere.join().unwrap().is_clean());
        running.join().unwrap();
    });
}

/// Sentence 20, race 5: a shutdown that may not wait reports, while another waits and the tasks end, what was
/// unfinished at one moment.
///
/// Broken: `Account::report` took the counts after it had unlocked the shards.
#[test]
fn the_report_of_a_shutdown_is_of_one_moment() {
    model(|world| {
        let batch = world.plain_batch([world.ledger.task(0)]);
        let running = thread::spawn(move || block_on(batch));
        let other = world.clone();
        let elsewhere = thread::spawn(move || shut_down(&other));
        let report = block_on(world.runner.shutdown(Duration::ZERO));
        assert_eq!(report.unfinished().len() as u64, report.stats().pending);
        assert!(elsewhere.join().unwrap().is_clean());
        running.join().unwrap();
    });
}

/// Without a timer, which loom can't model: the limit is beyond the clock.
fn shut_down(world: &World) -> ShutdownReport {
    block_on(world.runner.shutdown(Duration::MAX))
}
