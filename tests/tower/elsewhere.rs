//! `provide_handle`: layers and frameworks that run what is below on another task.

use std::{convert::Infallible, panic::catch_unwind, pin::Pin, sync::Arc};

use after::{
    Handle, context,
    tower::{AfterLayer, RunAfter},
};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Service, ServiceBuilder, ServiceExt, buffer::BufferLayer};

use crate::{
    common::{DefersOnDrop, Log, balanced, keeping, now_or_never, poll_once},
    script::{Script, next_data, notes, run_one},
};

/// What the inner service makes of a request.
type Answer = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>> + Send>>;

/// A service whose `call` runs on a buffer's worker.
fn below_a_buffer(
    layer: AfterLayer,
    call: impl Fn(Request<()>) -> Answer + Send + 'static,
) -> impl Service<
    Request<()>,
    Response = Response<impl http_body::Body<Data = bytes::Bytes, Error = Infallible>>,
    Error = tower::BoxError,
> {
    ServiceBuilder::new()
        .layer(layer)
        .layer(BufferLayer::new(8))
        .service_fn(call)
}

fn answer() -> Answer {
    Box::pin(async { Ok(Response::new(String::from("hello"))) })
}

fn provided(request: &Request<()>) -> Handle {
    let handle = request.extensions().get::<Handle>();
    handle.expect("provided by the layer").clone()
}

/// Below a buffer `call` runs on the worker's task: `defer` panics there, and says which way leads out.
#[tokio::test]
async fn below_a_buffer_there_is_no_scope() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let service = below_a_buffer(AfterLayer::with_runner(runner), move |request| {
        assert!(
            request.extensions().get::<Handle>().is_none(),
            "off by default"
        );
        noting.add(format!("{}", after::in_scope()));
        let payload = catch_unwind(|| after::defer(async {})).unwrap_err();
        noting.add(*payload.downcast::<String>().unwrap());
        answer()
    });
    drop(service.oneshot(Request::new(())).await.unwrap());
    let [in_scope, message] = &log.entries()[..] else {
        panic!("two entries: {:?}", log.entries());
    };
    assert_eq!(in_scope, "false");
    for part in ["`tower::buffer::Buffer`", "`AfterLayer::provide_handle`"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(batches.len(), 0);
}

/// With the handle the call is in the scope of its request: tasks, context and outcome are the request's.
#[tokio::test]
async fn below_a_buffer_the_handle_brings_the_scope_along() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let layer = AfterLayer::with_runner(runner.clone()).provide_handle();
    let mut service = below_a_buffer(layer, move |request| {
        let handle = provided(&request);
        let log = noting.clone();
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        handle.sync_scope(|| {
            notes(&log, "call");
            context::set(status);
        });
        Box::pin(handle.scope(async move {
            notes(&log, "future");
            let log = log.clone();
            after::defer(async move {
                log.add(format!("{:?}", context::get::<u16>()));
            });
            let response = Response::builder().status(status);
            Ok(response.body(String::from("hello")).unwrap())
        }))
    });
    // One after the other: each is in its own.
    for (status, outcome) in [(200, "Finished"), (404, "Failed")] {
        let request = Request::builder()
            .uri(format!("/{status}"))
            .body(())
            .unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(batches.len(), 0, "the body goes on");
        assert_eq!(response.collect().await.unwrap().to_bytes(), "hello");
        let expected = [
            format!("call {outcome}"),
            format!("future {outcome}"),
            format!("Some({status})"),
        ];
        assert_eq!(run_one(&batches, &log), expected);
    }
    assert_eq!(balanced(&runner).completed, 6);
}

/// A framework that spawns its handlers, whose client goes first: what the handler defers then is handed over at once.
#[tokio::test]
async fn a_handler_on_a_task_of_its_own_may_outlive_its_request() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let (open, gate) = futures::channel::oneshot::channel::<()>();
    let mut gate = Some(gate);
    let (task, mut handler) = futures::channel::mpsc::unbounded();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner.clone()).provide_handle())
        .service_fn(move |request: Request<()>| {
            let (log, gate) = (noting.clone(), gate.take().unwrap());
            let handler = provided(&request).scope(async move {
                notes(&log, "before");
                gate.await.unwrap();
                notes(&log, "after");
            });
            task.unbounded_send(tokio::spawn(handler)).unwrap();
            std::future::pending::<Result<Response<Script>, Infallible>>()
        });
    let mut future = Box::pin(service.call(Request::new(())));
    assert!(poll_once(future.as_mut()).is_pending());
    tokio::task::yield_now().await;
    drop(future);
    assert_eq!(run_one(&batches, &log), ["before Cancelled"]);
    open.send(()).unwrap();
    handler.try_recv().unwrap().await.unwrap();
    assert_eq!(run_one(&batches, &log), ["after Cancelled"]);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Of two layers that provide one the inner one's is found: it would collect what the handler defers, too.
#[test]
fn of_two_layers_the_inner_ones_handle_is_found() {
    let (outer, outer_batches) = keeping();
    let (inner, inner_batches) = keeping();
    let log = Log::new();
    let (between, handler) = (log.clone(), log.clone());
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(outer).provide_handle())
        .map_request(move |request: Request<()>| {
            provided(&request).sync_scope(|| notes(&between, "between"));
            request
        })
        .layer(AfterLayer::with_runner(inner).provide_handle())
        .service_fn(move |request: Request<()>| {
            provided(&request).sync_scope(|| notes(&handler, "handler"));
            async { Ok::<_, Infallible>(Response::new(Script::new().says_end())) }
        });
    drop(now_or_never(service.call(Request::new(()))));
    assert_eq!(run_one(&inner_batches, &log), ["handler Finished"]);
    assert_eq!(run_one(&outer_batches, &log), ["between Finished"]);
}

/// Sentence 8: a request whose handle nobody uses hands over nothing, at each moment.
#[test]
fn a_handle_that_nobody_uses_hands_over_nothing() {
    for moment in [RunAfter::Head, RunAfter::Body, RunAfter::Written] {
        let (runner, batches) = keeping();
        let layer = AfterLayer::with_runner(runner.clone()).run_after(moment);
        let mut service = ServiceBuilder::new()
            .layer(layer.provide_handle())
            .service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(Script::new().data("a")))
            });
        let response = now_or_never(service.call(Request::new(()))).unwrap();
        let mut body = response.into_body();
        // The server keeps the frame: a handle that nobody has any more can bring nothing before it goes.
        let _frame = next_data(&mut body);
        drop(body);
        assert_eq!((batches.len(), runner.stats().deferred), (0, 0));
    }
}

/// The extensions of a response go on to the server: their destructors run outside the scope, and `try_defer` gives the
/// task back. Those of the request, and the body's, run inside.
#[test]
fn the_extensions_of_a_response_are_dropped_outside_the_scope() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let defers = |entry| DefersOnDrop {
        log: log.clone(),
        entry,
    };
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner))
        .service_fn(|request: Request<()>| {
            let guard = defers("body");
            let body = Script::new().says_end().on_drop(move || drop(guard));
            let mut response = Response::new(body);
            response
                .extensions_mut()
                .insert(Arc::new(defers("response's extension")));
            drop(request);
            async { Ok::<_, Infallible>(response) }
        });
    let mut request = Request::new(());
    request
        .extensions_mut()
        .insert(Arc::new(defers("request's extension")));
    let response = now_or_never(service.call(request)).unwrap();
    let (head, body) = response.into_parts();
    // As a server does: the head is written, then the body.
    drop(head);
    log.assert(&["outside"]);
    drop(body);
    assert_eq!(run_one(&batches, &log), ["request's extension", "body"]);
}
