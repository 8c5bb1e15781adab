//! What is allocated and held, and how often tasks are polled: nothing until something is deferred, then one box a task
//! and one a scope; the same for each task however many there are; and given back when a task has ended.

mod common;

use std::{
    future::{Future, poll_fn},
    mem::size_of_val,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use after::Batch;
use allocation_counter::{AllocationInfo, measure};
use common::{keeping, now_or_never, poll_once, polls_to_end, yields};
use futures::task::AtomicWaker;

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

/// Sentence 1: nor does one in pieces, whatever its pieces and its end are, and on any Runner.
#[test]
fn an_idle_open_scope_allocates_nothing() {
    let limited = after::Runner::builder()
        .max_running(1)
        .max_waiting(1)
        .build();
    let allocated = measure(|| {
        let mut scope = after::open();
        scope.enter(|| assert!(after::in_scope()));
        now_or_never(scope.scope(async { assert!(!after::forget("nothing")) }));
        now_or_never(scope.ready());
        scope.end(after::Outcome::Finished);
        after::open().hold(after::Outcome::Failed).release();
        drop(after::open());
        let mut scope = limited.open();
        now_or_never(scope.scope(async {}));
        now_or_never(scope.ready());
        scope.end(after::Outcome::Finished);
    });
    assert_eq!(allocated.count_total, 0);
}

/// A request in pieces costs what one in a scope does, for any number of tasks and pieces.
#[test]
fn a_request_in_pieces_allocates_what_a_scope_does() {
    let (runner, batches) = keeping();
    let in_pieces = |tasks| {
        let mut scope = runner.open();
        for _ in 0..tasks {
            scope.enter(|| after::defer(async {}));
        }
        scope.end(after::Outcome::Finished);
    };
    let in_one = |tasks| {
        now_or_never(runner.scope(async {
            for _ in 0..tasks {
                after::defer(async {});
            }
        }));
    };
    let allocations = |request: &dyn Fn(usize), tasks| {
        let allocated = measure(|| request(tasks)).count_total;
        polls_to_end(&mut batches.take_one(), 3);
        allocated
    };
    // The first ones fill what is reused.
    allocations(&in_one, 8);
    for tasks in [1, 3, 8] {
        assert_eq!(allocations(&in_pieces, tasks), allocations(&in_one, tasks));
    }
}

/// A scope is five words, beside its future and what that says of the output.
#[test]
fn a_scope_is_five_words_beyond_its_future() {
    let request = Box::pin(async {});
    let own = size_of_val(&request);
    assert!(size_of_val(&after::scope(request)) <= own + 5 * size_of::<usize>());
}

/// For 1, 3 and 8 tasks n + 1 allocations: a box each, and the runtime's own for the batch. The box of the scope is
/// that of one before.
#[cfg(feature = "tokio")]
#[test]
fn n_tasks_cost_n_plus_one_allocations() {
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
            assert_eq!(requests.count_total, n + 1, "{n} tasks");
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

/// A task that is deferred holds its future and seven words: five in its box, and two of a list, which has at most twice the
/// room that it needs.
#[test]
fn a_deferred_task_holds_seven_words_beyond_its_future() {
    let (runner, batches) = common::keeping();
    let held = |tasks: usize| {
        let mut scope = Box::pin(runner.scope(async move {
            for _ in 0..tasks {
                after::defer(poll_fn(|_| Poll::Ready(())));
            }
            yields(1).await;
        }));
        let deferred = measure(|| assert!(poll_once(scope.as_mut()).is_pending()));
        now_or_never(scope);
        let mut batch = batches.take_one();
        while poll_once(Pin::new(&mut batch)).is_pending() {}
        deferred.bytes_current as usize / size_of::<usize>()
    };
    // The first scope makes a box that the others reuse.
    held(1);
    assert!(held(1) <= 7);
    assert!(held(1_024) <= 1_024 * 7);
    assert!(held(1_025) <= 1_025 * 9);
}

/// One task of one scope holds at most 400 bytes besides its future, handed over and waiting, of which 128 are the runtime's:
/// here without these, which is what a service keeps for each of a million slow tasks.
#[test]
#[cfg(target_pointer_width = "64")]
fn one_task_in_one_scope_holds_less_than_272_bytes_beyond_its_future() {
    let (runner, batches) = keeping();
    let request = || {
        now_or_never(runner.scope(async { after::defer(futures::future::pending::<()>()) }));
        let mut batch = batches.take_one();
        let _ = poll_once(Pin::new(&mut batch));
        let _ = poll_once(Pin::new(&mut batch));
        batch
    };
    // The test's own list.
    let first = request();
    let mut second = None;
    let held = measure(|| second = Some(request())).bytes_current;
    let future = size_of::<futures::future::Pending<()>>() as i64;
    // The roster grows by four places at once: three are for others.
    let places = 3 * 56;
    assert!(held - future - places < 272, "{held}");
    drop((first, second));
}

/// The cost of a task does not depend on how many its scope has: within 1.3 the same number of allocations and of polls,
/// whether the tasks end at once, are woken together, or one by one.
#[test]
fn a_task_costs_the_same_in_a_scope_of_100_as_in_one_of_100_000() {
    for mode in [Waking::Never, Waking::AtOnce, Waking::OneByOne] {
        let hundred = cost_of_a_task(100, mode);
        for tasks in [1_000, 10_000, 100_000] {
            let (allocations, polls) = cost_of_a_task(tasks, mode);
            println!("{mode:?}, {tasks} tasks: {allocations} allocations and {polls} polls a task");
            assert!(allocations <= 1.3 * hundred.0, "{tasks} tasks, {mode:?}");
            assert!(polls <= 1.3 * hundred.1, "{tasks} tasks, {mode:?}");
        }
    }
}

/// Sentence 18: when 1,000 of 1,001 tasks have ended, what they held is free again, though one of their scope is stuck:
/// beside it stays less than a twentieth.
#[test]
fn the_memory_of_tasks_that_have_ended_is_given_back_while_one_is_stuck() {
    let mut all = Request::new(1_001, 1);
    let before = all.hand_over().bytes_current;
    let ran = measure(|| {
        all.poll();
        for gate in &all.gates[..1_000] {
            gate.open();
        }
        all.poll();
    });
    assert_eq!(all.batch.as_ref().unwrap().len(), 1);
    let after = before + ran.bytes_current;
    println!("{before} bytes at the hand-over, {after} when one is left");
    assert!(after < before / 20, "{after} bytes of {before}");
}

#[derive(Clone, Copy, Debug)]
enum Waking {
    Never,
    AtOnce,
    OneByOne,
}

/// Allocations and polls of a task, from its deferral to its end.
fn cost_of_a_task(tasks: usize, waking: Waking) -> (f64, f64) {
    let wakes = usize::from(!matches!(waking, Waking::Never));
    let mut request = Request::new(tasks, wakes);
    let deferred = request.hand_over();
    let ran = measure(|| {
        request.poll();
        match waking {
            Waking::Never => {}
            Waking::AtOnce => {
                request.gates.iter().for_each(Gate::open);
                request.poll();
            }
            Waking::OneByOne => {
                for gate in 0..tasks {
                    request.gates[gate].open();
                    request.poll();
                }
            }
        }
    });
    assert!(request.batch.is_none(), "all have ended");
    let allocations = deferred.count_total + ran.count_total;
    let polls = request.polls.load(SeqCst);
    let tasks = tasks as f64;
    (allocations as f64 / tasks, polls as f64 / tasks)
}

/// A request whose tasks each wait at a gate of their own, and its batch, polled by hand whenever it is woken.
struct Request {
    gates: Arc<[Gate]>,
    polls: Arc<AtomicUsize>,
    wakes: usize,
    batch: Option<Batch>,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Gate {
    is_open: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Flag {
    is_set: AtomicBool,
}

/// Waits at its gate so many times.
struct Gated {
    gates: Arc<[Gate]>,
    polls: Arc<AtomicUsize>,
    gate: usize,
    wakes: usize,
}

impl Request {
    fn new(tasks: usize, wakes: usize) -> Self {
        Request {
            gates: (0..tasks).map(|_| Gate::default()).collect(),
            polls: Arc::default(),
            wakes,
            batch: None,
            woken: Arc::default(),
        }
    }

    fn hand_over(&mut self) -> AllocationInfo {
        let (runner, batches) = common::keeping();
        let handed_over = measure(|| {
            now_or_never(runner.scope(async {
                for gate in 0..self.gates.len() {
                    after::defer(Gated {
                        gates: self.gates.clone(),
                        polls: self.polls.clone(),
                        gate,
                        wakes: self.wakes,
                    });
                }
            }));
        });
        self.batch = Some(batches.take_one());
        self.woken.is_set.store(true, SeqCst);
        handed_over
    }

    /// Polls the batch until nobody has woken it.
    fn poll(&mut self) {
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        while self.woken.is_set.swap(false, SeqCst) {
            let Some(batch) = &mut self.batch else {
                return;
            };
            if Pin::new(batch).poll(&mut cx).is_ready() {
                self.batch = None;
            }
        }
    }
}

impl Gate {
    fn open(&self) {
        self.is_open.store(true, SeqCst);
        self.waker.wake();
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.is_set.store(true, SeqCst);
    }
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.polls.fetch_add(1, SeqCst);
        let this = &mut *self;
        if this.wakes > 0 {
            let gate = &this.gates[this.gate];
            if !gate.is_open.swap(false, SeqCst) {
                // Nobody opens it meanwhile: all of this is on one thread.
                gate.waker.register(cx.waker());
                return Poll::Pending;
            }
            this.wakes -= 1;
        }
        Poll::Ready(())
    }
}

/// Sentence 18, for the account: what many unfinished batches have needed at once does not stay when they are over.
#[test]
fn the_memory_of_a_burst_is_given_back() {
    const BURST: usize = 10_000;
    let (runner, batches) = keeping();
    let hand_over = || now_or_never(runner.scope(async { after::defer(async {}) }));
    let mut last = None;
    let allocated = measure(|| {
        for _ in 0..BURST {
            hand_over();
        }
        let mut burst = batches.take_all();
        // All but one first: a service is hardly ever without any.
        last = burst.pop();
        for mut batch in burst {
            polls_to_end(&mut batch, 3);
        }
    });
    assert!(allocated.bytes_max > 100 * BURST as u64);
    // What stays for one that was vacated is its place in the list.
    assert!(
        allocated.bytes_current < 100 * BURST as i64,
        "{allocated:?}"
    );
    let given_back = measure(|| {
        polls_to_end(&mut last.take().unwrap(), 3);
    });
    let left = allocated.bytes_current + given_back.bytes_current;
    assert!(left < 64 * 1_024, "{left} bytes left");

    // And what is kept for the next is used, and in order: nobody takes another's place.
    hand_over();
    assert_eq!(runner.stats().pending, 1);
    assert_eq!(
        now_or_never(runner.shutdown(std::time::Duration::ZERO))
            .unfinished()
            .len(),
        1
    );
    for mut batch in batches.take_all() {
        polls_to_end(&mut batch, 3);
    }
    assert_eq!(runner.stats().completed, BURST as u64 + 1);
}

/// When a burst is over, and some of its batches still run, a request costs as many allocations as before it.
#[test]
fn after_a_burst_a_request_allocates_no_more_than_before() {
    let (runner, batches) = keeping();
    let request = || {
        measure(|| {
            now_or_never(runner.scope(async { after::defer(async {}) }));
            polls_to_end(&mut batches.take_all().pop().unwrap(), 3);
        })
        .count_total
    };
    request();
    let before = request();
    for _ in 0..1_000 {
        now_or_never(runner.scope(async { after::defer(async {}) }));
    }
    let mut burst = batches.take_all();
    for batch in &mut burst[1..] {
        polls_to_end(batch, 3);
    }
    // The spawner's own list of batches may have grown with the first.
    request();
    assert_eq!(request(), before);
}

/// Sentence 18: what keys needed is given back when their tasks have ended or were taken back, though the scope goes on.
#[test]
fn the_memory_of_keys_is_given_back_while_their_scope_goes_on() {
    let (runner, batches) = keeping();
    let held = |keys: usize| {
        let mut request = Box::pin(runner.scope(async {
            after::defer(futures::future::pending::<()>());
            for key in 0..keys {
                after::task("keyed").key(key.to_string()).defer(async {});
            }
        }));
        let mut batch = None;
        let allocated = measure(|| {
            now_or_never(request.as_mut());
            let left = batch.insert(batches.take_one());
            while left.len() > 1 {
                let _ = poll_once(Pin::new(&mut *left));
            }
        });
        allocated.bytes_current
    };
    held(10);
    let many = held(10_000);
    assert!(many < 10_000, "{many}");
    let mut request = Box::pin(runner.scope(async {
        for key in 0..10_000 {
            after::task("keyed").key(key.to_string()).defer(async {});
        }
        for key in 0..10_000 {
            assert!(after::forget(&key.to_string()));
        }
        std::future::pending::<()>().await;
    }));
    let taken_back = measure(|| assert!(poll_once(request.as_mut()).is_pending()));
    assert!(taken_back.bytes_current < 1_000, "{taken_back:?}");
}

/// Sentence 15: what a scope needed for keys is given back with it, also when each task was taken back: a thread keeps a few
/// boxes for the next scope, and a client may say how many keys there are.
#[test]
fn keys_that_were_taken_back_leave_nothing_behind() {
    let (runner, batches) = common::keeping_with(|builder| builder.on_defer(|_, task| task));
    let take_back = |keys: usize| {
        now_or_never(runner.scope(async {
            for key in 0..keys {
                after::task("keyed").key(key.to_string()).defer(async {});
            }
            for key in 0..keys {
                assert!(after::forget(&key.to_string()));
            }
        }));
        drop(batches.take_all());
    };
    let few = measure(|| take_back(100));
    assert!(few.bytes_current < 16_000, "kept for the next: {few:?}");
    let many = measure(|| take_back(1_000));
    assert!(many.bytes_current < 100, "{many:?}");
}

/// Sentence 18: what a batch holds does not depend on how many tasks have been in it: one that defers another whenever it is
/// polled, for ever, with siblings or alone, holds no more after 20,000 polls than after 100.
#[test]
fn a_batch_that_goes_on_for_ever_holds_no_more() {
    for siblings in 0..3 {
        let (runner, batches) = keeping();
        now_or_never(runner.scope(async {
            for _ in 0..siblings {
                after::defer(futures::future::pending::<()>());
            }
            after::defer(poll_fn(|cx| {
                after::defer(async {});
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
        }));
        let mut batch = batches.take_one();
        let mut poll = |times| {
            for _ in 0..times {
                assert!(poll_once(Pin::new(&mut batch)).is_pending());
            }
        };
        poll(100);
        let held = measure(|| poll(20_000)).bytes_current;
        assert!(held < 1_000, "{held} bytes, {siblings} siblings");
    }
}

/// The memory that is asked for on the way of a task does not depend on how many others its scope has, one by one under a limit
/// or in order; and when one is left, the room of the others is given back.
#[test]
fn one_task_at_a_time_asks_for_the_same_memory_in_a_scope_of_100_as_in_one_of_10_000() {
    for sequential in [false, true] {
        let bytes = |tasks: usize| {
            let (runner, batches) = common::keeping_with(|builder| match sequential {
                true => builder.order(after::Order::Sequential),
                false => builder.max_running(1),
            });
            let request = async {
                for task in 0..=tasks {
                    let last = task == tasks;
                    after::defer(poll_fn(move |_| match last {
                        true => Poll::Pending,
                        false => Poll::Ready(()),
                    }));
                }
            };
            let mut batch = None;
            let handed_over = measure(|| {
                now_or_never(runner.scope(request));
                batch = Some(batches.take_one());
            });
            let mut batch = batch.expect("there are tasks");
            let ran = measure(|| {
                let mut polls = 0;
                while batch.len() > 1 {
                    assert!(poll_once(Pin::new(&mut batch)).is_pending());
                    polls += 1;
                    assert!(polls < 4 * tasks + 10);
                }
                let _ = poll_once(Pin::new(&mut batch));
            });
            let left = handed_over.bytes_current + ran.bytes_current;
            assert!(left < 6_000, "{left} bytes for one task of {tasks}");
            (handed_over.bytes_total + ran.bytes_total) / tasks as u64
        };
        bytes(100);
        let hundred = bytes(100);
        let many = bytes(10_000);
        assert!(many <= 2 * hundred, "{hundred} bytes, {many} of 10,000");
    }
}
