//! What the user sets: the layer, and the terms that each exchange goes by.

use http::response::Parts;
use tower_layer::Layer;

use super::{progress, service::AfterService};
use crate::{Order, Runner};

/// [`Layer`] that opens a scope for each request, which ends with its response body: see the [module](super).
///
/// Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use after::tower::AfterLayer;
/// use axum::{Router, routing::get};
///
/// async fn handler() -> &'static str {
///     after::defer(async { println!("the response is out") });
///     "hello"
/// }
///
/// let app: Router = Router::new()
///     .route("/", get(handler))
///     .layer(AfterLayer::new()); // last, so that it is outermost
/// # drop(app);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct AfterLayer {
    pub(super) runner: Option<Runner>,
    pub(super) capture_request: bool,
    pub(super) provide_handle: bool,
    pub(super) order: Option<Order>,
    pub(super) terms: Terms,
}

/// When the tasks of a request run.
///
/// With each of them, an error of the service, a panic or a disconnect before the response is made starts the tasks at
/// once.
///
/// **In the extensions of a response** it overrides the layer's setting for that response. So the handler of an endless
/// stream sets it itself. It stays there: each of several layers around the handler obeys it. tonic passes the
/// extensions of its responses on.
///
/// ```
/// use after::tower::{AfterLayer, RunAfter};
/// use axum::{Extension, Router, body::Body, response::IntoResponse, routing::get};
///
/// async fn events() -> impl IntoResponse {
///     after::defer(async { println!("somebody is watching") });
///     let stream = Body::empty(); // imagine one without an end
///     (Extension(RunAfter::Head), stream)
/// }
///
/// async fn report() -> http::Response<Body> {
///     let mut response = http::Response::new(Body::from("a large one"));
///     response.extensions_mut().insert(RunAfter::Written);
///     response
/// }
///
/// let app: Router = Router::new()
///     .route("/events", get(events))
///     .route("/report", get(report))
///     .layer(AfterLayer::new());
/// # drop(app);
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RunAfter {
    /// When the response's head is given to the server: for endless streams (SSE), whose tasks would otherwise run when the
    /// client disconnects. The outcome is that of the head. What the body defers later starts at once, with the same
    /// outcome.
    Head,
    /// When the server has read the last byte of the body, or drops the body (default).
    #[default]
    Body,
    /// When the response is written to the socket, or given up: the server has released the last byte.
    ///
    /// For large bodies and slow readers, where the server reads the last byte of the body long before it is written. The
    /// outcome is decided as with `Body`. Costs an allocation per response and one per data frame, also where nothing is
    /// deferred. See the [module](super#written) for what it can't see.
    Written,
}

/// What an exchange goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) run_after: RunAfter,
    pub(super) failed: fn(&Parts) -> bool,
    /// Whether `grpc-status` is looked for in the trailers.
    pub(super) grpc: bool,
    pub(super) capture_response: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            run_after: RunAfter::default(),
            failed: progress::status_failed,
            grpc: false,
            capture_response: false,
        }
    }
}

impl AfterLayer {
    /// Makes a layer on the global Runner.
    ///
    /// That is looked up at the first request that needs it, so [`install`](crate::Runner::install) may come later than
    /// this.
    ///
    /// ```
    /// let layer = after::tower::AfterLayer::new();
    /// # drop(layer);
    /// ```
    pub fn new() -> Self {
        AfterLayer::default()
    }

    /// Makes a layer on this Runner: in tests, that of a recorder. Costs one reference count per request.
    ///
    /// ```
    /// use after::{testing::Recorder, tower::AfterLayer};
    ///
    /// let recorder = Recorder::new();
    /// let layer = AfterLayer::with_runner(recorder.runner());
    /// # drop(layer);
    /// ```
    pub fn with_runner(runner: Runner) -> Self {
        AfterLayer {
            runner: Some(runner),
            ..AfterLayer::default()
        }
    }

    /// Keeps a [`RequestHead`](super::RequestHead) of each request in its [`context`](crate::context), from before the
    /// handler. Off by default: it clones the request's headers.
    ///
    /// The request's *body* is not in it. A task that needs it gets it from the handler, read: over HTTP/1.1 hyper reads no
    /// more of a request once its response is written, so a task that reads a body then waits until the client closes the
    /// connection, and has an error, whether the client sends the rest or not. A [timeout](crate::TaskBuilder::timeout)
    /// ends that wait. Over HTTP/2 it can be read on.
    ///
    /// ```
    /// use after::{context, tower::{AfterLayer, RequestHead}};
    ///
    /// let layer = AfterLayer::new().capture_request();
    ///
    /// async fn handler() {
    ///     after::defer(async {
    ///         let request: RequestHead = context::get().expect("captured by the layer");
    ///         println!("{} {}", request.method(), request.uri());
    ///     });
    /// }
    /// # drop(layer); drop(handler());
    /// ```
    pub fn capture_request(mut self) -> Self {
        self.capture_request = true;
        self
    }

    /// Keeps a [`ResponseHead`](super::ResponseHead) of each response in the [`context`](crate::context) of its request:
    /// status and headers as they are given out, for tasks. Off by default: it clones the response's headers, also where
    /// nothing is deferred: eight small allocations a response.
    ///
    /// It is set when the head is given out, before it is known how the request will have ended, with each [`RunAfter`].
    /// Where there is no response (an error, a panic, a client that goes first) there is none.
    ///
    /// ```
    /// use after::{context, tower::{AfterLayer, ResponseHead}};
    ///
    /// let layer = AfterLayer::new().capture_response();
    ///
    /// async fn handler() -> http::StatusCode {
    ///     after::defer(async {
    ///         let status = context::get().map(|response: ResponseHead| response.status());
    ///         println!("{status:?}: {:?}", after::outcome());
    ///     });
    ///     http::StatusCode::ACCEPTED
    /// }
    /// # drop(layer); drop(handler());
    /// ```
    pub fn capture_response(mut self) -> Self {
        self.terms.capture_response = true;
        self
    }

    /// Puts a [`Handle`](crate::Handle) into the request's extensions, for handlers that run on another task.
    ///
    /// No scope is current on such a task: behind a `tower::buffer::Buffer`, a service that spawns, a framework that runs its
    /// handlers on a task of its own. Off by default.
    ///
    /// The code there takes it out and enters the scope with [`Handle::scope`](crate::Handle::scope) for a future, or
    /// [`Handle::sync_scope`](crate::Handle::sync_scope) for a call. It does not keep the request open: what it defers
    /// after the request has ended starts at once. Of two layers that provide one, the inner one's is found. Costs what [`handle()`](crate::handle()) costs, for each request: its tasks are collected under a lock.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use after::tower::AfterLayer;
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, buffer::BufferLayer};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let service = ServiceBuilder::new()
    ///     .layer(AfterLayer::new().provide_handle())
    ///     // What is inside is called on a task of the buffer's.
    ///     .layer(BufferLayer::new(1_024))
    ///     .service_fn(|mut request: Request<()>| {
    ///         let handle: Option<after::Handle> = request.extensions_mut().remove();
    ///         let handle = handle.expect("provided by the layer");
    ///         handle.sync_scope(|| after::defer(async { println!("the response is out") }));
    ///         let response = Response::new(String::from("hello"));
    ///         handle.scope(async { Ok::<_, Infallible>(response) })
    ///     });
    /// # let service: tower::util::BoxService<Request<()>, _, _> = tower::util::BoxService::new(service);
    /// # let response = tower::ServiceExt::oneshot(service, Request::new(())).await.unwrap();
    /// # drop(response);
    /// # assert!(after::shutdown(std::time::Duration::from_secs(10)).await.is_clean());
    /// # }
    /// ```
    pub fn provide_handle(mut self) -> Self {
        self.provide_handle = true;
        self
    }

    /// When the tasks run. Default: [`RunAfter::Body`]. A [`RunAfter`] in the extensions of a response overrides this.
    ///
    /// ```
    /// use after::tower::{AfterLayer, RunAfter};
    ///
    /// let layer = AfterLayer::new().run_after(RunAfter::Written);
    /// # drop(layer);
    /// ```
    pub fn run_after(mut self, moment: RunAfter) -> Self {
        self.terms.run_after = moment;
        self
    }

    /// Order of the tasks of a request. Default: that of the [Runner](crate::RunnerBuilder::order).
    ///
    /// ```
    /// let layer = after::tower::AfterLayer::new().order(after::Order::Sequential);
    /// # drop(layer);
    /// ```
    pub fn order(mut self, order: Order) -> Self {
        self.order = Some(order);
        self
    }

    /// Decides from the head which responses count as [`Outcome::Failed`](crate::Outcome::Failed). Default: a status of 400
    /// or above. Replaces [`grpc`](AfterLayer::grpc).
    ///
    /// `failed` runs with the scope current, before the head is given out. If it panics, the outcome is
    /// [`Outcome::Panicked`](crate::Outcome::Panicked) and the panic propagates.
    ///
    /// ```
    /// use after::tower::AfterLayer;
    ///
    /// // "Not found" is no failure here, so `on_success` tasks run.
    /// let layer = AfterLayer::new().failed_if(|head| head.status.is_server_error());
    /// # drop(layer);
    /// ```
    pub fn failed_if(mut self, failed: fn(&Parts) -> bool) -> Self {
        self.terms.failed = failed;
        self.terms.grpc = false;
        self
    }

    /// Reads `grpc-status` from headers or trailers, because gRPC always returns HTTP 200: success is 0. Replaces
    /// [`failed_if`](AfterLayer::failed_if).
    ///
    /// A body that ends without that header has failed; one that is dropped before its trailers was cancelled, also when
    /// all bytes of its message were delivered. With [`RunAfter::Head`] only the head is looked at, and one without a
    /// `grpc-status` counts as no failure.
    ///
    /// ```
    /// let layer = after::tower::AfterLayer::new().grpc();
    /// # drop(layer);
    /// ```
    pub fn grpc(mut self) -> Self {
        self.terms.failed = progress::grpc_failed;
        self.terms.grpc = true;
        self
    }
}

impl<S> Layer<S> for AfterLayer {
    type Service = AfterService<S>;

    fn layer(&self, inner: S) -> AfterService<S> {
        AfterService::new(inner, self.clone())
    }
}
