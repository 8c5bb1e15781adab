//! Races on real threads, for what loom can't model: thread-locals, spare boxes, many shards, the pool of
//! `Threads`. The models are in `tests/loom`.
//!
//! Each test asserts exact facts: how often each task has run and was dropped, and where it stands on the account.
//! A wake-up that is missed hangs a test. The comment `Broken:` says with which change of the crate a test was seen
//! to fail or to hang.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use after::{Overflow, Runner, Stats, spawner, spawner::Threads};
use futures::{channel::oneshot, executor::block_on};

use crate::common::{balanced, keeping, now_or_never, poll_once, yields};

const THREADS: usize = 4;

/// What became of each task.
struct Tally {
    tasks: Box<[Entry]>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Entry {
    ran: AtomicUsize,
    dropped: AtomicUsize,
}

impl Tally {
    fn of(tasks: usize) -> Arc<Tally> {
        Arc::new(Tally {
            tasks: (0..tasks).map(|_| Entry::default()).collect(),
            next: AtomicUsize::new(0),
        })
    }

    /// The next task.
    fn ticket(self: &Arc<Self>) -> Ticket {
        Ticket {
            tally: self.clone(),
            number: self.next.fetch_add(1, SeqCst),
        }
    }

    fn task(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let ticket = self.ticket();
        async move { ticket.ran() }
    }

    /// Each was dropped once, and has run once or not at all. Returns how many have run.
    fn ran(&self) -> u64 {
        assert_eq!(
            self.next.load(SeqCst),
            self.tasks.len(),
            "all were deferred"
        );
        let ran = self.tasks.iter().map(|task| {
            let (ran, dropped) = (task.ran.load(SeqCst), task.dropped.load(SeqCst));
            assert!(ran <= 1 && dropped == 1, "{ran} runs, {dropped} drops");
            ran as u64
        });
        ran.sum()
    }
}

/// One task: it is in its future, or in its closure.
struct Ticket {
    tally: Arc<Tally>,
    number: usize,
}

impl Ticket {
    fn ran(&self) {
        self.tally.tasks[self.number].ran.fetch_add(1, SeqCst);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tally.tasks[self.number].dropped.fetch_add(1, SeqCst);
    }
}

/// Runs `work` on so many threads, which begin at once, and waits until they are gone, their thread-locals too.
fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let (barrier, work) = (&barrier, &work);
        let spawn = |number| {
            scope.spawn(move || {
                barrier.wait();
                work(number);
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        // A scope does not wait for the destructors of thread-locals; `join` does.
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Sentence 19: every value of `Stats` that is read while requests of all kinds end on many threads balances, no count
/// ever falls, and the last value has every task where it belongs.
///
/// Broken: `Account::total` read the first defers before the shards were locked.
#[test]
fn every_value_of_stats_balances_under_load() {
    const REQUESTS: usize = 3_000;
    let total = (THREADS * REQUESTS) as u64;
    let runner = Runner::new(Threads::default());
    let tally = Tally::of(THREADS * REQUESTS * 5);
    let over = AtomicBool::new(false);
    let serve = |_| {
        for _ in 0..REQUESTS {
            let request = async {
                after::defer(tally.task());
                after::task("replaced").key("k").defer(tally.task());
                after::task("instead").key("k").defer(tally.task());
                after::task("discarded").on_failure().defer(tally.task());
            };
            block_on(runner.scope(request));
            let lost = async { after::defer(tally.task()) };
            let ((), batch) = block_on(runner.scope(lost).held());
            drop(batch);
        }
    };
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut before = runner.stats();
            while !over.load(SeqCst) {
                let now = balanced(&runner);
                assert!(
                    now.pending <= now.deferred && now.deferred <= 5 * total,
                    "{now:?}"
                );
                let falls = ends(before).into_iter().zip(ends(now)).any(|(b, n)| n < b);
                assert!(!falls, "{before:?}, then {now:?}");
                before = now;
            }
        });
        on_threads(THREADS, serve);
        block_on(runner.drain());
        over.store(true, SeqCst);
        reader.join().unwrap();
    });
    let stats = runner.stats();
    assert_eq!((stats.deferred, stats.pending), (5 * total, 0));
    assert_eq!((stats.discarded, stats.lost), (2 * total, total));
    assert_eq!((stats.completed, tally.ran()), (2 * total, 2 * total));
}

fn ends(stats: Stats) -> [u64; 4] {
    [stats.deferred, stats.completed, stats.discarded, stats.lost]
}

/// Sentence 4: requests and batches that go from thread to thread, several in turn on each, in boxes that others have
/// left there, never see each other's values.
///
/// Broken: `spare::keep` kept boxes with their context.
#[test]
fn requests_that_change_threads_keep_to_themselves() {
    const REQUESTS: usize = 1_000;
    const POLLS: usize = 5;
    type Job = Pin<Box<dyn Future<Output = ()> + Send>>;
    let jobs = Arc::new(Mutex::new(VecDeque::<Job>::new()));
    let spawned = jobs.clone();
    let runner = Runner::new(spawner::from_fn(move |batch| {
        spawned.lock().unwrap().push_back(Box::pin(batch));
    }));
    let tally = Tally::of(REQUESTS * POLLS);
    let strangers = Arc::new(AtomicUsize::new(0));
    let request = |own: usize| -> Job {
        let (tally, strangers) = (tally.clone(), strangers.clone());
        // Every other request has a secret.
        let secret = (own.is_multiple_of(2)).then_some(own as u64);
        let look = move || {
            let seen = (after::context::get::<usize>(), after::context::get::<u64>());
            strangers.fetch_add(usize::from(seen != (Some(own), secret)), SeqCst);
        };
        Box::pin(runner.scope(async move {
            after::context::set(own);
            if let Some(secret) = secret {
                after::context::set(secret);
            }
            for _ in 0..POLLS {
                look();
                let (look, ticket) = (look.clone(), tally.ticket());
                after::defer(async move {
                    look();
                    yields(1).await;
                    look();
                    ticket.ran();
                });
                yields(1).await;
            }
        }))
    };
    // Whoever has time polls the first in the queue once; there are a few requests at any time.
    let next = AtomicUsize::new(0);
    on_threads(THREADS, |_| {
        loop {
            let number = next.fetch_add(1, SeqCst);
            if number < REQUESTS {
                jobs.lock().unwrap().push_back(request(number));
            }
            for _ in 0..2 * POLLS {
                let job = jobs.lock().unwrap().pop_front();
                if let Some(mut job) = job {
                    assert!(!after::in_scope());
                    if poll_once(job.as_mut()).is_pending() {
                        jobs.lock().unwrap().push_back(job);
                    }
                } else if number >= REQUESTS {
                    return;
                }
            }
        }
    });
    assert_eq!(tally.ran(), (REQUESTS * POLLS) as u64);
    assert_eq!(strangers.load(SeqCst), 0);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentences 7 and 15: what many threads defer through handles, before the end of the request, beside it, and while its
/// batch runs and ends on the pool, runs once.
///
/// Broken: `Inbox::store` locked twice, once to look at the phase and once to store, with a
/// `thread::yield_now` between (without, this takes luck; the models find it always).
#[test]
fn what_handles_defer_on_many_threads_runs_once() {
    const ROUNDS: usize = 300;
    const EACH: usize = 20;
    let runner = Runner::new(Threads::default());
    let tally = Tally::of(ROUNDS * THREADS * EACH);
    for _ in 0..ROUNDS {
        let given = Mutex::new(None);
        let mut request = Box::pin(runner.scope(async {
            *given.lock().unwrap() = Some(after::handle());
            yields(1).await;
        }));
        assert!(poll_once(request.as_mut()).is_pending());
        let handle = given.lock().unwrap().take().unwrap();
        let request = Mutex::new(request);
        on_threads(THREADS, |number| {
            for each in 0..EACH {
                if (number, each) == (0, EACH / 2) {
                    assert!(poll_once(request.lock().unwrap().as_mut()).is_ready());
                }
                handle.defer(tally.task());
            }
        });
    }
    block_on(runner.drain());
    let total = (ROUNDS * THREADS * EACH) as u64;
    assert_eq!((runner.stats().completed, tally.ran()), (total, total));
}

/// Sentences 18b and 19: batches whose tasks have wakers of their own are dropped while other threads wake the tasks
/// and poll the batch. Each task has ended, or is lost.
///
/// Broken: `Registry::take_running` did not give back what has wakers of its own.
#[test]
fn tasks_of_batches_that_are_dropped_have_ended_or_are_lost() {
    const ROUNDS: usize = 500;
    // More than a turn polls, so that each gets a waker.
    const TASKS: usize = 40;
    let (runner, batches) = keeping();
    let tally = Tally::of(ROUNDS * TASKS);
    for round in 0..ROUNDS {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..TASKS).map(|_| oneshot::channel()).unzip();
        now_or_never(runner.scope(async {
            for receiver in receivers {
                let ticket = tally.ticket();
                after::defer(async move {
                    if receiver.await.is_ok() {
                        ticket.ran();
                    }
                });
            }
        }));
        let mut batch = batches.take_one();
        for _ in 0..4 {
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
        }
        let batch = Mutex::new(Some(batch));
        let senders = Mutex::new(senders);
        on_threads(THREADS, |number| {
            if number == 0 {
                let mut batch = batch.lock().unwrap().take().unwrap();
                for _ in 0..round % 3 {
                    let _ = poll_once(Pin::new(&mut batch));
                }
                drop(batch);
            }
            loop {
                let Some(sender) = senders.lock().unwrap().pop() else {
                    return;
                };
                // Its task may be gone.
                let _ = sender.send(());
            }
        });
    }
    let stats = balanced(&runner);
    assert_eq!(
        (stats.deferred, stats.pending),
        ((ROUNDS * TASKS) as u64, 0)
    );
    assert_eq!(stats.completed, tally.ran());
}

/// Sentence 21: no more tasks than permits run at once, over requests that resolve, are dropped, wait for room and lose
/// what they have deferred; afterwards every permit is there, and all room.
///
/// Broken: `Limit::grant` gave one permit too many. Broken too: `Room::drop` did not give back the room that it was
/// promised.
#[test]
fn permits_and_room_survive_many_threads() {
    const PERMITS: usize = 3;
    const REQUESTS: usize = 600;
    for overflow in [Overflow::Backpressure, Overflow::Shed] {
        let builder = Runner::builder().spawner(Threads::default());
        let limited = builder.max_running(PERMITS).max_waiting(2);
        let runner = limited.overflow(overflow).build();
        let tally = Tally::of(THREADS * REQUESTS * 2 + PERMITS);
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let task = || {
            let (ticket, running, most) = (tally.ticket(), running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                let _permit = Leaves { running };
                yields(1).await;
                ticket.ran();
            }
        };
        on_threads(THREADS, |_| {
            for number in 0..REQUESTS {
                let tasks = [task(), task()];
                let request = async {
                    tasks.into_iter().for_each(after::defer);
                    yields(usize::from(number % 4 == 1)).await;
                };
                let request = runner.scope(request);
                match number % 4 {
                    // Dropped before its end, or before there is room for its tasks, or when there just was.
                    1 | 2 => {
                        let mut request = pin!(request);
                        let _ = poll_once(request.as_mut());
                        thread::yield_now();
                    }
                    3 => drop(block_on(request.held())),
                    _ => block_on(request),
                }
            }
        });
        block_on(runner.drain());
        assert!(most.load(SeqCst) <= PERMITS);
        // Each waits until all are there.
        let arrived = Arc::new(AtomicUsize::new(0));
        block_on(runner.scope(async {
            for _ in 0..PERMITS {
                let (ticket, arrived) = (tally.ticket(), arrived.clone());
                after::defer(async move {
                    arrived.fetch_add(1, SeqCst);
                    while arrived.load(SeqCst) < PERMITS {
                        yields(1).await;
                    }
                    ticket.ran();
                });
            }
        }));
        block_on(runner.drain());
        let stats = balanced(&runner);
        assert_eq!(stats.completed, tally.ran());
        assert_eq!(stats.completed + stats.shed + stats.lost, stats.deferred);
    }
}

/// A task that runs.
struct Leaves {
    running: Arc<AtomicUsize>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.running.fetch_sub(1, SeqCst);
    }
}

/// Sentence 20: of several drains that wait while the last tasks end on many threads, none misses it, and none returns
/// while a task of its own thread is pending.
///
/// Broken: `Account::change_watched` advanced the signal after it had unlocked the shards, and a `thread::yield_now`.
#[test]
fn drains_on_many_threads_all_return() {
    const ROUNDS: usize = 1_000;
    let runner = Runner::new(Threads::default());
    let tally = Tally::of(ROUNDS * THREADS);
    let early = AtomicUsize::new(0);
    on_threads(THREADS, |_| {
        for _ in 0..ROUNDS {
            let ended = Arc::new(AtomicBool::new(false));
            let (ticket, ends) = (tally.ticket(), ended.clone());
            let task = async move {
                yields(1).await;
                ticket.ran();
                ends.store(true, SeqCst);
            };
            block_on(runner.scope(async { after::defer(task) }));
            block_on(runner.drain());
            early.fetch_add(usize::from(!ended.load(SeqCst)), SeqCst);
        }
    });
    assert_eq!(early.load(SeqCst), 0);
    assert_eq!(tally.ran(), (ROUNDS * THREADS) as u64);
}

/// Sentence 13: closures on the blocking pool run once, whichever of their threads returns first.
///
/// Broken: `Blocking::poll_work` locked twice, once to look and once to leave its waker, with a `thread::yield_now`
/// between.
#[test]
fn closures_of_many_requests_run_once() {
    const REQUESTS: usize = 100;
    const CLOSURES: usize = 5;
    let runner = Runner::new(Threads::default());
    let tally = Tally::of(THREADS * REQUESTS * CLOSURES);
    on_threads(THREADS, |_| {
        for _ in 0..REQUESTS {
            block_on(runner.scope(async {
                for _ in 0..CLOSURES {
                    let ticket = tally.ticket();
                    after::defer_blocking(move || ticket.ran());
                }
            }));
        }
    });
    block_on(runner.drain());
    let stats = balanced(&runner);
    assert_eq!(
        (stats.completed, tally.ran()),
        (stats.deferred, stats.deferred)
    );
}

thread_local! {
    static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) };
}

/// Serves a request when its thread exits.
struct AtExit {
    runner: Runner,
    tally: Arc<Tally>,
}

impl Drop for AtExit {
    fn drop(&mut self) {
        let task = self.tally.task();
        now_or_never(self.runner.scope(async { after::defer(task) }));
        let outside = after::try_defer(async {});
        drop(outside.unwrap_err().into_inner());
    }
}

/// Sentences 5 and 10: threads that come and go serve requests, the last one in the destructor of a thread-local, where
/// the spare boxes may have gone.
///
/// Broken: `spare::active` used `with` instead of `try_with`.
#[test]
fn threads_that_exit_hand_over() {
    const GENERATIONS: usize = 50;
    let runner = Runner::new(Threads::default());
    let tally = Tally::of(GENERATIONS * THREADS * 2);
    for _ in 0..GENERATIONS {
        on_threads(THREADS, |number| {
            let at_exit = AtExit {
                runner: runner.clone(),
                tally: tally.clone(),
            };
            let register = || AT_EXIT.with(|slot| *slot.borrow_mut() = Some(at_exit));
            let serve = || now_or_never(runner.scope(async { after::defer(tally.task()) }));
            // Thread-locals are destroyed in the reverse order of their first use: before and after the spare boxes.
            if number.is_multiple_of(2) {
                register();
                serve();
            } else {
                serve();
                register();
            }
        });
    }
    block_on(runner.drain());
    let stats = balanced(&runner);
    assert_eq!(
        (stats.deferred, stats.completed),
        (tally.ran(), tally.ran())
    );
}

/// Sentence 15: what a handle defers while its request ends is handed over with it, when the tasks wait for a guard and the
/// handle is gone at once. Loom sees no way between the last look into the inbox and the count of handles.
///
/// Broken: `hand_over_on_slow_path` counted the handles, and did not look into the inbox after that.
#[test]
fn what_a_handle_defers_beside_the_end_of_a_request_with_a_guard_is_not_lost() {
    const REQUESTS: usize = 50_000;
    let (runner, batches) = keeping();
    let (step, slot) = (AtomicUsize::new(0), Mutex::new(None::<after::Handle>));
    let reaches = |wanted| {
        for looks in 1_u32.. {
            if step.load(SeqCst) >= wanted {
                break;
            }
            // On a machine with one processor.
            if looks % 4096 == 0 {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    };
    thread::scope(|threads| {
        threads.spawn(|| {
            for request in 0..REQUESTS {
                reaches(3 * request + 1);
                let handle = slot.lock().unwrap().take().unwrap();
                step.store(3 * request + 2, SeqCst);
                for _ in 0..request % 64 {
                    std::hint::spin_loop();
                }
                handle.defer(async {});
                drop(handle);
                step.store(3 * request + 3, SeqCst);
            }
        });
        for number in 0..REQUESTS {
            let mut request = runner.open();
            *slot.lock().unwrap() = Some(request.handle());
            let unwritten = request.start_guard();
            step.store(3 * number + 1, SeqCst);
            reaches(3 * number + 2);
            request.end(after::Outcome::Finished);
            reaches(3 * number + 3);
            drop(unwritten);
            batches.take_all().into_iter().for_each(block_on);
        }
    });
    assert_eq!(balanced(&runner).completed, REQUESTS as u64);
}
