//! The service: where a request begins.

use std::{
    pin::pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    AfterBody, AfterFuture, AfterLayer, RequestHead,
    exchange::{self, Exchange},
    progress::Asks,
};
use crate::context;

/// Service of an [`AfterLayer`]: each of its requests has a scope.
///
/// The scope is current while the inner service is called, while its future and its body are polled, and while they are
/// dropped; not in `poll_ready`. A panic of `call` ends the request, and propagates.
///
/// ```
/// use after::tower::AfterLayer;
/// use tower::ServiceBuilder;
///
/// let service = ServiceBuilder::new()
///     .layer(AfterLayer::new())
///     .service_fn(|_: http::Request<()>| async {
///         after::defer(async { println!("the response is out") });
///         Ok::<_, std::convert::Infallible>(http::Response::new(String::from("hello")))
///     });
/// # let _: &after::tower::AfterService<_> = &service;
/// ```
#[derive(Clone, Debug)]
pub struct AfterService<S> {
    inner: S,
    layer: AfterLayer,
}

impl<S> AfterService<S> {
    pub(super) fn new(inner: S, layer: AfterLayer) -> Self {
        AfterService { inner, layer }
    }

    /// The service below.
    ///
    /// ```
    /// use after::tower::AfterLayer;
    /// use tower::Layer;
    ///
    /// let mut service = AfterLayer::new().layer("a service");
    /// assert_eq!(*service.get_ref(), "a service");
    /// *service.get_mut() = "another";
    /// assert_eq!(service.into_inner(), "another");
    /// ```
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service below, to be changed: see [`get_ref`](AfterService::get_ref).
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service below, without the layer: see [`get_ref`](AfterService::get_ref).
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Req, B> Service<Request<Req>> for AfterService<S>
where
    S: Service<Request<Req>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    type Response = Response<AfterBody<B>>;
    type Error = S::Error;
    type Future = AfterFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Req>) -> Self::Future {
        let layer = &self.layer;
        let mut exchange = Exchange::begin(layer, Asks::of(request.method()));
        if layer.capture_request {
            let head = RequestHead::of(&request);
            // In a scope that has just begun nothing refuses it.
            let _ = exchange.scope.enter(|| context::try_set(head));
        }
        if layer.provide_handle {
            request.extensions_mut().insert(exchange.scope.handle());
        }
        let mut exchange = Some(exchange);
        let inner = &mut self.inner;
        let nothing = pin!(None::<()>);
        let future = exchange::run(&mut exchange, nothing, &mut None::<()>, |_, _| {
            inner.call(request)
        });
        AfterFuture::new(future, exchange)
    }
}
