//! A request in several pieces: what they collect together, how it ends, and that panics and threads change nothing.

use std::{
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use after::{OpenScope, Order, Outcome, Overflow, Runner};

use crate::common::{
    self, CountingWaker, DefersOnDrop, Log, balanced, is_child, keeping, keeping_with,
    now_or_never, poll_once, polls_to_end, standard_error_of, yields,
};

/// Defers a task that notes `entry` and how the request has ended.
#[track_caller]
fn defer_note(log: &Log, entry: &'static str) {
    let log = log.clone();
    after::defer(async move { log.add(format!("{entry}: {}", ended())) });
}

fn ended() -> String {
    after::outcome().map_or_else(|| "open".into(), |outcome| format!("{outcome:?}"))
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    common::keep_quiet();
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

every_runtime! {
    /// Sentences 9 and 11: what all pieces have deferred runs, in their order, with the outcome that the caller has said.
    async fn the_pieces_of_a_request_run_as_one(runner) {
        let log = Log::new();
        let mut request = runner.open().order(Order::Sequential);
        request.enter(|| defer_note(&log, "first"));
        request.scope(async {
            yields(1).await;
            defer_note(&log, "second");
            yields(1).await;
        }).await;
        let handle = request.handle();
        let third = log.clone();
        handle.defer(async move { third.add("third") });
        request.enter(|| defer_note(&log, "fourth"));
        request.ready().await;
        log.assert(&[]);
        request.end(Outcome::Failed);
        runner.drain().await;
        log.assert(&["first: Failed", "second: Failed", "third", "fourth: Failed"]);
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.completed), (4, 4));
    }

    /// Sentence 8: the pieces may run on different threads, and the end may come on another one: with a spawner for that.
    #[cfg(any(feature = "threads", feature = "smol", feature = "async-std"))]
    async fn the_pieces_may_run_on_different_threads(runner) {
        let log = Log::new();
        let mut request = runner.open();
        request.enter(|| after::context::set("the same"));
        for entry in ["first", "second", "third"] {
            let log = log.clone();
            let piece = std::thread::spawn(move || {
                request.enter(|| {
                    assert_eq!(after::context::get(), Some("the same"));
                    defer_note(&log, entry);
                });
                request
            });
            request = piece.join().unwrap();
        }
        std::thread::spawn(move || request.end(Outcome::Finished)).join().unwrap();
        runner.drain().await;
        let mut entries = log.entries();
        entries.sort();
        assert_eq!(entries, ["first: Finished", "second: Finished", "third: Finished"]);
        assert_eq!(balanced(&runner).completed, 3);
    }

    /// Sentence 8: one that is dropped, on whichever thread, ends as cancelled and is handed over.
    async fn dropped_without_an_end_it_is_cancelled(runner) {
        let log = Log::new();
        for entry in ["here", "there"] {
            let mut request = runner.open();
            request.enter(|| defer_note(&log, entry));
            match entry {
                "here" => drop(request),
                _ => std::thread::spawn(move || drop(request)).join().unwrap(),
            }
            runner.drain().await;
        }
        log.assert(&["here: Cancelled", "there: Cancelled"]);
    }

    /// Sentence 21: without limits nobody waits for room.
    async fn without_limits_it_is_always_ready(runner) {
        let mut request = runner.open();
        request.enter(|| {
            for _ in 0..1_000 {
                after::defer(async {});
            }
        });
        assert!(poll_once(pin!(request.ready())).is_ready());
        request.end(Outcome::Finished);
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 1_000);
    }
}

every_builder! {
    /// Sentence 21: under backpressure requests in pieces wait for room, and nothing of them is lost.
    async fn requests_in_pieces_that_wait_for_room_lose_nothing(builder) {
        let runner = builder.max_running(2).max_waiting(3).build();
        let running = Arc::new(AtomicUsize::new(0));
        let requests = (0..40).map(|number| {
            let mut request = runner.open();
            let running = running.clone();
            async move {
                for _ in 0..number % 4 {
                    let running = running.clone();
                    request.enter(|| after::defer(async move {
                        assert!(running.fetch_add(1, SeqCst) < 2);
                        yields(1).await;
                        running.fetch_sub(1, SeqCst);
                    }));
                }
                request.ready().await;
                request.end(Outcome::Finished);
            }
        });
        futures::future::join_all(requests).await;
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.completed), (60, 60));
    }
}

/// Sentence 9: everything of one request is one batch and one call of the spawner, however many pieces there are.
#[test]
fn all_pieces_are_one_batch() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    for _ in 0..3 {
        request.enter(|| after::defer(async {}));
        now_or_never(request.scope(async { after::task("piece").defer(async {}) }));
        assert_eq!(batches.len(), 0);
    }
    request.end(Outcome::Finished);
    let mut batch = batches.take_one();
    assert_eq!(batch.len(), 6);
    polls_to_end(&mut batch, 3);
    assert_eq!(balanced(&runner).completed, 6);
}

/// Sentence 8: one that collected nothing hands over nothing, however it ends, also when it has a context or a handle.
#[test]
fn one_that_collected_nothing_hands_over_nothing() {
    let (runner, batches) = keeping();
    runner.open().end(Outcome::Finished);
    drop(runner.open());
    runner.open().hold(Outcome::Failed).release();
    let mut request = runner.open();
    request.enter(|| after::context::set(1));
    request.end(Outcome::Finished);
    let mut request = runner.open();
    drop(request.handle());
    now_or_never(request.ready());
    request.end(Outcome::Finished);
    assert_eq!(batches.len(), 0);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.pending), (0, 0));
}

/// Sentence 2: the scope is current in its pieces, and only there; between two polls of a piece it is not.
#[test]
fn the_scope_is_current_in_its_pieces_alone() {
    let (runner, _batches) = keeping();
    let mut request = runner.open();
    assert!(!after::in_scope());
    assert!(request.enter(after::in_scope));
    let mut piece = pin!(request.scope(async {
        assert!(after::in_scope());
        yields(1).await;
        assert!(after::in_scope());
    }));
    assert!(poll_once(piece.as_mut()).is_pending());
    assert!(!after::in_scope());
    assert!(poll_once(piece.as_mut()).is_ready());
    assert!(!after::in_scope());
}

/// Sentence 4: two requests whose pieces run in turn on one thread never see each other's tasks or values.
#[test]
fn requests_in_turn_see_only_themselves() {
    let (runner, batches) = keeping();
    let mut requests: Vec<OpenScope> = (0..10).map(|_| runner.open()).collect();
    for piece in 0..3 {
        for (id, request) in requests.iter_mut().enumerate() {
            request.enter(|| {
                let before = after::context::get::<usize>();
                assert_eq!(before, (piece > 0).then_some(id));
                after::context::set(id);
                after::task("keyed").key("k").defer(async move {
                    assert_eq!(after::context::get::<usize>(), Some(id));
                });
                after::defer(async {});
            });
        }
    }
    for request in requests {
        request.end(Outcome::Finished);
    }
    let mut batches = batches.take_all();
    assert_eq!(batches.len(), 10);
    for batch in &mut batches {
        assert_eq!(batch.len(), 4);
        polls_to_end(batch, 3);
    }
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.discarded), (40, 20));
}

/// Sentence 7: a key means the same task in all pieces, and `forget` takes back what another piece has deferred.
#[test]
fn keys_reach_across_pieces() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    request.enter(|| after::task("first").key("a").defer(async {}));
    request.enter(|| after::task("taken back").key("b").defer(async {}));
    request.enter(|| after::task("second").key("a").defer(async {}));
    assert!(request.enter(|| after::forget("b")));
    assert!(!request.enter(|| after::forget("b")));
    request.end(Outcome::Finished);
    let mut batch = batches.take_one();
    assert!(batch.names().eq(["second"]));
    polls_to_end(&mut batch, 3);
    assert_eq!(balanced(&runner).discarded, 2);
}

/// Sentence 16: values of one piece are there in the next, and in the tasks, where they stay as they were at the end.
#[test]
fn context_reaches_across_pieces() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    request.enter(|| after::context::set(1));
    now_or_never(request.scope(async {
        assert_eq!(after::context::get(), Some(1));
        after::context::set(2);
    }));
    request.enter(|| {
        after::defer(async {
            assert_eq!(after::context::get(), Some(3));
            assert_eq!(after::context::try_set(4), Err(4));
        });
        after::context::set(3);
    });
    request.end(Outcome::Finished);
    polls_to_end(&mut batches.take_one(), 3);
    assert_eq!(balanced(&runner).completed, 1);
}

/// Sentence 12: conditions are decided at the end, on the outcome that the caller says.
#[test]
fn conditions_are_decided_on_the_outcome_of_the_end() {
    for (outcome, expected) in [
        (Outcome::Finished, "receipt"),
        (Outcome::Failed, "alarm"),
        (Outcome::Panicked, "alarm"),
        (Outcome::Cancelled, "abandoned alarm"),
    ] {
        let (runner, batches) = keeping();
        let mut request = runner.open();
        request.enter(|| after::task("receipt").on_success().defer(async {}));
        request.enter(|| {
            after::task("abandoned")
                .when(|outcome| outcome == Outcome::Cancelled)
                .defer(async {});
            assert_eq!(after::outcome(), None);
        });
        request.enter(|| after::task("alarm").on_failure().defer(async {}));
        request.end(outcome);
        let mut batch = batches.take_one();
        assert_eq!(batch.names().collect::<Vec<_>>().join(" "), expected);
        polls_to_end(&mut batch, 3);
        let stats = balanced(&runner);
        assert_eq!(stats.completed + stats.discarded, 3);
    }
}

/// Sentence 11: the order is the Runner's, or its own.
#[test]
fn its_order_goes_over_that_of_the_runner() {
    for own in [None, Some(Order::Concurrent)] {
        let (runner, batches) = keeping_with(|builder| builder.order(Order::Sequential));
        let log = Log::new();
        let mut request = runner.open();
        if let Some(order) = own {
            request = request.order(order);
        }
        for entry in ["a", "b"] {
            let log = log.clone();
            request.enter(|| {
                after::defer(async move {
                    log.add(entry);
                    yields(1).await;
                    log.add(entry);
                });
            });
        }
        request.end(Outcome::Finished);
        polls_to_end(&mut batches.take_one(), 6);
        match own {
            None => log.assert(&["a", "a", "b", "b"]),
            Some(_) => assert_ne!(log.entries(), ["a", "a", "b", "b"]),
        }
    }
}

/// Sentence 3: a plain scope inside a piece collects for itself, and leaving it restores the open one.
#[test]
fn a_plain_scope_inside_a_piece_collects_for_itself() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    request.enter(|| {
        after::context::set("outer");
        now_or_never(runner.scope(async {
            assert_eq!(after::context::get::<&str>(), None);
            after::task("inner").defer(async {});
        }));
        assert!(batches.take_one().names().eq(["inner"]));
        assert_eq!(after::context::get(), Some("outer"));
        after::task("outer").defer(async {});
    });
    request.end(Outcome::Finished);
    assert!(batches.take_one().names().eq(["outer"]));
}

/// Sentence 3: one that is opened in a request is not part of it, and is not over with it.
#[test]
fn one_that_is_opened_in_a_request_outlives_it() {
    let (runner, batches) = keeping();
    let mut opened = now_or_never(runner.scope(async {
        let mut opened = runner.open();
        opened.enter(|| after::task("opened").defer(async {}));
        after::task("request").defer(async {});
        opened
    }));
    assert!(batches.take_one().names().eq(["request"]));
    opened.enter(|| after::task("opened").defer(async {}));
    opened.end(Outcome::Finished);
    assert!(batches.take_one().names().eq(["opened", "opened"]));
}

/// Sentence 14: what its tasks defer is part of the same batch.
#[test]
fn its_tasks_may_defer() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    request.enter(|| after::defer(async { after::defer(async {}) }));
    request.end(Outcome::Finished);
    polls_to_end(&mut batches.take_one(), 4);
    assert_eq!((batches.len(), balanced(&runner).completed), (0, 2));
}

/// Sentence 8: a panic of a piece goes on, and leaves the scope open, with what was deferred before.
#[test]
fn a_panic_in_a_piece_leaves_the_scope_open() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut request = runner.open();
    assert!(panics(|| request.enter(|| {
        defer_note(&log, "before the panic");
        panic!("told to");
    })));
    assert!(!after::in_scope());
    let piece = async {
        defer_note(&log, "in a future");
        panic!("told to");
    };
    assert!(panics(|| now_or_never(request.scope(piece))));
    assert!(!after::in_scope());
    assert_eq!(batches.len(), 0);
    request.enter(|| defer_note(&log, "afterwards"));
    request.end(Outcome::Panicked);
    polls_to_end(&mut batches.take_one(), 3);
    log.assert(&[
        "before the panic: Panicked",
        "in a future: Panicked",
        "afterwards: Panicked",
    ]);
    assert_eq!(balanced(&runner).completed, 3);
}

/// Sentence 8: a panic of a piece that nobody catches drops the scope: it ends as cancelled.
#[test]
fn unwinding_drops_it_as_cancelled() {
    let (runner, batches) = keeping();
    let log = Log::new();
    assert!(panics(|| {
        let mut request = runner.open();
        request.enter(|| {
            defer_note(&log, "task");
            panic!("told to");
        });
        request.end(Outcome::Finished);
    }));
    polls_to_end(&mut batches.take_one(), 3);
    log.assert(&["task: Cancelled"]);
}

/// Sentence 2: a piece that is dropped is dropped in the scope, which then ends as cancelled with the request around it.
#[test]
fn a_request_that_is_dropped_in_a_piece_is_cancelled() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut connection = Box::pin(async {
        let mut request = runner.open();
        let guard = DefersOnDrop {
            log: log.clone(),
            entry: "destructor",
        };
        let piece = async {
            let _guard = guard;
            defer_note(&log, "piece");
            pending::<()>().await;
        };
        request.scope(piece).await;
        request.end(Outcome::Finished);
    });
    assert!(poll_once(connection.as_mut()).is_pending());
    drop(connection);
    let mut batch = batches.take_one();
    assert_eq!(batch.len(), 2);
    polls_to_end(&mut batch, 3);
    log.assert(&["piece: Cancelled", "destructor"]);
}

/// Sentence 2: a piece that has never been polled is dropped in the scope too; the scope goes on.
#[test]
fn a_piece_that_is_dropped_leaves_the_scope_open() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut request = runner.open();
    let guard = DefersOnDrop {
        log: log.clone(),
        entry: "destructor",
    };
    drop(request.scope(async move { drop(guard) }));
    assert_eq!(batches.len(), 0);
    request.enter(|| defer_note(&log, "afterwards"));
    request.end(Outcome::Finished);
    polls_to_end(&mut batches.take_one(), 3);
    log.assert(&["destructor", "afterwards: Finished"]);
}

/// Resolves at once, and keeps what it has until it is dropped itself.
struct Keeps<T> {
    _kept: T,
    output: Option<T>,
}

impl<T> Keeps<T> {
    fn new(kept: T, output: T) -> Self {
        Keeps {
            _kept: kept,
            output: Some(output),
        }
    }
}

impl<T: Unpin> Future for Keeps<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        Poll::Ready(self.output.take().expect("polled once"))
    }
}

/// Sentence 2: the future of a piece is dropped as soon as it resolves, in the scope.
#[test]
fn a_piece_is_dropped_as_soon_as_it_resolves() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let guard = |entry| {
        Some(DefersOnDrop {
            log: log.clone(),
            entry,
        })
    };
    let mut request = runner.open();
    {
        let mut piece = pin!(request.scope(Keeps::new(guard("future"), None)));
        assert!(poll_once(piece.as_mut()).is_ready());
        let other = runner.stats();
        assert_eq!(other.pending, 1, "while the piece itself is still there");
    }
    request.end(Outcome::Finished);
    polls_to_end(&mut batches.take_one(), 3);
    log.assert(&["future"]);
}

/// Defers in its destructor, and panics there.
struct PanicsOnDrop(&'static str);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        after::task(self.0).defer(async {});
        panic!("told to");
    }
}

/// Sentence 18b: a panic of a piece's destructor is caught and reported when the piece is dropped early.
#[test]
fn a_destructor_that_panics_when_a_piece_is_dropped_early_is_reported() {
    let test = "open::a_destructor_that_panics_when_a_piece_is_dropped_early_is_reported";
    if !is_child(test) {
        let said = standard_error_of(test);
        let expected = "after: a future in an open scope panicked in its destructor: told to";
        assert!(said.contains(expected), "{said}");
        return;
    }
    let (runner, batches) = keeping();
    let mut request = runner.open();
    let panics = PanicsOnDrop("destructor");
    drop(request.scope(async move { drop(panics) }));
    request.end(Outcome::Finished);
    assert!(batches.take_one().names().eq(["destructor"]));
}

/// Sentence 18b: when a piece has resolved and its destructor panics, the panic goes on; that of its output as well does not
/// abort. What both have deferred is collected.
#[test]
fn a_destructor_that_panics_when_a_piece_has_resolved_goes_on() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    let piece = Keeps::new(PanicsOnDrop("future"), PanicsOnDrop("output"));
    assert!(panics(|| drop(now_or_never(request.scope(piece)))));
    request.enter(|| after::task("afterwards").defer(async {}));
    request.end(Outcome::Finished);
    let batch = batches.take_one();
    assert!(batch.names().eq(["future", "output", "afterwards"]));
}

/// Sentence 18b: the same for a future that runs in the scope of a handle.
#[test]
fn a_destructor_that_panics_when_an_attached_future_has_resolved_goes_on() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    let handle = request.handle();
    let future = Keeps::new(PanicsOnDrop("future"), PanicsOnDrop("output"));
    assert!(panics(|| drop(now_or_never(handle.scope(future)))));
    request.end(Outcome::Finished);
    let batch = batches.take_one();
    assert!(batch.names().eq(["future", "output"]));
}

/// A piece that is polled after it has resolved says so, and leaves the scope open.
#[test]
fn a_piece_that_is_polled_after_completion_panics() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    {
        let mut piece = pin!(request.scope(async { after::defer(async {}) }));
        assert!(poll_once(piece.as_mut()).is_ready());
        let again = catch_unwind(AssertUnwindSafe(|| poll_once(piece.as_mut())));
        let payload = again.expect_err("a panic");
        let message = payload.downcast_ref::<&str>().expect("a text");
        assert!(
            message.contains("`Entered` polled after completion"),
            "{message}"
        );
    }
    request.end(Outcome::Finished);
    drop(batches.take_one());
}

/// Sentences 9 and 12: a held one gives its tasks to the caller, with the conditions decided.
#[test]
fn a_held_one_gives_its_tasks_to_the_caller() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    request.enter(|| {
        after::task("receipt").on_success().defer(async {});
        after::task("alarm").on_failure().defer(async {});
        after::task("audit").defer(async {});
    });
    let batch = request.hold(Outcome::Failed);
    assert!(batch.names().eq(["alarm", "audit"]));
    assert_eq!((batches.len(), balanced(&runner).pending), (0, 2));
    batch.release();
    polls_to_end(&mut batches.take_one(), 3);
    assert_eq!(balanced(&runner).completed, 2);
}

/// Sentence 15: work through its handle is collected with the rest, also between two pieces; late, it is its own batch.
#[test]
fn its_handle_defers_between_pieces_and_late() {
    let (runner, batches) = keeping();
    let mut request = runner.open();
    request.enter(|| after::task("first").defer(async {}));
    let handle = request.handle();
    assert!(!after::in_scope());
    handle.task("second").defer(async {});
    let same = request.enter(after::handle);
    same.task("third").defer(async {});
    std::thread::scope(|threads| {
        threads.spawn(|| handle.sync_scope(|| after::task("fourth").defer(async {})));
    });
    request.end(Outcome::Finished);
    let mut batch = batches.take_one();
    assert!(batch.names().eq(["first", "second", "third", "fourth"]));
    polls_to_end(&mut batch, 3);
    handle.task("late").defer(async {
        assert_eq!(after::outcome(), Some(Outcome::Finished));
    });
    polls_to_end(&mut batches.take_one(), 3);
    assert_eq!(balanced(&runner).completed, 5);
}

/// Sentence 20: it is pending from its first task on, in all of its pieces and between them.
#[test]
fn it_is_pending_until_its_tasks_have_ended() {
    let (runner, batches) = keeping();
    let mut drained = pin!(runner.drain());
    let mut request = runner.open();
    assert_eq!(runner.stats().pending, 0);
    request.enter(|| after::defer(async {}));
    assert_eq!(runner.stats().pending, 1);
    assert!(poll_once(drained.as_mut()).is_pending());
    request.end(Outcome::Finished);
    assert!(poll_once(drained.as_mut()).is_pending());
    polls_to_end(&mut batches.take_one(), 3);
    assert!(poll_once(drained.as_mut()).is_ready());
}

/// Sentence 18b: an end never panics, in a destructor while another panic unwinds either.
#[test]
fn it_may_end_while_a_panic_unwinds() {
    let runner = Runner::new(after::spawner::from_fn(|_| panic!("told to")));
    struct Connection(Option<OpenScope>);
    impl Drop for Connection {
        fn drop(&mut self) {
            if let Some(request) = self.0.take() {
                request.end(Outcome::Panicked);
            }
        }
    }
    assert!(panics(|| {
        let mut connection = Connection(Some(runner.open()));
        if let Some(request) = &mut connection.0 {
            request.enter(|| after::defer(async {}));
        }
        panic!("told to");
    }));
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.lost), (1, 1));
}

/// `Debug` shows no values of users and takes no lock.
#[test]
fn it_is_debug() {
    let mut request = after::open().order(Order::Sequential);
    assert_eq!(
        format!("{request:?}"),
        "OpenScope { order: Some(Sequential), .. }"
    );
    let piece = request.scope(async {});
    assert_eq!(format!("{piece:?}"), "Entered { over: false, .. }");
}

/// A Runner that pushes back: one runs at a time.
fn pushes_back(waiting: usize) -> (Runner, common::Batches) {
    keeping_with(|builder| {
        builder
            .max_running(1)
            .max_waiting(waiting)
            .overflow(Overflow::Backpressure)
    })
}

/// One task runs, until it is let go on, and so many wait.
fn fill(
    runner: &Runner,
    batches: &common::Batches,
    waiting: usize,
) -> futures::channel::oneshot::Sender<()> {
    let (open, gate) = futures::channel::oneshot::channel::<()>();
    let mut request = runner.open();
    request.enter(|| {
        after::defer(async {
            let _ = gate.await;
        });
        for _ in 0..waiting {
            after::defer(async {});
        }
    });
    request.end(Outcome::Finished);
    batches.drive(10);
    open
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

/// Sentence 21: under backpressure it is ready when there is room for what it has deferred, and is woken then.
#[test]
fn it_is_ready_when_there_is_room() {
    let (runner, batches) = pushes_back(2);
    let open = fill(&runner, &batches, 2);
    let mut request = with_tasks(&runner, 2);
    let (counter, waker) = CountingWaker::new();
    {
        let mut ready = pin!(request.ready());
        let mut cx = Context::from_waker(&waker);
        assert!(ready.as_mut().poll(&mut cx).is_pending());
        assert_eq!(counter.wakes(), 0);
        open.send(()).unwrap();
        batches.drive(10);
        assert_eq!(counter.wakes(), 1);
        assert!(ready.as_mut().poll(&mut cx).is_ready());
    }
    assert!(poll_once(pin!(request.ready())).is_ready(), "it has waited");
    request.end(Outcome::Finished);
    batches.drive(10);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.completed), (5, 5));
}

/// Sentence 21: what was deferred since it was ready waits again, and only that.
#[test]
fn it_waits_for_the_rest_when_more_was_deferred() {
    let (runner, batches) = pushes_back(2);
    let mut request = with_tasks(&runner, 1);
    assert!(poll_once(pin!(request.ready())).is_ready());
    let open = fill(&runner, &batches, 2);
    assert!(poll_once(pin!(request.ready())).is_ready(), "it has waited");
    request.enter(|| after::task("key").key("key").defer(async {}));
    assert!(poll_once(pin!(request.ready())).is_pending(), "one more");
    assert!(request.enter(|| after::forget("key")));
    assert!(poll_once(pin!(request.ready())).is_ready(), "taken back");
    request.enter(|| after::defer(async {}));
    {
        let mut ready = pin!(request.ready());
        assert!(poll_once(ready.as_mut()).is_pending(), "another one");
        open.send(()).unwrap();
        batches.drive(10);
        assert!(poll_once(ready.as_mut()).is_ready());
    }
    request.end(Outcome::Finished);
    batches.drive(10);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.completed), (6, 5));
}

/// Sentence 21: nothing was deferred, so nothing waits, however full it is.
#[test]
fn one_that_has_deferred_nothing_is_ready() {
    let (runner, batches) = pushes_back(1);
    let _open = fill(&runner, &batches, 1);
    let mut request = runner.open();
    assert!(poll_once(pin!(request.ready())).is_ready());
    drop(request.handle());
    assert!(poll_once(pin!(request.ready())).is_ready());
    request.end(Outcome::Finished);
}

/// Sentence 21: what comes through its handle waits as well.
#[test]
fn it_waits_for_what_came_through_its_handle() {
    let (runner, batches) = pushes_back(1);
    let _open = fill(&runner, &batches, 1);
    let mut request = runner.open();
    request.handle().defer(async {});
    assert!(poll_once(pin!(request.ready())).is_pending());
    request.end(Outcome::Finished);
    // A batch in its own spawner would keep it.
    drop(batches.take_all());
}

/// Sentence 21: first come, first served; who goes gives up the place in the line, and the next is woken.
#[test]
fn one_that_stops_waiting_gives_up_its_place() {
    let (runner, batches) = pushes_back(2);
    let open = fill(&runner, &batches, 2);
    let mut first = with_tasks(&runner, 3);
    let mut second = with_tasks(&runner, 1);
    let (counter, waker) = CountingWaker::new();
    let mut cx = Context::from_waker(&waker);
    let mut leaves = Box::pin(first.ready());
    let mut ready = pin!(second.ready());
    assert!(poll_once(leaves.as_mut()).is_pending());
    assert!(ready.as_mut().poll(&mut cx).is_pending());
    drop(leaves);
    open.send(()).unwrap();
    batches.drive(10);
    assert_eq!(counter.wakes(), 1);
    assert!(ready.as_mut().poll(&mut cx).is_ready());
    // It has not waited, so its tasks are those that can't wait: there is space for them beyond the limit.
    first.end(Outcome::Finished);
    batches.drive(10);
    assert_eq!(balanced(&runner).completed, 6);
}

/// Sentence 21: in a deferred task it never waits: it would wait for its own parent.
#[test]
fn in_a_deferred_task_it_is_always_ready() {
    let (runner, batches) = pushes_back(1);
    let inner = runner.clone();
    now_or_never(runner.scope(async {
        after::defer(async move {
            let mut request = with_tasks(&inner, 2);
            request.ready().await;
            request.end(Outcome::Finished);
        });
    }));
    batches.drive(10);
    assert_eq!(balanced(&runner).completed, 3);
}

/// Sentence 21: a limit that sheds makes nobody wait.
#[test]
fn where_a_limit_sheds_it_is_always_ready() {
    let (runner, batches) = keeping_with(|builder| {
        builder
            .max_running(1)
            .max_waiting(1)
            .overflow(Overflow::Shed)
    });
    let mut request = with_tasks(&runner, 10);
    assert!(poll_once(pin!(request.ready())).is_ready());
    request.end(Outcome::Finished);
    batches.drive(10);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.completed, stats.pending), (10, 2, 0));
}

/// Sentence 21: what it has waited for is not dropped at its end, however full it is by then.
#[test]
fn what_it_has_waited_for_runs() {
    let (runner, batches) = pushes_back(1);
    let log = Log::new();
    let mut request = runner.open();
    for entry in ["a", "b"] {
        request.enter(|| defer_note(&log, entry));
        assert!(poll_once(pin!(request.ready())).is_ready());
    }
    let open = fill(&runner, &batches, 10);
    request.end(Outcome::Finished);
    open.send(()).unwrap();
    batches.drive(20);
    log.assert(&["a: Finished", "b: Finished"]);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.pending), (13, 0));
    assert!(stats.completed < 13, "what can't wait has a bound");
}

/// Sentence 21: ended, held or dropped, ready or waiting, what it was promised comes back: the next finds all the room.
#[test]
fn no_room_is_lost_however_it_ends() {
    let (runner, batches) = pushes_back(3);
    for end in 0..5 {
        let mut request = with_tasks(&runner, 4);
        assert!(poll_once(pin!(request.ready())).is_ready(), "end {end}");
        let mut waits = with_tasks(&runner, 4);
        let _ = poll_once(pin!(waits.ready()));
        drop(waits.hold(Outcome::Finished));
        match end {
            0 => request.end(Outcome::Finished),
            1 => drop(request),
            2 => drop(request.hold(Outcome::Finished)),
            3 => request.hold(Outcome::Finished).release(),
            _ => {
                // More is promised, and taken back before the end.
                request.enter(|| after::task("key").key("key").defer(async {}));
                let _ = poll_once(pin!(request.ready()));
                assert!(request.enter(|| after::forget("key")));
                request.end(Outcome::Finished);
            }
        }
        batches.drive(10);
        assert_eq!(balanced(&runner).pending, 0, "end {end}");
    }
    let mut request = runner.open();
    request.enter(|| after::task("key").key("key").defer(async {}));
    assert!(poll_once(pin!(request.ready())).is_ready());
    assert!(request.enter(|| after::forget("key")));
    request.end(Outcome::Finished);
    let mut request = with_tasks(&runner, 4);
    assert!(
        poll_once(pin!(request.ready())).is_ready(),
        "all taken back"
    );
}

/// Sentence 21: what `ready` was given is lent, so two scopes that wait again for more don't wait for each other.
#[test]
fn two_scopes_that_wait_again_do_not_wait_for_each_other() {
    let (runner, batches) = common::keeping_with(|builder| builder.max_running(1).max_waiting(1));
    let mut scopes = [runner.open(), runner.open()];
    for _ in 0..3 {
        for scope in &mut scopes {
            scope.enter(|| after::defer(async {}));
            futures::executor::block_on(scope.ready());
        }
    }
    for scope in scopes {
        scope.end(after::Outcome::Finished);
    }
    batches.drive(10);
    let stats = common::balanced(&runner);
    assert_eq!(stats.pending, 0);
}
