//! What the layer's scope spans: the first half of sentence 22.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use after::tower::{AfterBody, AfterFuture, AfterLayer, RunAfter};
use allocation_counter::measure;
use http::{Request, Response};
use http_body::Body;
use tower::{Service, ServiceBuilder};

use crate::{
    common::{DefersOnDrop, Log, balanced, keeping, now_or_never, poll_once, yields},
    script::{Script, answered, body_of, next_data, next_frame, notes, run_one},
};

/// A service that defers wherever it can.
struct DefersEverywhere {
    log: Log,
}

impl Service<Request<()>> for DefersEverywhere {
    type Response = Response<Script>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        assert!(!after::in_scope(), "no request is here yet");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        notes(&self.log, "call");
        let log = self.log.clone();
        Box::pin(async move {
            let _guard = DefersOnDrop {
                log: log.clone(),
                entry: "future's destructor",
            };
            notes(&log, "first poll");
            yields(1).await;
            notes(&log, "second poll");
            let body = Script::new().pending().defers(&log, "body");
            Ok(Response::new(
                body.on_drop(move || notes(&log, "body's destructor")),
            ))
        })
    }
}

/// Sentence 22: around `Service::call`, the response future and the body, polled and dropped alike.
#[test]
fn the_scope_is_current_in_the_call_the_future_and_the_body() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner.clone()))
        .service(DefersEverywhere { log: log.clone() });
    now_or_never(std::future::poll_fn(|cx| service.poll_ready(cx))).unwrap();
    let mut future = Box::pin(service.call(Request::new(())));
    assert!(!after::in_scope());
    assert!(poll_once(future.as_mut()).is_pending());
    assert!(!after::in_scope());
    let Poll::Ready(Ok(response)) = poll_once(future.as_mut()) else {
        panic!("the response is there");
    };
    let mut body = response.into_body();
    assert!(next_frame(&mut body).is_pending());
    next_data(&mut body);
    assert_eq!(batches.len(), 0);
    drop((future, body));
    assert_eq!(
        run_one(&batches, &log),
        [
            "call Cancelled",
            "first poll Cancelled",
            "second poll Cancelled",
            "future's destructor",
            "body Cancelled",
            "body's destructor Cancelled",
        ]
    );
    assert_eq!(balanced(&runner).completed, 6);
}

/// Sentence 22, row N4: the server drops the future when the client goes, before and after the first poll.
#[test]
fn a_future_that_is_dropped_hands_over_what_was_deferred() {
    for polls in [0, 1] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let mut service = ServiceBuilder::new()
            .layer(AfterLayer::with_runner(runner))
            .service(DefersEverywhere { log: log.clone() });
        let mut future = Box::pin(service.call(Request::new(())));
        for _ in 0..polls {
            assert!(poll_once(future.as_mut()).is_pending());
        }
        assert_eq!(batches.len(), 0);
        drop(future);
        let seen = run_one(&batches, &log);
        match polls {
            0 => assert_eq!(seen, ["call Cancelled"]),
            _ => assert_eq!(
                seen,
                [
                    "call Cancelled",
                    "first poll Cancelled",
                    "future's destructor"
                ]
            ),
        }
    }
}

/// Sentence 2: the future is dropped as soon as it has resolved, in the scope, before its answer is given out.
#[test]
fn a_future_that_has_resolved_is_dropped_in_the_scope() {
    struct Guarded(#[allow(dead_code)] DefersOnDrop);

    impl Future for Guarded {
        type Output = Result<Response<Script>, Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(Response::new(Script::new())))
        }
    }

    let (runner, batches) = keeping();
    let log = Log::new();
    let entry = "future's destructor";
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner.clone()))
        .service_fn(|_: Request<()>| {
            let log = log.clone();
            Guarded(DefersOnDrop { log, entry })
        });
    let mut future = Box::pin(service.call(Request::new(())));
    let Poll::Ready(Ok(response)) = poll_once(future.as_mut()) else {
        panic!("ready");
    };
    assert_eq!(runner.stats().deferred, 1);
    drop(response);
    assert_eq!(run_one(&batches, &log), [entry]);
    drop(future);
    log.assert(&[entry]);
}

/// Sentence 2: the body's destructor runs before the hand-over when the body ends, too.
#[test]
fn a_body_that_ends_is_dropped_in_the_scope() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let script = Script::new().on_drop(move || notes(&noting, "destructor"));
    let mut body = body_of(AfterLayer::with_runner(runner), script, &log);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(
        run_one(&batches, &log),
        ["handler Finished", "destructor Finished"]
    );
}

/// Sentence 3: a request polled inside another scope leaves that one as it was.
#[test]
fn the_scope_around_is_current_again() {
    let (outer, outer_batches) = keeping();
    let (inner, inner_batches) = keeping();
    let log = Log::new();
    now_or_never(outer.scope(async {
        after::context::set("outer");
        let script = Script::new().does(|_| {
            assert_eq!(after::context::get::<&str>(), None);
            Poll::Ready(None)
        });
        let mut body = body_of(AfterLayer::with_runner(inner), script, &log);
        assert_eq!(after::context::get(), Some("outer"));
        assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
        assert_eq!(after::context::get(), Some("outer"));
        notes(&log, "outer");
    }));
    assert_eq!(run_one(&inner_batches, &log), ["handler Finished"]);
    assert_eq!(run_one(&outer_batches, &log), ["outer Finished"]);
}

/// Sentence 3: of two layers the inner one collects what the handler defers, the outer what comes between them.
#[test]
fn of_two_layers_the_inner_one_collects() {
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
        .layer(AfterLayer::with_runner(inner))
        .service_fn(move |_: Request<()>| {
            notes(&handler, "handler");
            async { Ok::<_, Infallible>(Response::new(Script::new())) }
        });
    let mut body = now_or_never(service.call(Request::new(())))
        .unwrap()
        .into_body();
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(run_one(&inner_batches, &log), ["handler Finished"]);
    assert_eq!(run_one(&outer_batches, &log), ["between Finished"]);
}

/// Sentence 15: a handle taken in the handler collects until the body ends.
#[test]
fn a_handle_collects_for_as_long_as_the_body_goes_on() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let mut handle = None;
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner.clone()))
        .service_fn(|_: Request<()>| {
            handle = Some(after::handle());
            async { Ok::<_, Infallible>(Response::new(Script::new().data("a"))) }
        });
    let mut body = now_or_never(service.call(Request::new(())))
        .unwrap()
        .into_body();
    drop(service);
    let handle = handle.unwrap();
    let noting = log.clone();
    handle.defer(async move { noting.add(format!("subtask {:?}", after::outcome().unwrap())) });
    next_data(&mut body);
    assert_eq!(batches.len(), 0);
    assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
    assert_eq!(run_one(&batches, &log), ["subtask Finished"]);
    assert_eq!(balanced(&runner).pending, 0);
}

/// Sentence 8: a request that deferred nothing hands over nothing.
#[test]
fn a_request_that_defers_nothing_hands_over_nothing() {
    let (runner, batches) = keeping();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner.clone()))
        .service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Script::new().data("a")))
        });
    let mut body = now_or_never(service.call(Request::new(())))
        .unwrap()
        .into_body();
    next_data(&mut body);
    drop(body);
    drop(service.call(Request::new(())));
    assert_eq!(batches.len(), 0);
    assert_eq!(runner.stats().deferred, 0);
}

/// The promise: a response whose scope deferred nothing pays no allocation for the layer.
#[test]
fn a_request_that_defers_nothing_allocates_nothing() {
    let request_through = |layer: Option<AfterLayer>| {
        let inner = tower::service_fn(|_: Request<()>| async {
            yields(1).await;
            Ok::<_, Infallible>(Response::new(http_body_util::Full::new(
                bytes::Bytes::from_static(b"hello"),
            )))
        });
        fn through<B: Body<Data = bytes::Bytes> + Unpin>(
            mut service: impl Service<Request<()>, Response = Response<B>, Error = Infallible>,
        ) {
            let mut future = pin!(service.call(Request::new(())));
            assert!(poll_once(future.as_mut()).is_pending());
            let Poll::Ready(Ok(response)) = poll_once(future) else {
                panic!("ready");
            };
            let mut body = response.into_body();
            assert_eq!(body.size_hint().exact(), Some(5));
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            assert!(matches!(now_or_never(frame), Some(Ok(_))));
            assert!(body.is_end_stream());
        }
        match layer {
            None => measure(|| through(inner)).count_total,
            Some(layer) => {
                let service = tower::Layer::layer(&layer, inner);
                measure(|| through(service)).count_total
            }
        }
    };
    let bare = request_through(None);
    let runner = after::Runner::builder().build();
    for moment in [RunAfter::Body, RunAfter::Head] {
        for layer in [AfterLayer::new(), AfterLayer::with_runner(runner.clone())] {
            assert_eq!(
                request_through(Some(layer.run_after(moment))),
                bare,
                "{moment:?}"
            );
        }
    }
}

/// What the docs say of the layer's size.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_body_grows_by_104_bytes_at_the_most() {
    type Inner = http_body_util::Full<bytes::Bytes>;
    let grown = size_of::<AfterBody<Inner>>() - size_of::<Inner>();
    assert!(grown <= 104, "{grown}");
}

/// What the docs say of the layer's size.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_future_grows_by_104_bytes_at_the_most() {
    /// Whose bytes all have a meaning, so that what is wrapped around it finds no room there.
    struct Full(#[allow(dead_code)] u64);

    impl Future for Full {
        type Output = Result<Response<Script>, Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Pending
        }
    }

    let grown = size_of::<AfterFuture<Full>>() - size_of::<Full>();
    assert!(grown <= 104, "{grown}");
}

/// What servers and other layers ask of the types.
#[test]
fn servers_and_layers_may_send_clone_and_box_what_is_of_the_layer() {
    fn service<S: Clone + Send + Sync + 'static>(service: S) -> S {
        service
    }
    fn sent<T: Send + 'static>(sent: T) -> T {
        sent
    }
    let mut service = service(ServiceBuilder::new().layer(AfterLayer::new()).service_fn(
        |_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        },
    ));
    let body = sent(now_or_never(sent(service.call(Request::new(())))).unwrap()).into_body();
    let body = http_body_util::BodyExt::boxed_unsync(body);
    assert!(axum::body::Body::new(body).is_end_stream());
}

/// The order that the layer was given is that of its scopes.
#[test]
fn the_layers_order_is_that_of_its_scopes() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner).order(after::Order::Sequential))
        .service_fn(move |_: Request<()>| {
            for entry in ["a", "b"] {
                let log = noting.clone();
                after::defer(async move {
                    log.add(entry);
                    yields(2).await;
                    log.add(entry);
                });
            }
            async { Ok::<_, Infallible>(Response::new(Script::new().says_end())) }
        });
    drop(now_or_never(service.call(Request::new(()))));
    assert_eq!(run_one(&batches, &log), ["a", "a", "b", "b"]);
}

/// Other layers ask for a body by default: it belongs to no request.
#[test]
fn a_default_body_is_of_no_request() {
    let mut body = AfterBody::<http_body_util::Empty<bytes::Bytes>>::default();
    assert!(body.is_end_stream());
    let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
    assert!(now_or_never(frame).is_none());
}

/// A service can be had back from under the layer, and all types tell of themselves without the user's values.
#[test]
fn the_types_tell_of_themselves() {
    let (runner, batches) = keeping();
    let mut service = tower::Layer::layer(&AfterLayer::with_runner(runner), 7);
    assert_eq!(*service.get_ref(), 7);
    *service.get_mut() = 8;
    assert!(format!("{service:?}").starts_with("AfterService"));
    assert_eq!(service.into_inner(), 8);
    let log = Log::new();
    let response = answered(
        AfterLayer::new(),
        Request::new(()),
        Response::new(Script::new()),
        &log,
    );
    drop(response);
    let body = body_of(
        AfterLayer::with_runner(after::Runner::builder().build()),
        Script::new(),
        &log,
    );
    assert_eq!(format!("{body:?}"), "AfterBody { over: false, .. }");
    assert_eq!(batches.len(), 0);
}
