//! What counts as a failure: sentence 23, and what panics.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use after::tower::AfterLayer;
use http::{Request, Response, StatusCode};
use tower::{Service, ServiceBuilder};

use crate::{
    common::{DefersOnDrop, Log, keeping, now_or_never, poll_once},
    script::{Script, answered, body_of, next_frame, notes, run_one},
};

/// The outcome of a response with this head and an empty body.
#[track_caller]
fn outcome_of(
    configure: impl FnOnce(AfterLayer) -> AfterLayer,
    head: http::response::Builder,
) -> String {
    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = configure(AfterLayer::with_runner(runner));
    let response = head.body(Script::new().says_end()).unwrap();
    drop(now_or_never(answered(
        layer,
        Request::new(()),
        response,
        &log,
    )));
    run_one(&batches, &log).concat()
}

/// The outcome of a gRPC response with this body, after `frames` frames of it.
#[track_caller]
fn outcome_of_grpc(body: Script, frames: usize) -> String {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut body = body_of(AfterLayer::with_runner(runner).grpc(), body, &log);
    for _ in 0..frames {
        let _ = next_frame(&mut body);
    }
    drop(body);
    run_one(&batches, &log).concat()
}

/// Sentence 23: a status below 400 is a success.
#[test]
fn a_status_of_400_or_above_is_a_failure() {
    let status = |status: u16| outcome_of(|layer| layer, Response::builder().status(status));
    for success in [200, 201, 302, 399] {
        assert_eq!(status(success), "handler Finished", "{success}");
    }
    for failure in [400, 404, 500, 599, 999] {
        assert_eq!(status(failure), "handler Failed", "{failure}");
    }
}

/// Sentence 23: `failed_if` changes that, and may look at all of the head.
#[test]
fn failed_if_decides_on_the_head() {
    let layer = |layer: AfterLayer| {
        layer.failed_if(|head| {
            head.status.is_server_error() || head.headers.contains_key("x-failed")
        })
    };
    let head = || Response::builder();
    assert_eq!(outcome_of(layer, head().status(404)), "handler Finished");
    assert_eq!(outcome_of(layer, head().status(500)), "handler Failed");
    assert_eq!(
        outcome_of(layer, head().header("x-failed", "yes")),
        "handler Failed"
    );
    // The one that was set last decides.
    let grpc = |layer: AfterLayer| layer.grpc().failed_if(|_| false);
    assert_eq!(outcome_of(grpc, head()), "handler Finished");
}

/// Sentence 23: an error of the service is a failure, handed over at once.
#[test]
fn an_error_of_the_service_is_a_failure() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner))
        .service_fn(move |_: Request<()>| {
            notes(&noting, "handler");
            async { Err::<Response<Script>, _>("no database") }
        });
    let answer = now_or_never(service.call(Request::new(())));
    assert_eq!(answer.err(), Some("no database"));
    assert_eq!(run_one(&batches, &log), ["handler Failed"]);
}

/// Sentence 23: in the head of a response that has nothing else.
#[test]
fn grpc_reads_the_status_in_the_head() {
    let head = |status: &str| {
        outcome_of(
            AfterLayer::grpc,
            Response::builder().header("grpc-status", status),
        )
    };
    assert_eq!(head("0"), "handler Finished");
    assert_eq!(head("5"), "handler Failed");
    let bad_gateway = Response::builder().status(StatusCode::BAD_GATEWAY);
    assert_eq!(outcome_of(AfterLayer::grpc, bad_gateway), "handler Failed");
}

/// Sentence 23: in the trailers.
#[test]
fn grpc_reads_the_status_in_the_trailers() {
    let body = |status| {
        Script::new()
            .data("message")
            .trailers("grpc-status", status)
    };
    assert_eq!(outcome_of_grpc(body("0"), 2), "handler Finished");
    assert_eq!(outcome_of_grpc(body("5"), 2), "handler Failed");
    // To its end.
    assert_eq!(outcome_of_grpc(body("0"), 3), "handler Finished");
    assert_eq!(outcome_of_grpc(body("5"), 3), "handler Failed");
    // The client has gone before.
    assert_eq!(outcome_of_grpc(body("0"), 1), "handler Cancelled");
}

/// Sentence 23: a message of known length is not all of its response: the status is in the trailers.
#[test]
fn grpc_is_not_complete_when_its_bytes_are() {
    let body = || {
        Script::new()
            .data("message")
            .trailers("grpc-status", "0")
            .exactly(7)
    };
    assert_eq!(outcome_of_grpc(body(), 0), "handler Cancelled");
    assert_eq!(outcome_of_grpc(body(), 1), "handler Cancelled");
    assert_eq!(outcome_of_grpc(body(), 2), "handler Finished");
    // To its end, and without a status.
    let no_trailers = Script::new().data("message").exactly(7);
    assert_eq!(outcome_of_grpc(no_trailers, 2), "handler Failed");
}

/// Sentence 23: success is `grpc-status: 0`, so none of it is no success.
#[test]
fn grpc_without_a_status_has_failed() {
    let no_trailers = Script::new().data("message");
    assert_eq!(outcome_of_grpc(no_trailers, 2), "handler Failed");
    let others = Script::new().data("message").trailers("checksum", "0");
    assert_eq!(outcome_of_grpc(others, 2), "handler Failed");
}

/// Sentence 8: a panic of `call`, of the future, of the body, of `failed_if` hands over, and goes on.
#[test]
fn a_panic_anywhere_hands_over_and_goes_on() {
    for place in ["call", "future", "failed_if", "body", "size_hint"] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let noting = log.clone();
        let mut layer = AfterLayer::with_runner(runner.clone());
        if place == "failed_if" {
            layer = layer.failed_if(|_| panic!("failed_if"));
        }
        let mut service = ServiceBuilder::new()
            .layer(layer)
            .service_fn(move |_: Request<()>| {
                notes(&noting, "handler");
                assert_ne!(place, "call");
                let log = noting.clone();
                async move {
                    let entry = "destructor";
                    let guard = DefersOnDrop {
                        log: log.clone(),
                        entry,
                    };
                    assert_ne!(place, "future");
                    drop(guard);
                    let on_drop = move || notes(&log, "body's");
                    let mut body = Script::new().panics().on_drop(on_drop);
                    if place == "size_hint" {
                        body = body.panics_when_asked();
                    }
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let response = now_or_never(service.call(Request::new(()))).unwrap();
            assert_eq!(batches.len(), 0);
            let mut body = response.into_body();
            let again = catch_unwind(AssertUnwindSafe(|| next_frame(&mut body)));
            // In the poll, and not when somebody drops what is left.
            assert_eq!(batches.len(), 1);
            assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
            std::panic::resume_unwind(again.err().unwrap());
        }));
        assert!(panicked.is_err(), "{place}");
        let expected: &[&str] = match place {
            "call" => &["handler Panicked"],
            "future" => &["handler Panicked", "destructor"],
            _ => &["handler Panicked", "destructor", "body's Panicked"],
        };
        assert_eq!(run_one(&batches, &log), expected, "{place}");
        assert_eq!(runner.stats().pending, 0);
    }
}

/// Sentence 8: and once: what is left of the future is dropped in the poll that panics.
#[test]
fn a_future_that_has_panicked_is_over() {
    let (runner, batches) = keeping();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner))
        .service_fn(|_: Request<()>| async {
            after::defer(async {});
            if after::in_scope() {
                panic!("a handler that panics");
            }
            Ok::<_, Infallible>(Response::new(Script::new()))
        });
    let mut future = pin!(service.call(Request::new(())));
    let polled = catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()).is_ready()));
    assert!(polled.is_err());
    assert_eq!(batches.len(), 1);
    let polled = catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()).is_ready()));
    let payload = polled.unwrap_err();
    let message = payload.downcast_ref::<&str>().unwrap();
    assert!(message.contains("polled after completion"), "{message}");
    assert_eq!(batches.take_all().len(), 1);
}

/// Sentence 18b: destructors that panic are caught, in the future as in the body, and the tasks are handed over.
#[test]
fn a_destructor_that_panics_is_caught() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let script = Script::new().data("a").on_drop(|| panic!("a destructor"));
    drop(body_of(AfterLayer::with_runner(runner), script, &log));
    assert_eq!(run_one(&batches, &log), ["handler Cancelled"]);
}
