//! What an integration of one's own needs of an open scope, in a type that is polled and dropped: room that is waited for in
//! a poll, tasks that run at the head of a stream, tasks that start with the last byte, and destructors.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use after::{Handle, OpenScope, Order, Outcome, Overflow, Runner, StartGuard};
use allocation_counter::measure;
use common::{
    Batches, CountingWaker, Log, balanced, is_child, keeping, keeping_with, now_or_never,
    poll_once, polls_to_end, standard_error_of, yields,
};

fn defer_note(log: &Log, entry: &'static str) {
    let log = log.clone();
    after::defer(async move { log.add(format!("{entry} {:?}", after::outcome().unwrap())) });
}

/// Integrations keep them in bodies and connections, which frameworks may ask to be both.
#[test]
fn they_may_be_sent_and_shared() {
    fn is_both<T: Send + Sync>() {}
    is_both::<OpenScope>();
    is_both::<StartGuard>();
    is_both::<Handle>();
}

every_runtime! {
    /// Sentence 22b: on every runtime the tasks start when the last guard goes, on whichever thread.
    async fn tasks_start_when_the_last_guard_goes(runner) {
        let log = Log::new();
        let mut request = runner.open();
        request.enter(|| {
            defer_note(&log, "first");
            let log = log.clone();
            after::task("apart").spawned().defer(async move { log.add("apart") });
        });
        let guards = [request.start_guard(), request.start_guard()];
        request.end(Outcome::Finished);
        yields(20).await;
        log.assert(&[]);
        assert_eq!(runner.stats().pending, 2);
        let threads = guards.map(|guard| std::thread::spawn(move || drop(guard)));
        runner.drain().await;
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut entries = log.entries();
        entries.sort();
        assert_eq!(entries, ["apart", "first Finished"]);
        assert_eq!(balanced(&runner).completed, 2);
    }

    /// Sentence 22: on every runtime a stream's tasks run at its head, and what its pieces defer later at once.
    async fn at_the_head_of_a_stream_its_tasks_run(runner) {
        let log = Log::new();
        let mut stream = runner.open().order(Order::Sequential);
        stream.enter(|| defer_note(&log, "head"));
        stream.hand_over(Outcome::Finished);
        runner.drain().await;
        for entry in ["first", "second"] {
            stream.enter(|| defer_note(&log, entry));
            stream.hand_over(Outcome::Failed);
            runner.drain().await;
        }
        log.assert(&["head Finished", "first Finished", "second Finished"]);
        drop(stream);
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 3);
    }
}

/// Sentence 22b: while there is a guard or a clone of one nothing starts, however often the batch is polled; the last to go
/// wakes it, once.
#[test]
fn nothing_starts_while_a_guard_is_there() {
    for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let mut request = runner.open().order(order);
        let first = request.start_guard();
        request.enter(|| defer_note(&log, "task"));
        let second = request.start_guard();
        let clone = second.clone();
        request.end(Outcome::Failed);
        let mut batch = batches.take_one();
        let (counter, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        for guard in [first, clone] {
            for _ in 0..3 {
                assert!(Pin::new(&mut batch).poll(&mut cx).is_pending());
            }
            drop(guard);
            assert_eq!((counter.wakes(), batches.len()), (0, 0), "{order:?}");
        }
        drop(second);
        assert_eq!(counter.wakes(), 1, "{order:?}");
        log.assert(&[]);
        polls_to_end(&mut batch, 5);
        batches.drive(5);
        log.assert(&["task Failed"]);
        assert_eq!(balanced(&runner).completed, 1);
    }
}

/// Sentence 22b: guards that are gone at the end keep nothing from starting, nor do those of a scope that has none.
#[test]
fn guards_that_are_gone_by_the_end_change_nothing() {
    let (runner, batches) = keeping();
    for guards in [0, 1, 2] {
        let mut request = runner.open();
        request.enter(|| {
            after::defer(async {});
            after::task("apart").spawned().defer(async {});
        });
        for _ in 0..guards {
            drop(request.start_guard());
        }
        request.end(Outcome::Finished);
        // What goes its own way would wait with the rest.
        assert_eq!(batches.len(), 2, "{guards} guards");
        batches.drive(5);
    }
    // One that was not used hands over nothing, guards or not.
    let mut request = runner.open();
    let guard = request.start_guard();
    request.end(Outcome::Finished);
    drop(guard);
    assert_eq!((batches.len(), balanced(&runner).pending), (0, 0));
}

/// Sentences 12 and 22b: a held one waits for its guards, too; its conditions are decided, and what is not to run is gone.
#[test]
fn a_held_batch_waits_for_its_guards() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut request = runner.open();
    request.enter(|| {
        defer_note(&log, "kept");
        after::task("discarded").on_failure().defer(async {});
    });
    let guard = request.start_guard();
    let mut batch = request.hold(Outcome::Finished);
    assert!(batch.names().count() == 1 && balanced(&runner).discarded == 1);
    for _ in 0..5 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    log.assert(&[]);
    drop(guard);
    polls_to_end(&mut batch, 5);
    log.assert(&["kept Finished"]);
    assert_eq!(batches.len(), 0);
}

/// Sentence 18b: a batch that is dropped while it waits for a guard is lost, and the guard may go later.
#[test]
fn a_batch_that_is_dropped_while_it_waits_is_lost() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    request.enter(|| after::defer(async {}));
    let guard = request.start_guard();
    request.end(Outcome::Finished);
    let mut batch = batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    drop(batch);
    assert_eq!(balanced(&runner).lost, 1);
    drop(guard);
    assert_eq!((batches.len(), balanced(&runner).pending), (0, 0));
}

/// Sentence 15: what a handle defers while the tasks wait starts with them.
#[test]
fn what_a_handle_defers_meanwhile_starts_with_the_rest() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut request = runner.open();
    let handle = request.handle();
    request.enter(|| defer_note(&log, "first"));
    let guard = request.start_guard();
    request.end(Outcome::Finished);
    let mut batch = batches.take_one();
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    let noting = log.clone();
    handle.defer(async move { noting.add("meanwhile") });
    assert!(poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(batches.len(), 0);
    drop(guard);
    polls_to_end(&mut batch, 5);
    log.assert(&["first Finished", "meanwhile"]);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 1: what is not asked for costs nothing: an open scope without guards allocates nothing, nor does one that is told
/// to hand over and has nothing; a guard is one allocation for all.
#[test]
fn guards_are_one_allocation() {
    let (runner, _batches) = keeping();
    let allocated = |guards: usize| {
        measure(|| {
            let mut request = runner.open();
            request.hand_over(Outcome::Finished);
            let mut waiting = Context::from_waker(std::task::Waker::noop());
            assert!(request.poll_ready(&mut waiting).is_ready());
            request.clean_up("nothing", || {});
            for _ in 0..guards {
                drop(request.start_guard());
            }
            request.end(Outcome::Finished);
        })
        .count_total
    };
    assert_eq!([0, 1, 3].map(allocated), [0, 1, 1]);
}

/// Sentences 12, 15 and 16: at the first hand-over the outcome is decided and the context frozen. Later pieces read it, join
/// the tasks that run, and are batches of their own when these are over.
#[test]
fn what_was_deferred_so_far_is_handed_over_and_the_request_goes_on() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut stream = runner.open();
    stream.enter(|| {
        after::context::set("of the head");
        defer_note(&log, "head");
        after::task("alarm").on_failure().defer(async {});
    });
    stream.hand_over(Outcome::Failed);
    let mut batch = batches.take_one();
    assert!(batch.names().count() == 2, "the condition is decided");
    stream.hand_over(Outcome::Finished);
    stream.enter(|| {
        assert_eq!(after::context::get(), Some("of the head"));
        assert_eq!(after::context::try_set("too late"), Err("too late"));
        defer_note(&log, "joins");
    });
    stream.hand_over(Outcome::Finished);
    assert_eq!(batches.len(), 0);
    polls_to_end(&mut batch, 5);
    log.assert(&["head Failed", "joins Failed"]);
    let piece = stream.scope(async {
        defer_note(&log, "late");
        let value = after::context::get::<&str>();
        assert_eq!(value, Some("of the head"));
    });
    now_or_never(piece);
    polls_to_end(&mut batches.take_one(), 5);
    log.assert(&["head Failed", "joins Failed", "late Failed"]);
    stream.end(Outcome::Finished);
    assert_eq!(batches.len(), 0);
    assert_eq!(balanced(&runner).completed, 4);
}

/// Sentence 8: when there was nothing yet, the next call hands over, or the end: with the outcome of the first call.
#[test]
fn a_stream_that_defers_later_is_handed_over_then() {
    for end in ["hand_over", "end", "drop", "hold"] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let mut stream = runner.open();
        stream.hand_over(Outcome::Failed);
        stream.enter(|| {
            // Not frozen: nothing was handed over.
            after::context::set("later");
            defer_note(&log, "later");
        });
        assert_eq!(batches.len(), 0);
        match end {
            "hand_over" => stream.hand_over(Outcome::Finished),
            "end" => stream.end(Outcome::Finished),
            "drop" => drop(stream),
            _ => stream.hold(Outcome::Finished).release(),
        }
        polls_to_end(&mut batches.take_one(), 5);
        log.assert(&["later Failed"]);
        assert_eq!(balanced(&runner).pending, 0, "{end}");
    }
}

/// Sentence 8: once handed over, its end hands over nothing more, however it comes, and takes nothing out of what runs.
#[test]
fn when_it_was_handed_over_the_end_hands_over_nothing() {
    for end in ["end", "drop", "hold"] {
        let (runner, batches) = keeping();
        let mut stream = runner.open();
        let handle = stream.handle();
        stream.enter(|| after::task("head").defer(async {}));
        stream.hand_over(Outcome::Finished);
        let mut batch = batches.take_one();
        stream.enter(|| after::task("joins").defer(async {}));
        // Guards of a stream whose tasks are out keep nothing from starting.
        let guard = stream.start_guard();
        assert!(poll_once(pin!(stream.ready())).is_ready());
        match end {
            "end" => stream.end(Outcome::Cancelled),
            "drop" => drop(stream),
            _ => assert!(stream.hold(Outcome::Cancelled).is_empty()),
        }
        assert_eq!(batches.len(), 0, "{end}");
        handle.task("late").defer(async {});
        polls_to_end(&mut batch, 5);
        drop(guard);
        assert_eq!(balanced(&runner).completed, 3, "{end}");
    }
}

/// Sentence 22b: what is handed over at the head waits for the guards that there are then.
#[test]
fn what_is_handed_over_waits_for_its_guards() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut stream = runner.open();
    stream.enter(|| defer_note(&log, "head"));
    let guard = stream.start_guard();
    stream.hand_over(Outcome::Finished);
    let mut batch = batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    drop(stream);
    log.assert(&[]);
    drop(guard);
    polls_to_end(&mut batch, 5);
    log.assert(&["head Finished"]);
}

/// One task may run, and so many wait.
fn pushes_back(waiting: usize) -> (Runner, Batches) {
    keeping_with(|builder| {
        builder
            .max_running(1)
            .max_waiting(waiting)
            .overflow(Overflow::Backpressure)
    })
}

fn with_tasks(runner: &Runner, tasks: usize) -> OpenScope {
    let mut request = runner.open();
    request.enter(|| {
        for _ in 0..tasks {
            after::defer(async {});
        }
    });
    request
}

/// A batch that takes all room.
fn full(runner: &Runner, batches: &Batches, tasks: usize) -> after::Batch {
    with_tasks(runner, tasks).end(Outcome::Finished);
    batches.take_one()
}

/// Whether so many tasks have room at once; they run then.
fn has_room(runner: &Runner, batches: &Batches, tasks: usize) -> bool {
    let mut request = with_tasks(runner, tasks);
    let ready = is_ready(&mut request);
    request.end(Outcome::Finished);
    batches.drive(20);
    ready
}

fn is_ready(request: &mut OpenScope) -> bool {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    request.poll_ready(&mut cx).is_ready()
}

/// Sentence 21: between two polls it stands in the line, first come, first served, also when it is entered meanwhile; the
/// waker of its last poll is woken. `ready` goes on from there.
#[test]
fn between_two_polls_it_stands_in_the_line() {
    let (runner, batches) = pushes_back(1);
    let mut all = full(&runner, &batches, 2);
    let [mut first, mut second] = [(); 2].map(|()| with_tasks(&runner, 2));
    let counters = [CountingWaker::new(), CountingWaker::new()];
    for (_, waker) in &counters {
        let mut cx = Context::from_waker(waker);
        assert!(first.poll_ready(&mut cx).is_pending());
    }
    assert!(!is_ready(&mut second));
    first.enter(|| assert!(after::in_scope()));
    polls_to_end(&mut all, 20);
    let woken = counters.each_ref().map(|(counter, _)| counter.wakes());
    assert_eq!(woken, [0, 1]);
    assert!(!is_ready(&mut second));
    assert!(poll_once(pin!(first.ready())).is_ready());
    assert!(is_ready(&mut first), "it has waited");
    first.end(Outcome::Finished);
    polls_to_end(&mut batches.take_one(), 20);
    assert!(is_ready(&mut second));
    second.end(Outcome::Finished);
    polls_to_end(&mut batches.take_one(), 20);
    assert_eq!(balanced(&runner).completed, 6);
}

/// Sentence 21: what ends while it waits, however it does, leaves the line, and the next has its turn: no room is lost.
#[test]
fn one_that_ends_while_it_waits_leaves_the_line() {
    for end in ["end", "drop", "hold", "hand_over", "ready is dropped"] {
        let (runner, batches) = pushes_back(2);
        let mut all = full(&runner, &batches, 3);
        let mut first = with_tasks(&runner, 3);
        let mut second = with_tasks(&runner, 1);
        assert!(!is_ready(&mut first));
        let (counter, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        assert!(second.poll_ready(&mut cx).is_pending());
        let mut left = None;
        match end {
            "end" => first.end(Outcome::Finished),
            "drop" => drop(first),
            "hold" => left = Some(first.hold(Outcome::Finished)),
            "hand_over" => first.hand_over(Outcome::Finished),
            _ => {
                let _ = poll_once(pin!(first.ready()));
                left = Some(first.hold(Outcome::Finished));
            }
        }
        polls_to_end(&mut all, 20);
        batches.drive(20);
        assert_eq!(counter.wakes(), 1, "{end}");
        assert!(second.poll_ready(&mut cx).is_ready(), "{end}");
        second.end(Outcome::Finished);
        batches.drive(20);
        drop(left);
        assert!(has_room(&runner, &batches, 3), "{end}");
        assert_eq!(balanced(&runner).pending, 0, "{end}");
    }
}

/// Sentence 21: dropped with room that it was given and has not asked for, it gives it back.
#[test]
fn room_that_was_granted_and_not_taken_comes_back() {
    for end in ["end", "drop", "hold"] {
        let (runner, batches) = pushes_back(2);
        let mut all = full(&runner, &batches, 3);
        let mut waits = with_tasks(&runner, 3);
        assert!(!is_ready(&mut waits));
        polls_to_end(&mut all, 20);
        match end {
            "end" => waits.end(Outcome::Finished),
            "drop" => drop(waits),
            _ => drop(waits.hold(Outcome::Finished)),
        }
        batches.drive(20);
        assert!(has_room(&runner, &batches, 3), "{end}");
        assert_eq!(balanced(&runner).pending, 0, "{end}");
    }
}

/// Sentence 21: what is handed over at the head uses the room that was waited for.
#[test]
fn what_is_handed_over_uses_the_room_that_was_waited_for() {
    let (runner, batches) = pushes_back(1);
    let mut stream = with_tasks(&runner, 2);
    assert!(is_ready(&mut stream));
    // What can't wait fills all that there is beside.
    let others: Vec<_> = (0..4)
        .map(|_| {
            drop(with_tasks(&runner, 1));
            batches.take_all()
        })
        .collect();
    let shed = runner.stats().shed;
    assert!(shed > 0, "it is full");
    stream.hand_over(Outcome::Finished);
    assert_eq!(runner.stats().shed, shed, "it had its room");
    stream.enter(|| after::defer(async {}));
    assert!(is_ready(&mut stream), "what joins can't wait");
    drop(stream);
    drop(others);
    batches.drive(20);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 21: room that was given is kept until the answer is out; from there on others need not wait for the client.
#[test]
fn room_is_kept_until_the_answer_is_out() {
    let (runner, batches) = pushes_back(1);
    let (outer, _outer_batches) = keeping();
    let mut request = with_tasks(&runner, 2);
    let mut other = with_tasks(&runner, 2);
    // Inside another scope nobody waits for what is lent, not even for a short time.
    now_or_never(outer.scope(async {
        assert!(is_ready(&mut request));
        let (counter, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        assert!(other.poll_ready(&mut cx).is_pending());
        request.answered();
        assert_eq!(counter.wakes(), 1);
        assert!(other.poll_ready(&mut cx).is_ready());
        request.answered();
    }));
    request.end(Outcome::Finished);
    other.end(Outcome::Finished);
    batches.drive(20);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.pending), (4, 0));
}

struct PanicsOnDrop {
    log: Log,
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        defer_note(&self.log, "destructor");
        panic!("told to");
    }
}

/// Sentences 2 and 18b: what is left of a request is dropped in its scope; a panic there is reported, and goes no further,
/// also while another one unwinds. The scope is whole.
#[test]
fn what_is_left_is_dropped_in_the_scope_and_its_panic_is_reported() {
    struct Connection {
        left: Option<PanicsOnDrop>,
        request: Option<OpenScope>,
    }
    impl Drop for Connection {
        fn drop(&mut self) {
            let mut request = self.request.take().unwrap();
            request.clean_up("a connection's rest", || self.left = None);
            request.enter(|| after::defer(async {}));
            request.end(Outcome::Cancelled);
        }
    }
    let test = "what_is_left_is_dropped_in_the_scope_and_its_panic_is_reported";
    if !is_child(test) {
        let said = standard_error_of(test);
        let expected = "after: a connection's rest panicked in its destructor: told to";
        assert_eq!(said.matches(expected).count(), 2, "{said}");
        return;
    }
    let (runner, batches) = keeping();
    let log = Log::new();
    for unwinding in [false, true] {
        let connection = Connection {
            left: Some(PanicsOnDrop { log: log.clone() }),
            request: Some(runner.open()),
        };
        if unwinding {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _connection = connection;
                panic!("another one");
            }));
            assert!(panicked.is_err());
        } else {
            drop(connection);
        }
        polls_to_end(&mut batches.take_one(), 5);
    }
    log.assert(&["destructor Cancelled"; 2]);
    assert_eq!(balanced(&runner).completed, 4);
}

/// `Debug` of a guard shows nothing of the user's.
#[test]
fn a_guard_is_debug() {
    let mut request = after::open();
    assert_eq!(format!("{:?}", request.start_guard()), "StartGuard { .. }");
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert_eq!(request.poll_ready(&mut cx), Poll::Ready(()));
}
