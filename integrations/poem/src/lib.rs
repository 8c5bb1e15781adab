//! Work that runs once the response is out, for [poem]: each request is a scope of [`after`], which ends with its body.
//!
//! ```
//! use after_poem::After;
//! use poem::{EndpointExt as _, Route, get, handler};
//!
//! #[handler]
//! async fn hello() -> &'static str {
//!     after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
//!     "hello"
//! }
//!
//! let app = Route::new().at("/", get(hello)).with(After::new());
//! # drop(app);
//! ```
//!
//! It is [`AfterLayer`] as a middleware, so all of its settings are there: `After::from` takes a layer. What
//! [`after::tower`] says of outcomes, of endless streams and of `RunAfter` holds here, too. In poem the middleware that is
//! added last is outermost: add this one last.
//!
//! An error of the endpoint passes through, to poem, which makes an answer of it: the request has ended with that error,
//! as `Failed`, before the answer is sent.
//!
//! poem's own `compat` is no way to use the layer: it makes an endpoint of a tower service, and takes no layer around one.
//!
//! [poem]: https://docs.rs/poem

use after::{Runner, tower::AfterLayer};
use http_body_util::combinators::BoxBody;
use poem::{
    Endpoint, Error, IntoResponse as _, Middleware, Request, Response, ResponseParts, Result,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// The middleware: makes each request a scope, which ends when its body does.
///
/// Cheap to clone. See the [crate](self).
///
/// ```
/// use after::tower::AfterLayer;
/// use after_poem::After;
///
/// // With what the layer can do:
/// let after = After::from(AfterLayer::new().capture_request());
/// # drop(after);
/// ```
#[derive(Clone, Debug, Default)]
pub struct After(AfterLayer);

impl After {
    /// On the global [`Runner`], looked up at the first request that needs it.
    ///
    /// ```
    /// let after = after_poem::After::new();
    /// # drop(after);
    /// ```
    pub fn new() -> Self {
        After::default()
    }

    /// On this Runner.
    ///
    /// ```
    /// let runner = after::Runner::builder().max_running(64).build();
    /// let after = after_poem::After::with_runner(runner);
    /// # drop(after);
    /// ```
    pub fn with_runner(runner: Runner) -> Self {
        After(AfterLayer::with_runner(runner))
    }
}

impl From<AfterLayer> for After {
    fn from(layer: AfterLayer) -> Self {
        After(layer)
    }
}

impl<E: Endpoint> Middleware<E> for After {
    type Output = AfterEndpoint<E>;

    fn transform(&self, endpoint: E) -> AfterEndpoint<E> {
        AfterEndpoint {
            layer: self.0.clone(),
            endpoint,
        }
    }
}

/// The endpoint that [`After`] makes of another.
#[derive(Debug)]
pub struct AfterEndpoint<E> {
    layer: AfterLayer,
    endpoint: E,
}

impl<E: Endpoint> Endpoint for AfterEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        // The layer sees the head, and puts into its extensions what the handlers are to have.
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.original_uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        let endpoint = async |request: http::Request<Request>| {
            let (head, mut request) = request.into_parts();
            request.extensions_mut().extend(head.extensions);
            let response = self.endpoint.call(request).await?.into_response();
            Ok::<http::Response<_>, Error>(response.into())
        };
        let service = self.layer.layer(service_fn(endpoint));
        let response = service.oneshot(head.map(|()| request)).await?;
        let (head, body) = response.into_parts();
        let parts = ResponseParts {
            status: head.status,
            version: head.version,
            headers: head.headers,
            extensions: head.extensions,
        };
        // Not by `Response::from`, which forgets how long the body is.
        Ok(Response::from_parts(parts, BoxBody::new(body).into()))
    }
}

/// Its programs are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
