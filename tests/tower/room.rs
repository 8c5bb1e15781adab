//! Limits under the layer: sentence 21. A request waits for room before its head is given out.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::Poll,
};

use after::{
    Batch, Overflow, Runner,
    tower::{AfterBody, AfterFuture, AfterLayer, RunAfter},
};
use futures::executor::block_on;
use http::{Request, Response};
use tower::{Layer, Service};

use crate::{
    common::{Batches, CountingWaker, Log, balanced, keeping_with, poll_once, polls_to_end},
    script::{Script, next_data, next_frame, notes},
};

type Answer = Result<Response<Script>, Infallible>;

/// One task may run and `waiting` may wait.
fn limited(waiting: usize) -> (Runner, Batches) {
    keeping_with(|builder| {
        builder
            .max_running(1)
            .max_waiting(waiting)
            .overflow(Overflow::Backpressure)
    })
}

/// The future of a request that defers so many tasks and answers with this body.
fn request(
    layer: &AfterLayer,
    tasks: usize,
    log: &Log,
    body: Script,
) -> Pin<Box<AfterFuture<std::future::Ready<Answer>>>> {
    let mut body = Some(body);
    let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
        for _ in 0..tasks {
            notes(log, "task");
        }
        std::future::ready(Ok(Response::new(body.take().unwrap())))
    }));
    Box::pin(service.call(Request::new(())))
}

fn answer(
    polled: Poll<Result<Response<AfterBody<Script>>, Infallible>>,
) -> Option<AfterBody<Script>> {
    match polled {
        Poll::Ready(Ok(response)) => Some(response.into_body()),
        Poll::Pending => None,
    }
}

/// Fills all room of a Runner that lets one run and so many wait; gives the batch.
fn fill(layer: &AfterLayer, waiting: usize, batches: &Batches, log: &Log) -> Batch {
    let mut full = request(layer, 1 + waiting, log, Script::new());
    drop(answer(poll_once(full.as_mut())).expect("nobody waits"));
    batches.take_one()
}

/// Sentence 21: the head is held back until there is room.
#[test]
fn the_head_waits_for_room() {
    let (runner, batches) = limited(2);
    let layer = AfterLayer::with_runner(runner.clone());
    let log = Log::new();
    // Three have room: one to run, and two that wait.
    let mut full = fill(&layer, 2, &batches, &log);
    let mut second = request(&layer, 2, &log, Script::new());
    let (counter, waker) = CountingWaker::new();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(second.as_mut().poll(&mut cx).is_pending());
    // A request that has deferred nothing never waits.
    let idle = answer(poll_once(request(&layer, 0, &log, Script::new()).as_mut()));
    assert!(idle.is_some());
    polls_to_end(&mut full, 100);
    assert_eq!(counter.wakes(), 1);
    let second = answer(second.as_mut().poll(&mut cx));
    drop(second.expect("there is room"));
    polls_to_end(&mut batches.take_one(), 100);
    assert_eq!(balanced(&runner).completed, 5);
    assert_eq!(batches.len(), 0);
}

/// Sentence 21: a response that nobody reads holds nobody else's, whatever their number; what its request has deferred is
/// accepted when its body ends, up to twice `max_waiting`, and shed beyond.
#[test]
fn a_response_that_nobody_reads_holds_no_other() {
    for moment in [RunAfter::Body, RunAfter::Written] {
        let (runner, batches) = limited(4);
        let layer = AfterLayer::with_runner(runner.clone()).run_after(moment);
        let log = Log::new();
        let mut stalled: Vec<_> = (0..20)
            .map(|_| {
                let request = request(&layer, 2, &log, Script::new().data("a"));
                block_on(request).unwrap().into_body()
            })
            .collect();
        let frames: Vec<_> = stalled.iter_mut().map(next_data).collect();
        assert!(runner.stats().pending >= 20);
        drop(block_on(request(&layer, 5, &log, Script::new())));
        polls_to_end(&mut batches.take_one(), 100);
        assert_eq!(balanced(&runner).completed, 5, "all of the other's tasks");
        // The clients go all at once.
        drop(stalled);
        drop(frames);
        let mut handed_over = batches.take_all();
        for batch in &mut handed_over {
            let _ = poll_once(Pin::new(batch));
        }
        let stats = balanced(&runner);
        // One may run and eight may wait; the rest was shed.
        assert_eq!((stats.pending, stats.shed), (9, 31), "{moment:?}");
        for mut batch in handed_over {
            polls_to_end(&mut batch, 100);
        }
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.pending), (14, 0), "{moment:?}");
    }
}

/// Sentence 21: what an answer has waited for is not dropped because others pass before its body has ended.
#[test]
fn what_was_waited_for_is_accepted_when_the_body_ends() {
    let (runner, batches) = limited(3);
    let layer = AfterLayer::with_runner(runner.clone());
    let log = Log::new();
    // More than twice the limit: let in whole, because nothing waits.
    let big = answer(poll_once(request(&layer, 30, &log, Script::new()).as_mut()));
    drop(big.expect("nobody waits"));
    let mut big = batches.take_one();
    let mut small = request(&layer, 1, &log, Script::new());
    assert!(poll_once(small.as_mut()).is_pending());
    polls_to_end(&mut big, 100);
    let small = answer(poll_once(small.as_mut())).expect("there is room");
    // Scopes that are dropped fill what may wait, but not the place of the one that has waited.
    for _ in 0..10 {
        drop(request(&layer, 1, &log, Script::new()));
    }
    let shed = runner.stats().shed;
    assert_eq!(
        shed, 4,
        "one may run, six may wait, and one of these is the place"
    );
    drop(small);
    assert_eq!(runner.stats().shed, shed);
    for mut batch in batches.take_all() {
        polls_to_end(&mut batch, 100);
    }
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 21: a task of the body's that goes its own way gets no place that another's answer has waited for.
#[test]
fn what_a_body_splits_off_takes_no_place_that_was_waited_for() {
    for parallel in [false, true] {
        let (runner, batches) = limited(1);
        let layer = AfterLayer::with_runner(runner.clone());
        let log = Log::new();
        let noting = log.clone();
        let splits = Script::new().does(move |_| {
            for _ in 0..3 {
                let log = noting.clone();
                let task = after::task("body").spawned();
                task.defer(async move { log.add("body") });
            }
            Poll::Ready(None)
        });
        let layer = match parallel {
            true => layer.order(after::Order::Parallel),
            false => layer,
        };
        let mut body = answer(poll_once(request(&layer, 2, &log, splits).as_mut())).unwrap();
        assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
        batches.drive(3);
        let stats = balanced(&runner);
        // One that runs and two that wait; two of the body's are shed.
        assert_eq!((stats.completed, stats.shed, stats.pending), (3, 2, 0));
        let kept = log.entries().into_iter();
        let waited = kept.filter(|entry| entry == "task Finished");
        assert_eq!(waited.count(), 2, "parallel: {parallel}");
    }
}

/// Sentence 21: at the head, too, when that is where the tasks are handed over.
#[test]
fn the_head_waits_for_room_also_when_it_hands_over() {
    let (runner, batches) = limited(1);
    let layer = AfterLayer::with_runner(runner.clone()).run_after(RunAfter::Head);
    let log = Log::new();
    let first = answer(poll_once(request(&layer, 2, &log, Script::new()).as_mut()));
    assert!(first.is_some());
    let mut running = batches.take_one();
    let mut second = request(&layer, 1, &log, Script::new());
    assert!(poll_once(second.as_mut()).is_pending());
    assert_eq!(batches.len(), 0);
    polls_to_end(&mut running, 100);
    assert!(answer(poll_once(second.as_mut())).is_some());
    polls_to_end(&mut batches.take_one(), 100);
    assert_eq!(balanced(&runner).completed, 3);
}

/// Sentence 21: a scope that collected nothing never waits, also if it has a context, and others stand in line.
#[test]
fn a_captured_request_that_defers_nothing_never_waits() {
    let (runner, batches) = limited(1);
    let layer = AfterLayer::with_runner(runner).capture_request();
    let log = Log::new();
    let full = fill(&layer, 1, &batches, &log);
    let mut waits = request(&layer, 1, &log, Script::new());
    assert!(poll_once(waits.as_mut()).is_pending());
    let idle = answer(poll_once(request(&layer, 0, &log, Script::new()).as_mut()));
    assert!(idle.is_some());
    drop((full, waits));
    batches.drive(3);
}

/// Sentence 21: dropped while it waits, it can't wait any more: its tasks run, and its answer is dropped in the scope.
#[test]
fn a_future_that_is_dropped_while_it_waits_hands_over() {
    let (runner, batches) = limited(2);
    let layer = AfterLayer::with_runner(runner.clone());
    let log = Log::new();
    let mut full = fill(&layer, 2, &batches, &log);
    let noting = log.clone();
    let body = Script::new().on_drop(move || notes(&noting, "answer's destructor"));
    let mut second = request(&layer, 1, &log, body);
    assert!(poll_once(second.as_mut()).is_pending());
    drop(second);
    let mut batch = batches.take_one();
    polls_to_end(&mut full, 100);
    polls_to_end(&mut batch, 100);
    let entries = log.entries();
    assert_eq!(
        entries[3..],
        ["task Cancelled", "answer's destructor Cancelled"]
    );
    assert_eq!(balanced(&runner).completed, 5);
}

/// Sentence 21: room that was promised and is not needed is given back.
#[test]
fn room_that_is_not_needed_is_given_back() {
    let (runner, batches) = limited(1);
    let layer = AfterLayer::with_runner(runner.clone());
    let log = Log::new();
    for _ in 0..3 {
        // The body takes one of the two back, and the other is not to run.
        let mut body = Some(Script::new().does(|_| {
            assert!(after::forget("a"));
            Poll::Ready(None)
        }));
        let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
            after::task("a").key("a").defer(async {});
            after::task("b").on_failure().defer(async {});
            std::future::ready(Ok::<_, Infallible>(Response::new(body.take().unwrap())))
        }));
        let answered = poll_once(pin!(service.call(Request::new(()))));
        let mut body = answer(answered).expect("nobody waits");
        assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
        assert_eq!(batches.len(), 0);
    }
    let full = answer(poll_once(request(&layer, 2, &log, Script::new()).as_mut()));
    assert!(full.is_some(), "all of the room is there again");
    drop(full);
    polls_to_end(&mut batches.take_one(), 100);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.discarded, stats.pending), (2, 6, 0));
}

/// Sentence 21: what a body defers can't wait: accepted up to twice `max_waiting`, shed beyond.
#[test]
fn what_a_body_defers_is_accepted_up_to_twice_the_limit() {
    let (runner, batches) = limited(2);
    let layer = AfterLayer::with_runner(runner.clone());
    let log = Log::new();
    let noting = log.clone();
    let many = Script::new().does(move |_| {
        for _ in 0..10 {
            notes(&noting, "body");
        }
        Poll::Ready(None)
    });
    let mut body = answer(poll_once(request(&layer, 1, &log, many).as_mut())).unwrap();
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    polls_to_end(&mut batches.take_one(), 100);
    let stats = balanced(&runner);
    // One that runs and four that wait, twice two; six are shed.
    assert_eq!((stats.completed, stats.shed), (5, 6));
}

/// Sentence 21: a request inside another scope keeps no room for which that one has to wait.
#[test]
fn an_outer_scope_does_not_wait_for_what_its_own_request_holds() {
    for around in ["a layer", "a scope"] {
        let (runner, batches) = limited(1);
        let layer = AfterLayer::with_runner(runner.clone());
        let log = Log::new();
        let mut full = fill(&layer, 1, &batches, &log);
        let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
            for _ in 0..2 {
                notes(&log, "inside");
            }
            std::future::ready(Ok::<_, Infallible>(Response::new(Script::new())))
        }));
        let mut both: Pin<Box<dyn Future<Output = ()> + '_>> = match around {
            "a layer" => {
                let mut outer = layer.layer(tower::service_fn(|request: Request<()>| {
                    notes(&log, "around");
                    service.call(request)
                }));
                Box::pin(async move { drop(outer.call(Request::new(())).await) })
            }
            _ => Box::pin(async {
                let outer = runner.scope(async {
                    notes(&log, "around");
                    service.call(Request::new(())).await
                });
                drop(outer.await);
            }),
        };
        // The inner one waits as any other.
        assert!(poll_once(both.as_mut()).is_pending());
        polls_to_end(&mut full, 100);
        assert!(poll_once(both.as_mut()).is_ready(), "{around}");
        drop(both);
        for mut batch in batches.take_all() {
            polls_to_end(&mut batch, 100);
        }
        let stats = balanced(&runner);
        assert_eq!((stats.completed, stats.shed), (5, 0), "{around}");
        // All room is there again.
        let again = answer(poll_once(request(&layer, 2, &log, Script::new()).as_mut()));
        assert!(again.is_some(), "{around}");
        drop(again);
        polls_to_end(&mut batches.take_one(), 100);
    }
}

/// Sentence 21: a request made inside a deferred task never waits for what its own parent holds.
#[test]
fn a_request_inside_a_task_never_waits() {
    let (runner, batches) = limited(1);
    let layer = AfterLayer::with_runner(runner.clone());
    let log = Log::new();
    let mut full = fill(&layer, 1, &batches, &log);
    let inside = (layer.clone(), log.clone());
    let (outer, outer_batches) = keeping_with(|builder| builder);
    crate::common::now_or_never(outer.scope(async move {
        after::defer(async move {
            let (layer, log) = inside;
            let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
                notes(&log, "inside");
                std::future::ready(Ok::<_, Infallible>(Response::new(http_body_util::Empty::<
                    bytes::Bytes,
                >::new())))
            }));
            assert!(service.call(Request::new(())).await.is_ok());
        });
    }));
    polls_to_end(&mut outer_batches.take_one(), 100);
    assert_eq!(outer.stats().completed, 1);
    polls_to_end(&mut full, 100);
    polls_to_end(&mut batches.take_one(), 100);
    assert_eq!(balanced(&runner).completed, 3);
}

/// Sentence 21: responses that nobody reads cost what can't wait nothing: as much of it is accepted as without them.
#[test]
fn responses_that_nobody_reads_have_no_others_work_shed() {
    let (runner, batches) = limited(4);
    let layer = AfterLayer::with_runner(runner.clone());
    let log = Log::new();
    let stalled: Vec<_> = (0..20)
        .map(|_| block_on(request(&layer, 1, &log, Script::new().data("a"))).unwrap())
        .collect();
    // One may run, and what can't wait may wait up to the number beside what is kept for those that don't read.
    for _ in 0..5 {
        drop(request(&layer, 1, &log, Script::new()));
    }
    assert_eq!(runner.stats().shed, 0);
    for mut batch in batches.take_all() {
        polls_to_end(&mut batch, 100);
    }
    drop(stalled);
    for mut batch in batches.take_all() {
        let _ = poll_once(Pin::new(&mut batch));
    }
    assert!(balanced(&runner).pending <= 9);
}
