//! Work that runs once the response is out, for [salvo]: each request is a scope of [`after`], which ends with its body.
//!
//! ```
//! use after_salvo::After;
//! use salvo::prelude::*;
//!
//! #[handler]
//! async fn hello() -> &'static str {
//!     after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
//!     "hello"
//! }
//!
//! let service = Service::new(Router::new().get(hello)).hoop(After::new());
//! # drop(service);
//! ```
//!
//! It is [`AfterLayer`] as a hoop, so all of its settings are there: `After::from` takes a layer. What [`after::tower`] says
//! of outcomes, of endless streams and of `RunAfter` holds here, too. In salvo the hoop that is added first is outermost: add
//! this one first, and to the `Service` rather than to a router, so that it sees what no route answers, too.
//!
//! An answer without a body (an error that salvo's catcher makes a page of, and what it answers to HEAD) ends its request when
//! the hoop has seen it, before the head is sent. A catcher runs outside the scope.
//!
//! **Never use salvo's `.compat()`** with the layer: it runs the handlers outside the layer's future, where there is no
//! scope, and `defer` panics there.
//!
//! [salvo]: https://docs.rs/salvo

use std::{convert::Infallible, mem};

use after::{
    Runner,
    tower::{AfterBody, AfterLayer},
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use salvo_core::{
    Depot, FlowCtrl, Handler, Request, Response, async_trait,
    http::{ResBody, StatusCode},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// The hoop: makes each request a scope, which ends when its body does.
///
/// Cheap to clone. See the [crate](self).
///
/// ```
/// use after::tower::AfterLayer;
/// use after_salvo::After;
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
    /// let after = after_salvo::After::new();
    /// # drop(after);
    /// ```
    pub fn new() -> Self {
        After::default()
    }

    /// On this Runner.
    ///
    /// ```
    /// let runner = after::Runner::builder().max_running(64).build();
    /// let after = after_salvo::After::with_runner(runner);
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

#[async_trait]
impl Handler for After {
    async fn handle(
        &self,
        request: &mut Request,
        depot: &mut Depot,
        response: &mut Response,
        control: &mut FlowCtrl,
    ) {
        // The layer sees the head, and puts into its extensions what the handlers are to have.
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        // A service may be called again, and these are borrowed once: this one is not.
        let mut rest = Some((&mut *request, depot, &mut *response, control));
        let handlers = move |head: http::Request<()>| {
            let rest = rest.take();
            async move {
                let Some((request, depot, response, control)) = rest else {
                    return Ok(http::Response::new(ResBody::None));
                };
                request
                    .extensions_mut()
                    .extend(head.into_parts().0.extensions);
                control.call_next(request, depot, response).await;
                Ok::<_, Infallible>(take_answer(response))
            }
        };
        let Ok(answer) = self.0.layer(service_fn(handlers)).oneshot(head).await;
        put_answer(response, answer);
    }
}

/// The response, as far as the layer looks at it.
fn take_answer(response: &mut Response) -> http::Response<ResBody> {
    // What has no body is left as it is, for salvo's catcher to see.
    let body = match response.body {
        ResBody::None | ResBody::Error(_) => ResBody::None,
        _ => response.take_body(),
    };
    let status = match (response.status_code, &response.body) {
        (Some(status), _) => status,
        (None, ResBody::Error(error)) => error.code,
        (None, _) => StatusCode::OK,
    };
    let mut answer = http::Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = mem::take(response.headers_mut());
    *answer.extensions_mut() = mem::take(&mut response.extensions);
    answer
}

fn put_answer(response: &mut Response, answer: http::Response<AfterBody<ResBody>>) {
    let (head, body) = answer.into_parts();
    *response.headers_mut() = head.headers;
    response.extensions = head.extensions;
    if !matches!(response.body, ResBody::Error(_)) && !body.is_end_stream() {
        response.body(ResBody::Boxed(Box::pin(body.map_err(Into::into))));
    }
}

/// Its programs are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
