//! When a response is complete, and what was cut short: sentence 22.

use std::task::Poll;

use after::tower::AfterLayer;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::{Body, SizeHint};

use crate::{
    common::{Log, keeping, now_or_never},
    script::{Script, answered, body_of, next_data, next_frame, run_one},
};

/// Takes `frames` frames of the body, checks that none of them hands over, drops it, and says what the task has seen.
#[track_caller]
fn after_frames(frames: usize, request: Request<()>, response: Response<Script>) -> Vec<String> {
    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = AfterLayer::with_runner(runner);
    let mut body = now_or_never(answered(layer, request, response, &log)).into_body();
    for _ in 0..frames {
        assert!(matches!(next_frame(&mut body), Poll::Ready(Some(Ok(_)))));
        assert_eq!(batches.len(), 0, "handed over while a frame is given out");
    }
    drop(body);
    run_one(&batches, &log)
}

fn get() -> Request<()> {
    Request::new(())
}

fn ok(body: Script) -> Response<Script> {
    Response::new(body)
}

/// Sentence 22: handed over when the body returns `None`.
#[test]
fn a_body_that_returns_none_is_finished() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut body = body_of(
        AfterLayer::with_runner(runner),
        Script::new().data("a"),
        &log,
    );
    assert_eq!(next_data(&mut body), "a");
    assert_eq!(batches.len(), 0);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(run_one(&batches, &log), ["handler Finished"]);
    // Once, and never again.
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    drop(body);
    assert_eq!(batches.len(), 0);
}

/// Sentence 22: handed over when the body returns an error.
#[test]
fn an_error_frame_is_a_failure() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().data("a").error().data("never");
    let mut body = body_of(AfterLayer::with_runner(runner), script, &log);
    next_data(&mut body);
    assert!(matches!(
        next_frame(&mut body),
        Poll::Ready(Some(Err("broken")))
    ));
    assert_eq!(run_one(&batches, &log), ["handler Failed"]);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    drop(body);
    assert_eq!(batches.len(), 0);
}

/// Sentence 22: also when all that was announced had been delivered before.
#[test]
fn an_error_after_the_last_byte_is_a_failure() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().data("abc").error().exactly(3);
    let mut body = body_of(AfterLayer::with_runner(runner), script, &log);
    next_data(&mut body);
    assert!(matches!(next_frame(&mut body), Poll::Ready(Some(Err(_)))));
    assert_eq!(run_one(&batches, &log), ["handler Failed"]);
}

/// Sentence 22: the body said `is_end_stream`.
#[test]
fn a_body_that_says_that_it_has_ended_is_finished() {
    let script = || Script::new().data("a").data("b").says_end();
    assert_eq!(after_frames(2, get(), ok(script())), ["handler Finished"]);
    assert_eq!(after_frames(1, get(), ok(script())), ["handler Cancelled"]);
    // At once, without a poll.
    let empty = Script::new().says_end();
    assert_eq!(after_frames(0, get(), ok(empty)), ["handler Finished"]);
}

/// Sentence 22: also when it says so to nobody but the server, between frames.
#[test]
fn the_server_may_be_the_only_one_to_hear_of_the_end() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().data("a").pending().says_end();
    let mut body = body_of(AfterLayer::with_runner(runner), script, &log);
    next_data(&mut body);
    assert!(next_frame(&mut body).is_pending());
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(run_one(&batches, &log), ["handler Finished"]);
}

/// Sentence 22, row P9: hyper never polls a body of known length to its `None`.
#[test]
fn an_exact_length_that_was_delivered_is_finished_without_a_none() {
    let script = || Script::new().data("abc").data("de").exactly(5);
    assert_eq!(after_frames(2, get(), ok(script())), ["handler Finished"]);
    assert_eq!(after_frames(1, get(), ok(script())), ["handler Cancelled"]);
    assert_eq!(after_frames(0, get(), ok(script())), ["handler Cancelled"]);
    let empty = Script::new().exactly(0);
    assert_eq!(after_frames(0, get(), ok(empty)), ["handler Finished"]);
}

/// Sentence 22: the first exact hint may come with a frame; it says what is left.
#[test]
fn a_length_that_becomes_known_on_the_way_counts_from_there() {
    let script = || {
        Script::new().data("abc").data("de").hints([
            SizeHint::new(),
            SizeHint::with_exact(2),
            SizeHint::with_exact(0),
        ])
    };
    assert_eq!(after_frames(1, get(), ok(script())), ["handler Cancelled"]);
    assert_eq!(after_frames(2, get(), ok(script())), ["handler Finished"]);
}

/// Sentence 22: a stream that knows nothing of its length, under a `content-length` header.
#[test]
fn a_stream_under_a_content_length_is_finished_when_it_is_delivered() {
    let response = |length: &str| {
        let mut response = ok(Script::new().data("abc").data("de").data("f"));
        let length = length.parse().unwrap();
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response
    };
    assert_eq!(after_frames(2, get(), response("5")), ["handler Finished"]);
    assert_eq!(after_frames(1, get(), response("5")), ["handler Cancelled"]);
    // Nonsense announces nothing.
    assert_eq!(
        after_frames(2, get(), response("five")),
        ["handler Cancelled"]
    );
}

fn announcing(length: u64, body: Script) -> Response<Script> {
    let mut response = ok(body);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// A response whose `content-length` announces more than its body delivers is broken, however the body ends: both peers
/// treat it so.
#[test]
fn a_body_that_ends_short_of_its_content_length_has_failed() {
    for length in [0, 2, 3, 4, u64::MAX] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let response = announcing(length, Script::new().data("ab").data("c"));
        let layer = AfterLayer::with_runner(runner);
        let mut body = now_or_never(answered(layer, get(), response, &log)).into_body();
        next_data(&mut body);
        next_data(&mut body);
        assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
        let expected = if length <= 3 {
            "handler Finished"
        } else {
            "handler Failed"
        };
        assert_eq!(run_one(&batches, &log), [expected], "{length}");
    }
    let says_end = announcing(4, Script::new().data("abc").says_end());
    assert_eq!(after_frames(1, get(), says_end), ["handler Failed"]);
    let empty = announcing(4, Script::new().says_end());
    assert_eq!(after_frames(0, get(), empty), ["handler Failed"]);
    let trailers = announcing(4, Script::new().data("abc").trailers("checksum", "7"));
    assert_eq!(after_frames(2, get(), trailers), ["handler Failed"]);
    // Dropped before its end: cut off by the server, as ever.
    let cut_off = announcing(4, Script::new().data("abc"));
    assert_eq!(after_frames(1, get(), cut_off), ["handler Cancelled"]);
}

/// What has no body announces what a body would have: HEAD, 204, 304, 1xx, an accepted CONNECT.
#[test]
fn a_content_length_without_a_body_announces_nothing() {
    let with = |method: Method, status: StatusCode| {
        let request = Request::builder().method(method).body(()).unwrap();
        let mut response = announcing(4, Script::new().says_end());
        *response.status_mut() = status;
        after_frames(0, request, response)
    };
    let empty = [
        (Method::HEAD, StatusCode::OK),
        (Method::CONNECT, StatusCode::OK),
        (Method::GET, StatusCode::NO_CONTENT),
        (Method::GET, StatusCode::NOT_MODIFIED),
        (Method::GET, StatusCode::SWITCHING_PROTOCOLS),
    ];
    for (method, status) in empty {
        assert_eq!(with(method, status), ["handler Finished"], "{status}");
    }
    assert_eq!(with(Method::GET, StatusCode::OK), ["handler Failed"]);
}

/// A hint that was wrong is no announcement to the client, and is not judged.
#[test]
fn a_wrong_hint_alone_is_no_failure() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().data("abc").exactly(5);
    let mut body = body_of(AfterLayer::with_runner(runner), script, &log);
    next_data(&mut body);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(run_one(&batches, &log), ["handler Finished"]);
}

/// Neither `failed_if` nor gRPC's status makes a success of it.
#[test]
fn what_is_missing_is_missing_whatever_counts_as_a_failure() {
    let configures: [fn(AfterLayer) -> AfterLayer; 2] =
        [|layer| layer.failed_if(|_| false), AfterLayer::grpc];
    for configure in configures {
        for (length, expected) in [(3, "handler Finished"), (4, "handler Failed")] {
            let (runner, batches) = keeping();
            let log = Log::new();
            let layer = configure(AfterLayer::with_runner(runner));
            let body = Script::new().data("abc").trailers("grpc-status", "0");
            let response = announcing(length, body);
            let mut body = now_or_never(answered(layer, get(), response, &log)).into_body();
            next_data(&mut body);
            assert!(matches!(next_frame(&mut body), Poll::Ready(Some(Ok(_)))));
            drop(body);
            assert_eq!(run_one(&batches, &log), [expected]);
        }
    }
}

/// Sentence 22: the header comes before the hint.
#[test]
fn the_content_length_has_the_first_word() {
    let mut response = ok(Script::new().data("abc").data("de").exactly(3));
    response.headers_mut().insert(CONTENT_LENGTH, 5.into());
    assert_eq!(after_frames(1, get(), response), ["handler Cancelled"]);
}

/// Sentence 22: hyper never polls a body after its trailers.
#[test]
fn a_body_that_has_delivered_trailers_is_finished() {
    let script = || Script::new().data("a").trailers("checksum", "7").data("x");
    assert_eq!(after_frames(2, get(), ok(script())), ["handler Finished"]);
    assert_eq!(after_frames(1, get(), ok(script())), ["handler Cancelled"]);
}

/// Sentence 22: HEAD, 204, 304, 101 and an accepted CONNECT have no body, whatever was delivered.
#[test]
fn what_has_no_body_is_finished_whatever_was_delivered() {
    let with = |method: Method, status: StatusCode| {
        let request = Request::builder().method(method).body(()).unwrap();
        let mut response = ok(Script::new().data("abc"));
        *response.status_mut() = status;
        after_frames(0, request, response)
    };
    assert_eq!(with(Method::HEAD, StatusCode::OK), ["handler Finished"]);
    assert_eq!(
        with(Method::HEAD, StatusCode::NOT_FOUND),
        ["handler Failed"]
    );
    for status in [
        StatusCode::NO_CONTENT,
        StatusCode::NOT_MODIFIED,
        StatusCode::SWITCHING_PROTOCOLS,
    ] {
        assert_eq!(with(Method::GET, status), ["handler Finished"]);
    }
    assert_eq!(with(Method::CONNECT, StatusCode::OK), ["handler Finished"]);
    // A CONNECT that is refused has a body, as has any other answer.
    assert_eq!(
        with(Method::CONNECT, StatusCode::FORBIDDEN),
        ["handler Cancelled"]
    );
    assert_eq!(with(Method::GET, StatusCode::OK), ["handler Cancelled"]);
}

/// Sentence 22: the handler's 500 that nobody has read was cancelled, as any other.
#[test]
fn a_failed_response_that_is_dropped_early_was_cancelled() {
    let mut response = ok(Script::new().data("sorry"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    assert_eq!(after_frames(0, get(), response), ["handler Cancelled"]);
}

/// Sentence 22: an endless stream ends so, always.
#[test]
fn an_endless_stream_is_always_cancelled() {
    let mut script = Script::new();
    for _ in 0..100 {
        script = script.data("tick");
    }
    assert_eq!(after_frames(99, get(), ok(script)), ["handler Cancelled"]);
}

/// Sentence 22: a task that the last frame's poll has deferred is of the request.
#[test]
fn what_the_last_frame_defers_is_handed_over_with_the_rest() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new()
        .defers(&log, "first")
        .defers(&log, "last")
        .exactly(10);
    let mut body = body_of(AfterLayer::with_runner(runner), script, &log);
    assert_eq!(next_data(&mut body), Bytes::from("chunk"));
    next_data(&mut body);
    assert_eq!(batches.len(), 0);
    drop(body);
    assert_eq!(
        run_one(&batches, &log),
        ["handler Finished", "first Finished", "last Finished"]
    );
}
