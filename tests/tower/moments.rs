//! `RunAfter`: at the head, at the end of the body, when the last byte is written. Sentences 22 and 22b.

use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    task::{Poll, Waker},
};

use after::{
    Batch, Outcome,
    tower::{AfterBody, AfterLayer, RunAfter},
};
use bytes::Bytes;
use http::{Request, Response};
use tower::{Service, ServiceBuilder};

use crate::{
    common::{
        Batches, CountingWaker, Log, balanced, keeping, now_or_never, poll_once, polls_to_end,
    },
    script::{Script, answered, body_of, next_data, next_frame, notes, run_one},
};

fn head(layer: AfterLayer) -> AfterLayer {
    layer.run_after(RunAfter::Head)
}

fn written(layer: AfterLayer) -> AfterLayer {
    layer.run_after(RunAfter::Written)
}

/// A response of a handler that defers nothing itself.
fn idle(layer: AfterLayer, body: Script) -> AfterBody<Script> {
    let mut body = Some(body);
    let mut service = ServiceBuilder::new()
        .layer(layer)
        .service_fn(|_: Request<()>| {
            let body = body.take().unwrap();
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
    now_or_never(service.call(Request::new(())))
        .unwrap()
        .into_body()
}

/// A handler that streams says so itself: what it puts into the response's extensions goes over the layer's setting, over
/// each of them, with each of them.
#[test]
fn the_response_goes_over_the_layer() {
    for of_layer in [RunAfter::Head, RunAfter::Body, RunAfter::Written] {
        for of_response in [RunAfter::Head, RunAfter::Body, RunAfter::Written] {
            let (runner, batches) = keeping();
            let log = Log::new();
            let layer = AfterLayer::with_runner(runner).run_after(of_layer);
            let mut response = Response::new(Script::new().data("a"));
            response.extensions_mut().insert(of_response);
            let response = now_or_never(answered(layer, Request::new(()), response, &log));
            // How many tasks have run when all is run that can be.
            let ran = || {
                batches.drive(3);
                log.entries().len()
            };
            let mut seen = vec![ran()];
            let mut body = response.into_body();
            let frame = next_data(&mut body);
            assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
            seen.push(ran());
            drop(frame);
            seen.push(ran());
            let expected = match of_response {
                RunAfter::Head => [1, 1, 1],
                RunAfter::Body => [0, 1, 1],
                _ => [0, 0, 1],
            };
            assert_eq!(seen, expected, "{of_response:?} over {of_layer:?}");
            log.assert(&["handler Finished"]);
        }
    }
}

/// The outcome of a response whose handler has asked for the head is that of the head, as with the layer's own setting:
/// by status, by `failed_if`, by gRPC's status; not by how the body ends.
#[test]
fn the_head_of_a_response_that_asks_for_it_decides() {
    let outcome_of = |configure: fn(AfterLayer) -> AfterLayer, head: http::response::Builder| {
        let (runner, batches) = keeping();
        let log = Log::new();
        let layer = configure(AfterLayer::with_runner(runner));
        let response = head.extension(RunAfter::Head).body(Script::new().error());
        let response = now_or_never(answered(layer, Request::new(()), response.unwrap(), &log));
        let seen = run_one(&batches, &log).concat();
        let mut body = response.into_body();
        assert!(matches!(next_frame(&mut body), Poll::Ready(Some(Err(_)))));
        assert_eq!(batches.len(), 0);
        seen
    };
    let plain = |layer: AfterLayer| layer;
    assert_eq!(outcome_of(plain, Response::builder()), "handler Finished");
    assert_eq!(
        outcome_of(plain, Response::builder().status(503)),
        "handler Failed"
    );
    assert_eq!(
        outcome_of(
            |layer| layer.failed_if(|head| head.status == 200),
            Response::builder()
        ),
        "handler Failed"
    );
    let grpc = |status| {
        outcome_of(
            AfterLayer::grpc,
            Response::builder().header("grpc-status", status),
        )
    };
    assert_eq!(
        outcome_of(AfterLayer::grpc, Response::builder()),
        "handler Finished"
    );
    assert_eq!(grpc("0"), "handler Finished");
    assert_eq!(grpc("13"), "handler Failed");
}

/// Where the layer has the head and the response asks for the body, the outcome is the body's: an error, gRPC's trailers.
#[test]
fn the_body_of_a_response_that_asks_for_it_decides() {
    for moment in [RunAfter::Body, RunAfter::Written] {
        let outcome_of = |configure: fn(AfterLayer) -> AfterLayer, body: Script| {
            let (runner, batches) = keeping();
            let log = Log::new();
            let layer = configure(head(AfterLayer::with_runner(runner)));
            let mut response = Response::new(body);
            response.extensions_mut().insert(moment);
            let response = now_or_never(answered(layer, Request::new(()), response, &log));
            let mut body = response.into_body();
            drop(next_frame(&mut body));
            assert_eq!(batches.len(), 0);
            drop(next_frame(&mut body));
            drop(body);
            run_one(&batches, &log).concat()
        };
        let plain = |layer: AfterLayer| layer;
        let error = Script::new().data("a").error();
        assert_eq!(outcome_of(plain, error), "handler Failed");
        let cut_off = Script::new().data("a").data("b").data("c");
        assert_eq!(outcome_of(plain, cut_off), "handler Cancelled");
        let grpc = |status| {
            let body = Script::new().data("a").trailers("grpc-status", status);
            outcome_of(AfterLayer::grpc, body)
        };
        assert_eq!(grpc("0"), "handler Finished");
        assert_eq!(grpc("5"), "handler Failed");
    }
}

/// Two layers see the same response, and their tasks would wait for the same body: it holds for both.
#[test]
fn the_response_goes_over_two_layers() {
    let (outer, outer_batches) = keeping();
    let (inner, inner_batches) = keeping();
    let log = Log::new();
    let (between, handler) = (log.clone(), log.clone());
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(outer))
        .map_request(move |request: Request<()>| {
            notes(&between, "between");
            request
        })
        .layer(AfterLayer::with_runner(inner).run_after(RunAfter::Written))
        .service_fn(move |_: Request<()>| {
            notes(&handler, "handler");
            let mut response = Response::new(Script::new().pending());
            response.extensions_mut().insert(RunAfter::Head);
            async { Ok::<_, Infallible>(response) }
        });
    let response = now_or_never(service.call(Request::new(()))).unwrap();
    assert_eq!(run_one(&inner_batches, &log), ["handler Finished"]);
    assert_eq!(run_one(&outer_batches, &log), ["between Finished"]);
    // For whoever is above: a layer of another library that asks the same.
    assert_eq!(response.extensions().get(), Some(&RunAfter::Head));
    drop(response);
    assert_eq!((inner_batches.len(), outer_batches.len()), (0, 0));
}

/// Sentence 22: for endless streams: the head is out, and says how the request ended.
#[test]
fn at_the_head_the_tasks_of_the_handler_are_handed_over() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = head(AfterLayer::with_runner(runner.clone()));
    let body = body_of(layer.clone(), Script::new().data("tick"), &log);
    assert_eq!(run_one(&batches, &log), ["handler Finished"]);
    drop(body);
    assert_eq!(batches.len(), 0);
    let mut response = Response::new(Script::new());
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    drop(now_or_never(answered(
        layer,
        Request::new(()),
        response,
        &log,
    )));
    assert_eq!(run_one(&batches, &log), ["handler Failed"]);
    assert_eq!(balanced(&runner).completed, 2);
}

/// Sentence 15: what the body defers afterwards joins the batch while it runs, and is one of its own later.
#[test]
fn at_the_head_what_the_body_defers_later_runs_at_once() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new()
        .defers(&log, "first")
        .defers(&log, "second")
        .defers(&log, "third");
    let mut body = body_of(head(AfterLayer::with_runner(runner.clone())), script, &log);
    let mut batch = batches.take_one();
    next_data(&mut body);
    polls_to_end(&mut batch, 100);
    log.assert(&["handler Finished", "first Finished"]);
    next_data(&mut body);
    assert_eq!(run_one(&batches, &log), ["second Finished"]);
    next_data(&mut body);
    drop(body);
    // The outcome is the head's, though the stream was cut off.
    assert_eq!(run_one(&batches, &log), ["third Finished"]);
    assert_eq!(balanced(&runner).completed, 4);
}

/// Sentence 22: also when the handler itself has deferred nothing: frame by frame, and from the body's destructor.
#[test]
fn at_the_head_a_stream_alone_may_defer() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let script = Script::new()
        .data("nothing yet")
        .does({
            let log = log.clone();
            move |_| {
                notes(&log, "while pending");
                Poll::Pending
            }
        })
        .defers(&log, "frame")
        .on_drop(move || notes(&noting, "destructor"));
    let mut body = idle(head(AfterLayer::with_runner(runner.clone())), script);
    next_data(&mut body);
    assert_eq!(batches.len(), 0);
    assert!(next_frame(&mut body).is_pending());
    assert_eq!(run_one(&batches, &log), ["while pending Finished"]);
    next_data(&mut body);
    assert_eq!(run_one(&batches, &log), ["frame Finished"]);
    drop(body);
    assert_eq!(run_one(&batches, &log), ["destructor Finished"]);

    let noting = log.clone();
    let script = Script::new().on_drop(move || notes(&noting, "nothing but a destructor"));
    drop(idle(head(AfterLayer::with_runner(runner.clone())), script));
    assert_eq!(
        run_one(&batches, &log),
        ["nothing but a destructor Finished"]
    );
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 15: a frame that defers before anything was handed over hands over when it is given out.
#[test]
fn at_the_head_the_first_frame_may_be_the_first_to_defer() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().defers(&log, "first").pending();
    let mut body = idle(head(AfterLayer::with_runner(runner)), script);
    assert_eq!(batches.len(), 0);
    next_data(&mut body);
    assert_eq!(run_one(&batches, &log), ["first Finished"]);
}

/// Sentence 8: once: the end of the body hands over nothing more, and takes nothing out of the batch that runs.
#[test]
fn at_the_head_the_end_of_the_body_hands_over_nothing_more() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().defers(&log, "body");
    let mut body = body_of(head(AfterLayer::with_runner(runner)), script, &log);
    let mut batch = batches.take_one();
    next_data(&mut body);
    drop(body);
    assert_eq!(batches.len(), 0);
    polls_to_end(&mut batch, 100);
    log.assert(&["handler Finished", "body Finished"]);
}

/// Sentence 16: the context is frozen at the head, and what comes later reads it.
#[test]
fn at_the_head_the_context_is_frozen() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let mut service = ServiceBuilder::new()
        .layer(head(AfterLayer::with_runner(runner)))
        .service_fn(move |_: Request<()>| {
            after::context::set("set by the handler");
            let log = noting.clone();
            let body = Script::new().does(move |_| {
                assert_eq!(after::context::try_set("too late"), Err("too late"));
                let log = log.clone();
                after::defer(async move { log.add(after::context::get::<&str>().unwrap()) });
                Poll::Ready(None)
            });
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
    let mut body = now_or_never(service.call(Request::new(())))
        .unwrap()
        .into_body();
    assert_eq!(batches.len(), 0);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(run_one(&batches, &log), ["set by the handler"]);
}

/// Sentence 22: a handler that fails before there is a head hands over as ever.
#[test]
fn at_the_head_an_error_and_a_cancelled_future_hand_over_too() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let mut service = ServiceBuilder::new()
        .layer(head(AfterLayer::with_runner(runner)))
        .service_fn(move |_: Request<()>| {
            notes(&noting, "handler");
            async { Err::<Response<Script>, _>("no") }
        });
    assert!(now_or_never(service.call(Request::new(()))).is_err());
    assert_eq!(run_one(&batches, &log), ["handler Failed"]);
    drop(service.call(Request::new(())));
    assert_eq!(run_one(&batches, &log), ["handler Cancelled"]);
}

/// The batch that was handed over, which waits for the last byte: it starts nothing, however often it is polled.
#[track_caller]
fn waiting(batches: &Batches, log: &Log) -> Batch {
    let before = log.entries();
    let mut batch = batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(std::pin::Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(log.entries(), before);
    batch
}

/// Runs a batch whose last byte was let go of, and says what its tasks have noted.
#[track_caller]
fn run_written(mut batch: Batch, log: &Log) -> Vec<String> {
    let before = log.entries().len();
    polls_to_end(&mut batch, 100);
    log.entries().split_off(before)
}

/// Sentence 22b: the tasks start when the server has let go of the last frame, in whatever order it does.
#[test]
fn written_waits_until_the_server_has_let_go_of_every_frame() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().data("first").data("second");
    let mut body = body_of(
        written(AfterLayer::with_runner(runner.clone())),
        script,
        &log,
    );
    let first = next_data(&mut body);
    let second = next_data(&mut body);
    assert_eq!((&first[..], &second[..]), (&b"first"[..], &b"second"[..]));
    assert_eq!(batches.len(), 0);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    drop(body);
    assert_eq!(runner.stats().pending, 1);
    let mut batch = waiting(&batches, &log);
    let (wakes, waker) = CountingWaker::new();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(std::pin::Pin::new(&mut batch).poll(&mut cx).is_pending());
    drop(second);
    // A part of it is not written yet.
    let rest = first.slice(3..);
    drop(first);
    assert_eq!(wakes.wakes(), 0);
    drop(rest);
    assert_eq!(wakes.wakes(), 1);
    assert_eq!(run_written(batch, &log), ["handler Finished"]);
    assert_eq!(balanced(&runner).completed, 1);
}

/// Sentence 22b: frames that are written in time keep nobody waiting, and the end of the body alone does not hand over.
#[test]
fn written_is_the_end_of_the_body_when_nothing_is_left_to_write() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = written(AfterLayer::with_runner(runner));
    let mut body = body_of(layer.clone(), Script::new().data("a").data("b"), &log);
    drop(next_data(&mut body));
    drop(next_data(&mut body));
    assert_eq!(batches.len(), 0, "the body goes on");
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(run_one(&batches, &log), ["handler Finished"]);
    // Nothing was ever to be written.
    drop(body_of(layer, Script::new().says_end(), &log));
    assert_eq!(run_one(&batches, &log), ["handler Finished"]);
}

/// Sentence 22b: the outcome is decided by the body; a frame that is given up later does not change it.
#[test]
fn written_decides_the_outcome_at_the_end_of_the_body() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = written(AfterLayer::with_runner(runner));
    let mut body = body_of(
        layer.clone(),
        Script::new().data("a").data("b").exactly(2),
        &log,
    );
    let frame = next_data(&mut body);
    drop(body);
    let batch = waiting(&batches, &log);
    drop(frame);
    assert_eq!(run_written(batch, &log), ["handler Cancelled"]);
    let mut body = body_of(layer, Script::new().data("a").error(), &log);
    let frame = next_data(&mut body);
    assert!(matches!(next_frame(&mut body), Poll::Ready(Some(Err(_)))));
    let batch = waiting(&batches, &log);
    drop(frame);
    assert_eq!(run_written(batch, &log), ["handler Failed"]);
}

/// Sentence 22b: also what the body's destructor defers, when the last frame is out already.
#[test]
fn written_holds_what_the_bodys_destructor_defers() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let script = Script::new()
        .data("a")
        .exactly(1)
        .on_drop(move || notes(&noting, "destructor"));
    let mut body = idle(written(AfterLayer::with_runner(runner)), script);
    let frame = next_data(&mut body);
    drop(body);
    let batch = waiting(&batches, &log);
    drop(frame);
    assert_eq!(run_written(batch, &log), ["destructor Finished"]);
}

/// Sentence 22b: until the last byte is written work that comes through a handle waits with the rest.
#[test]
fn written_holds_what_a_handle_defers_when_the_body_has_ended() {
    for handler_defers in [false, true] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let mut handle = None;
        let mut service = ServiceBuilder::new()
            .layer(written(AfterLayer::with_runner(runner.clone())))
            .service_fn(|_: Request<()>| {
                handle = Some(after::handle());
                if handler_defers {
                    notes(&log, "handler");
                }
                async { Ok::<_, Infallible>(Response::new(Script::new().data("a"))) }
            });
        let mut body = now_or_never(service.call(Request::new(())))
            .unwrap()
            .into_body();
        drop(service);
        let frame = next_data(&mut body);
        assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
        drop(body);
        handle.unwrap().sync_scope(|| notes(&log, "subtask"));
        let batch = waiting(&batches, &log);
        drop(frame);
        let seen = run_written(batch, &log);
        match handler_defers {
            false => assert_eq!(seen, ["subtask Finished"]),
            true => assert_eq!(seen, ["handler Finished", "subtask Finished"]),
        }
        assert_eq!(balanced(&runner).pending, 0);
    }
}

/// Sentence 22b: trailers and empty frames are nothing to wait for, and pass through.
#[test]
fn written_passes_on_what_is_not_data() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().data("").trailers("checksum", "7");
    let mut body = body_of(written(AfterLayer::with_runner(runner)), script, &log);
    let empty = next_data(&mut body);
    let Poll::Ready(Some(Ok(trailers))) = next_frame(&mut body) else {
        panic!("trailers");
    };
    drop(body);
    assert_eq!(run_one(&batches, &log), ["handler Finished"]);
    assert_eq!(trailers.trailers_ref().unwrap()["checksum"], "7");
    assert_eq!(empty, Bytes::new());
}

/// Sentence 22b: a frame's memory is given back before the tasks are woken.
#[test]
fn written_gives_the_memory_back_first() {
    struct Memory(Log);

    impl AsRef<[u8]> for Memory {
        fn as_ref(&self) -> &[u8] {
            b"data"
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            self.0.add("memory");
        }
    }

    let log = Log::new();
    let (runner, batches) = keeping();
    let mut memory = Some(Memory(log.clone()));
    let script = Script::new().does(move |_| {
        let data = Bytes::from_owner(memory.take().unwrap());
        Poll::Ready(Some(Ok(http_body::Frame::data(data))))
    });
    let mut body = body_of(written(AfterLayer::with_runner(runner)), script, &log);
    let frame = next_data(&mut body);
    drop(body);
    let mut batch = waiting(&batches, &log);
    let noting = log.clone();
    let waker = Waker::from(Arc::new(OnWake(move || noting.add("woken"))));
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(std::pin::Pin::new(&mut batch).poll(&mut cx).is_pending());
    drop(frame);
    log.assert(&["memory", "woken"]);
    run_written(batch, &log);
}

struct OnWake<F>(F);

impl<F: Fn() + Send + Sync> std::task::Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Sentence 22b: the last frame may go on any thread, after the body.
#[test]
fn written_starts_the_tasks_from_the_thread_that_lets_go() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut body = body_of(
        written(AfterLayer::with_runner(runner)),
        Script::new().data("a"),
        &log,
    );
    let frame = next_data(&mut body);
    drop(body);
    let batch = waiting(&batches, &log);
    let outcome = std::thread::spawn(move || drop(frame)).join();
    outcome.unwrap();
    assert_eq!(
        run_written(batch, &log),
        [format!("handler {:?}", Outcome::Cancelled)]
    );
}
