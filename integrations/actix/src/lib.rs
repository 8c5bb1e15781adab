//! Work that runs once the response is out, for [actix-web]: each request is a scope of [`after`], which ends with its body.
//!
//! ```
//! use actix_web::{App, Responder, web};
//! use after_actix::After;
//!
//! async fn hello() -> impl Responder {
//!     after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
//!     "hello"
//! }
//!
//! // For each worker, in `HttpServer::new`:
//! let app = App::new().wrap(After::new()).route("/", web::get().to(hello));
//! # drop(app);
//! ```
//!
//! Each worker of actix has a runtime of its own, which goes when the server stops, and takes what runs on it along. So
//! install a [`Runner`] on the main runtime before the first request:
//! `Runner::new(Tokio::current()).install()`. The README has the whole program.
//!
//! # When a request ends
//!
//! | When | [`after::outcome`] |
//! |---|---|
//! | the body is complete, the status is below 400 | `Finished` |
//! | the body is complete, the status is 400 or above (or as [`After::failed_if`] says) | `Failed` |
//! | a middleware inside this one returns an error; the body does | `Failed` |
//! | the future of the handler, or its body before it is complete, is dropped: the client has gone | `Cancelled` |
//! | the handler or the body panics | `Panicked`; the panic goes on |
//!
//! The scope is current in the handler and in the body, polled and dropped, so a stream may defer, too. Wrap the `App` last:
//! in actix-web the middleware that is added last is outermost. An answer to HEAD is complete with its head.
//!
//! Tasks must be `Send`; what is not stays on its worker with the recipe of the README.
//!
//! [actix-web]: https://docs.rs/actix-web

mod body;
mod service;

use std::{
    future::{Ready, ready},
    rc::Rc,
};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http::StatusCode,
};
use after::{OpenScope, Runner};

pub use self::{body::AfterBody, service::AfterMiddleware};

/// The middleware: makes each request a scope, which ends when its body does.
///
/// Cheap to clone. See the [crate](self) for when that is.
///
/// ```
/// use after_actix::After;
///
/// let app = actix_web::App::new().wrap(After::new());
/// # drop(app);
/// ```
#[derive(Clone, Debug, Default)]
pub struct After {
    runner: Option<Runner>,
    failed: Option<fn(StatusCode) -> bool>,
}

impl After {
    /// On the global [`Runner`], looked up at the first request that needs it.
    ///
    /// ```
    /// let after = after_actix::After::new();
    /// # drop(after);
    /// ```
    pub fn new() -> Self {
        After::default()
    }

    /// On this Runner.
    ///
    /// ```
    /// let runner = after::Runner::builder().max_running(64).build();
    /// let after = after_actix::After::with_runner(runner);
    /// # drop(after);
    /// ```
    pub fn with_runner(runner: Runner) -> Self {
        After {
            runner: Some(runner),
            failed: None,
        }
    }

    /// What counts as [`Outcome::Failed`](after::Outcome::Failed). Default: a status of 400 or above.
    ///
    /// `failed` runs with the scope current. If it panics, the request ends as `Cancelled`, and the panic goes on.
    ///
    /// ```
    /// let after = after_actix::After::new().failed_if(|status| status.is_server_error());
    /// # drop(after);
    /// ```
    pub fn failed_if(self, failed: fn(StatusCode) -> bool) -> Self {
        After {
            failed: Some(failed),
            ..self
        }
    }

    fn open(&self) -> OpenScope {
        match &self.runner {
            Some(runner) => runner.open(),
            None => after::open(),
        }
    }
}

impl<S, B> Transform<S, ServiceRequest> for After
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<AfterBody<B>>;
    type Error = Error;
    type InitError = ();
    type Transform = AfterMiddleware<S>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(AfterMiddleware {
            after: self.clone(),
            service: Rc::new(service),
        }))
    }
}

/// Its programs are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
