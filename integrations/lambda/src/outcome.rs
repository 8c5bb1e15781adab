//! Around the handler: sees how it ends, and has its body in the scope of the invocation.

use std::{
    any::Any,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use after::{Handle, Outcome};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use lambda_runtime::LambdaEvent;
use tower_layer::Layer;
use tower_service::Service;

use crate::ending::Teller;

/// A [`Layer`] for the handler that tells the [`AfterLambdaLayer`](crate::AfterLambdaLayer) around the runtime how each
/// invocation ends: see the [crate](crate#the-outcome).
///
/// Around an HTTP service, an axum `Router` say, or around a handler of [`LambdaEvent`]s. Outside a Lambda invocation it
/// changes nothing, so the same router serves elsewhere.
///
/// ```
/// use after_lambda::OutcomeLayer;
/// use axum::{Router, routing::get};
///
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(OutcomeLayer::new());
/// # drop(app);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OutcomeLayer {
    _private: (),
}

impl OutcomeLayer {
    /// The layer. It has no settings.
    ///
    /// ```
    /// let layer = after_lambda::OutcomeLayer::new();
    /// # let _ = layer;
    /// ```
    pub fn new() -> Self {
        OutcomeLayer::default()
    }
}

impl<S> Layer<S> for OutcomeLayer {
    type Service = OutcomeService<S>;

    fn layer(&self, inner: S) -> OutcomeService<S> {
        OutcomeService { inner }
    }
}

/// The service of an [`OutcomeLayer`], for HTTP requests and for [`LambdaEvent`]s.
#[derive(Clone, Debug)]
pub struct OutcomeService<S> {
    inner: S,
}

impl<S, Req, B> Service<Request<Req>> for OutcomeService<S>
where
    S: Service<Request<Req>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<OutcomeBody<B>>;
    type Error = S::Error;
    type Future = OutcomeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let mut teller = Teller::of_current();
        let future = or_panicked(&mut teller, || self.inner.call(request));
        OutcomeFuture { future, teller }
    }
}

impl<S, P> Service<LambdaEvent<P>> for OutcomeService<S>
where
    S: Service<LambdaEvent<P>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = OutcomeEventFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, event: LambdaEvent<P>) -> Self::Future {
        let mut teller = Teller::of_current();
        let future = or_panicked(&mut teller, || self.inner.call(event));
        OutcomeEventFuture { future, teller }
    }
}

/// A panic is told, and goes on: the runtime makes an answer of it.
fn or_panicked<R>(teller: &mut Teller, f: impl FnOnce() -> R) -> R {
    let caught: Result<R, Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(f));
    caught.unwrap_or_else(|payload| {
        teller.tell(Outcome::Panicked);
        resume_unwind(payload)
    })
}

fn of_failed(failed: bool) -> Outcome {
    match failed {
        true => Outcome::Failed,
        false => Outcome::Finished,
    }
}

pin_project_lite::pin_project! {
    /// The future of an [`OutcomeService`] that was called with an HTTP request.
    #[must_use = "futures do nothing unless polled"]
    pub struct OutcomeFuture<F> {
        #[pin]
        future: F,
        teller: Teller,
    }
}

impl<F, B, E> Future for OutcomeFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<OutcomeBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match ready!(or_panicked(this.teller, || this.future.poll(cx))) {
            Ok(response) => response,
            Err(error) => {
                this.teller.tell(Outcome::Failed);
                return Poll::Ready(Err(error));
            }
        };
        let status = response.status();
        let failed = status.is_client_error() || status.is_server_error();
        let mut teller = this.teller.take();
        Poll::Ready(Ok(response.map(|body| {
            let ended = or_panicked(&mut teller, || body.is_end_stream());
            OutcomeBody {
                // The runtime reads a streamed body on a task of its own, where no scope is current.
                handle: if ended || !teller.tells() {
                    None
                } else {
                    after::try_handle()
                },
                body: Some(body),
                teller,
                failed,
                ended,
            }
        })))
    }
}

impl<F> fmt::Debug for OutcomeFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutcomeFuture").finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// The future of an [`OutcomeService`] that was called with a [`LambdaEvent`].
    #[must_use = "futures do nothing unless polled"]
    pub struct OutcomeEventFuture<F> {
        #[pin]
        future: F,
        teller: Teller,
    }
}

impl<F, T, E> Future for OutcomeEventFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(or_panicked(this.teller, || this.future.poll(cx)));
        this.teller.tell(of_failed(answer.is_err()));
        Poll::Ready(answer)
    }
}

impl<F> fmt::Debug for OutcomeEventFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutcomeEventFuture").finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// The body of a response of an [`OutcomeService`]: polled and dropped in the scope of its invocation.
    pub struct OutcomeBody<B> {
        // `Some` until it is dropped.
        #[pin]
        body: Option<B>,
        teller: Teller,
        handle: Option<Handle>,
        failed: bool,
        // Whether the body has said that nothing comes any more.
        ended: bool,
    }

    impl<B> PinnedDrop for OutcomeBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // What its destructors defer is of this invocation: before its end is told.
            in_scope(this.handle, || this.body.set(None));
            if *this.ended {
                this.teller.tell(of_failed(*this.failed));
            }
        }
    }
}

fn in_scope<R>(handle: &Option<Handle>, f: impl FnOnce() -> R) -> R {
    match handle {
        Some(handle) => handle.sync_scope(f),
        None => f(),
    }
}

impl<B: Body> Body for OutcomeBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let handle = &*this.handle;
        let (frame, ended) = or_panicked(this.teller, || {
            in_scope(handle, || {
                let frame = body.as_mut().poll_frame(cx);
                (frame, body.is_end_stream())
            })
        });
        let frame = ready!(frame);
        match &frame {
            Some(Ok(frame)) => *this.ended = ended || frame.is_trailers(),
            Some(Err(_)) => this.teller.tell(Outcome::Failed),
            None => *this.ended = true,
        }
        if frame.is_none() {
            // Here and not at the drop: the runtime may drop it after the platform has its answer.
            in_scope(this.handle, || this.body.set(None));
            this.teller.tell(of_failed(*this.failed));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_none_or(|body| in_scope(&self.handle, || body.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => in_scope(&self.handle, || body.size_hint()),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for OutcomeBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutcomeBody")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
