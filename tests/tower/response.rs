//! `capture_response`: what tasks know of the response.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use after::{
    context,
    tower::{AfterLayer, ResponseHead, RunAfter},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tower::{Service, ServiceBuilder};

use crate::{
    common::{Log, keeping, now_or_never},
    script::{Script, next_data, next_frame, run_one},
};

/// The status and the header `x-from` as a task sees them, or that there was no response.
fn seen() -> String {
    match context::get::<ResponseHead>() {
        None => String::from("no response"),
        Some(head) => format!(
            "{} {:?}",
            head.status().as_u16(),
            head.headers().get("x-from")
        ),
    }
}

/// Defers a task that notes what it sees of the response, and the outcome.
fn notes_response(log: &Log) {
    let log = log.clone();
    after::defer(async move { log.add(format!("{} {:?}", seen(), after::outcome().unwrap())) });
}

fn response(status: u16) -> Response<Script> {
    let response = Response::builder()
        .status(status)
        .header("x-from", "handler");
    response.body(Script::new().data("a")).unwrap()
}

/// What the task of a handler sees, when `frames` polls of the body were made and the body was dropped.
fn seen_by_task(
    layer: impl FnOnce(AfterLayer) -> AfterLayer,
    method: Method,
    response: Response<Script>,
    frames: usize,
) -> Vec<String> {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut response = Some(response);
    let mut service = ServiceBuilder::new()
        .layer(layer(AfterLayer::with_runner(runner)))
        .service_fn(|_: Request<()>| {
            notes_response(&log);
            assert_eq!(seen(), "no response", "it has not been made yet");
            let response = response.take().unwrap();
            async { Ok::<_, Infallible>(response) }
        });
    let request = Request::builder().method(method).body(()).unwrap();
    let answer = now_or_never(service.call(request)).unwrap();
    drop(service);
    let mut body = answer.into_body();
    for _ in 0..frames {
        let _ = next_frame(&mut body);
    }
    drop(body);
    run_one(&batches, &log)
}

fn capturing(layer: AfterLayer) -> AfterLayer {
    layer.capture_response()
}

/// Status and headers as they were given out, whatever the status, and however the body ends.
#[test]
fn a_task_reads_the_response_as_it_was_given_out() {
    for (status, outcome) in [
        (201, "Finished"),
        (302, "Finished"),
        (404, "Failed"),
        (503, "Failed"),
    ] {
        assert_eq!(
            seen_by_task(capturing, Method::GET, response(status), 2),
            [format!("{status} Some(\"handler\") {outcome}")]
        );
    }
    assert_eq!(
        seen_by_task(capturing, Method::GET, response(200), 1),
        ["200 Some(\"handler\") Cancelled"],
        "there was a response; its body was cut off"
    );
    assert_eq!(
        seen_by_task(capturing, Method::HEAD, response(200), 0),
        ["200 Some(\"handler\") Finished"]
    );
}

/// Also with the tasks that are handed over with the head, and with those that wait for the last byte.
#[test]
fn a_task_reads_the_response_whenever_it_runs() {
    for moment in [RunAfter::Head, RunAfter::Body, RunAfter::Written] {
        let layer = |layer: AfterLayer| layer.run_after(moment).capture_response();
        assert_eq!(
            seen_by_task(layer, Method::GET, response(200), 2),
            ["200 Some(\"handler\") Finished"],
            "{moment:?}"
        );
    }
}

/// Not taken when not asked for.
#[test]
fn without_capture_response_there_is_none() {
    assert_eq!(
        seen_by_task(|layer| layer, Method::GET, response(200), 2),
        ["no response Finished"]
    );
}

/// An error, a future that is dropped, a panic: no head was given out.
#[test]
fn where_there_was_no_response_there_is_none() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = AfterLayer::with_runner(runner).capture_response();
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .service_fn(|_: Request<()>| {
            notes_response(&log);
            async { Err::<Response<Script>, _>("no") }
        });
    assert!(now_or_never(service.call(Request::new(()))).is_err());
    assert_eq!(run_one(&batches, &log), ["no response Failed"]);
    drop(service.call(Request::new(())));
    assert_eq!(run_one(&batches, &log), ["no response Cancelled"]);

    let mut service = ServiceBuilder::new()
        .layer(layer.failed_if(|_| panic!("told to")))
        .service_fn(|_: Request<()>| {
            notes_response(&log);
            async { Ok::<_, Infallible>(response(200)) }
        });
    let panics = AssertUnwindSafe(|| drop(now_or_never(service.call(Request::new(())))));
    assert!(catch_unwind(panics).is_err());
    assert_eq!(run_one(&batches, &log), ["no response Panicked"]);
}

/// Each layer captures what it gives out itself, and the tasks of each scope see their own.
#[test]
fn of_two_layers_each_has_its_own() {
    let (outer, outer_batches) = keeping();
    let (inner, inner_batches) = keeping();
    let log = Log::new();
    let between = log.clone();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(outer).capture_response())
        .map_request(move |request: Request<()>| {
            notes_response(&between);
            request
        })
        .map_response(|mut response: Response<_>| {
            assert_eq!(seen(), "no response", "of the outer scope");
            *response.status_mut() = StatusCode::ACCEPTED;
            let value = HeaderValue::from_static("between");
            response.headers_mut().insert("x-from", value);
            response
        })
        .layer(AfterLayer::with_runner(inner).capture_response())
        .service_fn(|_: Request<()>| {
            notes_response(&log);
            async { Ok::<_, Infallible>(response(200)) }
        });
    let mut body = now_or_never(service.call(Request::new(())))
        .unwrap()
        .into_body();
    next_data(&mut body);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(
        run_one(&inner_batches, &log),
        ["200 Some(\"handler\") Finished"]
    );
    assert_eq!(
        run_one(&outer_batches, &log),
        ["202 Some(\"between\") Finished"]
    );
}

/// Sentence 16: it is there before the context is frozen, and the body reads it while the request goes on.
#[test]
fn the_context_is_frozen_after_it_was_set() {
    for moment in [RunAfter::Head, RunAfter::Body] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let noting = log.clone();
        let mut service = ServiceBuilder::new()
            .layer(
                AfterLayer::with_runner(runner)
                    .run_after(moment)
                    .capture_response(),
            )
            .service_fn(move |_: Request<()>| {
                let mut handle = None;
                if moment == RunAfter::Body {
                    // The context is shared with what runs elsewhere.
                    handle = Some(after::handle());
                }
                let log = noting.clone();
                notes_response(&log);
                let body = Script::new().does(move |_| {
                    log.add(format!("body: {}", seen()));
                    if let Some(handle) = &handle {
                        handle.sync_scope(|| log.add(format!("elsewhere: {}", seen())));
                    }
                    let open = context::try_set(7_u8).is_ok();
                    log.add(format!("open: {open}"));
                    Poll::Ready(None)
                });
                let response = Response::builder().header("x-from", "handler");
                async { Ok::<_, Infallible>(response.body(body).unwrap()) }
            });
        let mut body = now_or_never(service.call(Request::new(())))
            .unwrap()
            .into_body();
        assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
        let body_sees = "body: 200 Some(\"handler\")";
        match moment {
            RunAfter::Head => log.assert(&[body_sees, "open: false"]),
            _ => log.assert(&[body_sees, "elsewhere: 200 Some(\"handler\")", "open: true"]),
        }
        assert_eq!(run_one(&batches, &log), ["200 Some(\"handler\") Finished"]);
    }
}

/// Sentence 8: what was captured is nothing to hand over.
#[test]
fn a_request_that_defers_nothing_hands_over_nothing() {
    for moment in [RunAfter::Head, RunAfter::Body, RunAfter::Written] {
        let (runner, batches) = keeping();
        let layer = AfterLayer::with_runner(runner.clone()).run_after(moment);
        let mut service = ServiceBuilder::new()
            .layer(layer.capture_response())
            .service_fn(|_: Request<()>| async { Ok::<_, Infallible>(response(200)) });
        let mut body = now_or_never(service.call(Request::new(())))
            .unwrap()
            .into_body();
        next_data(&mut body);
        assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
        assert_eq!((batches.len(), runner.stats().deferred), (0, 0));
    }
}

/// What the layer captures of a response.
fn captured(head: http::response::Builder) -> ResponseHead {
    let mut response = Some(head.body(Script::new()).unwrap());
    let (runner, batches) = keeping();
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner).capture_response())
        .service_fn(|_: Request<()>| {
            let sender = sender.clone();
            after::defer(async move { sender.send(context::get::<ResponseHead>()).unwrap() });
            let response = response.take().unwrap();
            async { Ok::<_, Infallible>(response) }
        });
    drop(now_or_never(service.call(Request::new(()))));
    run_one(&batches, &Log::new());
    receiver.recv().unwrap().unwrap()
}

/// `Debug` hides credentials, as that of the request does.
#[test]
fn debug_hides_credentials() {
    let mut marked = HeaderValue::from_static("hunter2");
    marked.set_sensitive(true);
    let head = captured(
        Response::builder()
            .status(201)
            .header("set-cookie", "session=hunter2")
            .header("x-new-key", marked)
            .header("content-type", "text/html"),
    );
    let shown = format!("{head:?} {head:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    for part in ["ResponseHead", "201", "set-cookie", "text/html"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

/// Cheap to clone: all clones are the same snapshot.
#[test]
fn clones_are_the_same_snapshot() {
    let head = captured(Response::builder());
    assert!(std::ptr::eq(head.headers(), head.clone().headers()));
    assert_eq!(*head.headers(), HeaderMap::new());
}
