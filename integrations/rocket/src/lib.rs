//! Work that runs once the response is out, for [Rocket]: each request is a scope of [`after`], which ends with its body.
//!
//! ```no_run
//! use after_rocket::After;
//! use rocket::{get, routes};
//!
//! #[get("/")]
//! async fn hello() -> &'static str {
//!     after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
//!     "hello"
//! }
//!
//! # #[rocket::main] async fn main() -> Result<(), Box<rocket::Error>> {
//! let after = After::new();
//! let rocket = rocket::build().mount("/", after.routes(routes![hello])).attach(after);
//! rocket.launch().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Both are needed: the routes are what runs in the scope, and the fairing is what ends it with the body. Without the
//! fairing a request ends when Rocket lets go of it, after its last byte, and its outcome is what the route has returned.
//! Attach it last, so that it sees the body that is sent. When Rocket shuts down the fairing calls [`after::stop`].
//!
//! # When a request ends
//!
//! | When | [`after::outcome`] |
//! |---|---|
//! | the body was read to its end, the status is below 400 | `Finished` |
//! | the body was read to its end, the status is 400 or above | `Failed` |
//! | the body returns an error, or ends before its size | `Failed` |
//! | the body is dropped before its end: the client has gone | `Cancelled` |
//! | the handler or the body panics | `Panicked`; Rocket answers with its 500, or breaks off |
//!
//! Rocket runs each handler to its end, whether the client is there or not; if it has gone meanwhile, the outcome is
//! `Cancelled`, because nobody reads the body. The scope is current in the handlers of these routes, guards included, and
//! in their bodies; not in fairings and catchers. A route that forwards and the next one are one request. What is upgraded
//! (a WebSocket) ends with its connection.
//!
//! [Rocket]: https://docs.rs/rocket

mod body;
mod fairing;
mod route;

use after::{OpenScope, Runner};
use rocket::{Route, http::Status};

use self::route::Scoped;

/// Makes each request of the routes that are given to it a scope: see the [crate](self).
///
/// Cheap to clone.
///
/// ```
/// use after_rocket::After;
///
/// let after = After::new();
/// let rocket = rocket::build().mount("/", after.routes(rocket::routes![])).attach(after);
/// # drop(rocket);
/// ```
#[derive(Clone, Debug, Default)]
pub struct After {
    runner: Option<Runner>,
}

impl After {
    /// On the global [`Runner`], looked up at the first request that needs it.
    ///
    /// ```
    /// let after = after_rocket::After::new();
    /// # drop(after);
    /// ```
    pub fn new() -> Self {
        After::default()
    }

    /// On this Runner.
    ///
    /// ```
    /// let runner = after::Runner::builder().max_running(64).build();
    /// let after = after_rocket::After::with_runner(runner);
    /// # drop(after);
    /// ```
    pub fn with_runner(runner: Runner) -> Self {
        After {
            runner: Some(runner),
        }
    }

    /// These routes, each of whose requests is a scope. Not twice for one route.
    ///
    /// ```
    /// use after_rocket::After;
    ///
    /// #[rocket::get("/")]
    /// fn hello() -> &'static str {
    ///     after::defer(async { println!("the response is out") });
    ///     "hello"
    /// }
    ///
    /// let routes = After::new().routes(rocket::routes![hello]);
    /// # drop(routes);
    /// ```
    pub fn routes(&self, mut routes: Vec<Route>) -> Vec<Route> {
        for route in &mut routes {
            let (after, handler) = (self.clone(), route.handler.clone());
            route.handler = Box::new(Scoped { after, handler });
        }
        routes
    }

    fn open(&self) -> OpenScope {
        match &self.runner {
            Some(runner) => runner.open(),
            None => after::open(),
        }
    }
}

fn is_success(status: Status) -> bool {
    status.code < 400
}

/// Its programs are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
