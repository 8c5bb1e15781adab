//! Tasks: names, keys, conditions, blocking work, values of the request, clean-up in `Drop`.
//!
//! [`defer()`] takes a future (or what turns into one) that is `Send + 'static` and returns `()` or a `Result`: see
//! [`TaskResult`]. The request itself need not be `Send`. [`defer_blocking`] takes a closure that may block.
//!
//! # Name and key
//!
//! [`task()`] names the next task, for reports and metrics. A [key](TaskBuilder::key) makes it the only one of its kind
//! in the request: of several tasks with one key, the one deferred last runs. [`forget`] takes it back. Both work until
//! the request ends.
//!
//! ```
//! async fn handler() {
//!     for _ in 0..3 {
//!         // Runs once.
//!         after::task("purge")
//!             .key("cache:7")
//!             .defer(async { println!("purging") });
//!     }
//!     after::task("reminder")
//!         .key("mail:7")
//!         .defer(async { println!("your cart is waiting") });
//!     assert!(after::forget("mail:7")); // never runs
//! }
//! # futures::executor::block_on(async {
//! # let runner = after::Runner::builder().build();
//! # runner.scope(handler()).await;
//! # runner.drain().await;
//! # let stats = runner.stats();
//! # assert_eq!((stats.completed, stats.discarded), (1, 3));
//! # });
//! ```
//!
//! # Conditions
//!
//! [`on_success`](TaskBuilder::on_success), [`on_failure`](TaskBuilder::on_failure) and [`when`](TaskBuilder::when) are
//! checked once, when the request ends, against its [`Outcome`]. A task that does not match is dropped, with its scope
//! current, and counted as discarded. Tasks that are deferred later are checked when they are deferred, against the same
//! outcome. An `Err` is a failure only where [`failed_if`](Scope::failed_if) says so; under [`AfterLayer`] a status of
//! 400 or above is one.
//!
//! # Values of the request
//!
//! [`context`] keeps typed values of the request for its tasks. When the request ends they are frozen:
//! [`context::set`] in a task panics, and [`context::try_set`] gives the value back.
//!
//! ```
//! #[derive(Clone)]
//! struct UserId(u64);
//!
//! # futures::executor::block_on(after::scope(async {
//! after::context::set(UserId(7)); // a middleware, say
//! after::task("audit").defer(async {
//!     let user = after::context::get().map(|UserId(id)| id);
//!     println!("user {user:?}, {:?}", after::outcome());
//! });
//! # }));
//! ```
//!
//! # Clean-up in `Drop`
//!
//! The scope is current while the request's future is polled *and while it is dropped*. So its destructors may defer:
//! asynchronous clean-up for types that have only `Drop`. Use [`try_defer`] there. Outside a scope [`defer()`] panics,
//! and a panic while another one unwinds aborts the process.
//!
//! ```
//! struct Lease(&'static str);
//!
//! impl Drop for Lease {
//!     fn drop(&mut self) {
//!         let Lease(name) = *self;
//!         let release = async move { println!("giving back {name}") };
//!         if let Err(error) = after::try_defer(release) {
//!             drop(error.into_inner()); // no request, so nothing would run it
//!         }
//!     }
//! }
//!
//! async fn handler() {
//!     // Given back after the response, also if the client disconnects.
//!     let _lease = Lease("the printer");
//! }
//! # futures::executor::block_on(after::scope(handler()));
//! ```
//!
//! # Nested scopes
//!
//! Scopes nest. The innermost collects, with values of its own that start empty.
//!
//! # Tasks that defer
//!
//! Inside a task the scope is current. What the task defers joins the batch and starts in a later turn, never inside the
//! call, at any depth. The batch ends when all of it has ended. [`outcome()`] and [`context`] answer as they stood at the
//! end of the request.
//!
//! **Deadlock:** a task that awaits work which it has deferred itself never completes under
//! [`max_running(1)`](RunnerBuilder::max_running) or [`Order::Sequential`]. Only a timeout ends it.
//!
//! # Blocking work
//!
//! A closure given to [`defer_blocking`] starts when its turn among the tasks comes. It runs on the spawner's pool of
//! blocking threads, in the same scope and in parallel with the other tasks. Once started it can't be stopped: if its
//! batch is dropped before it has returned, it counts as lost, and runs to its end.
//!
#![cfg_attr(feature = "tower", doc = "[`AfterLayer`]: tower::AfterLayer")]
#![cfg_attr(
    not(feature = "tower"),
    doc = "[`AfterLayer`]: https://docs.rs/after/latest/after/tower/struct.AfterLayer.html"
)]

#[allow(unused_imports)] // for the links
use crate::*;
