//! Elsewhere: other tasks and threads, requests that are not one future, libraries.
//!
//! # Other tasks and threads
//!
//! A spawned task or another thread is outside the scope: [`defer()`] panics there. Take a [`handle()`] in the request,
//! and move it along: [`Handle::defer`] for one task, [`Handle::scope`] for a future, [`Handle::sync_scope`] for a
//! closure.
//!
//! ```
//! # futures::executor::block_on(async {
//! # let runner = after::Runner::builder().build();
//! # runner.scope(async {
//! let handle = after::handle();
//! let thread = std::thread::spawn(move || {
//!     handle.sync_scope(|| after::defer(async { println!("from a thread") }));
//! });
//! # thread.join().unwrap();
//! # }).await;
//! # runner.drain().await;
//! # assert_eq!(runner.stats().completed, 1);
//! # });
//! ```
//!
//! Work that comes through a handle before the request ends runs with the request's other tasks. While they run, it joins
//! them. Later, it starts at once, as a batch of its own. A handle does not keep the request open. Where a layer or a
//! framework runs the handler on another task, `AfterLayer::provide_handle` puts a handle into the request's extensions.
//!
//! When the request and its tasks have ended, the values of its [`context`] are dropped, also if one of them holds a
//! handle. Work that comes later finds none; [`outcome()`] is still the request's. Code that runs in a [`Handle::scope`]
//! at that time (a handler that was detached from its connection, say) keeps the values until it ends. What it sets once
//! the request has ended is its own: see [`Handle::scope`].
//!
//! # A request that is not one future
//!
//! A server that calls back, a future and then a body, a function that may run outside a request: there [`open()`] gives
//! an [`OpenScope`]. Enter it for each piece, and end it once, with the outcome that you say. Dropped without that, it
//! ends as [`Cancelled`](Outcome::Cancelled). What the pieces have deferred is one batch.
//!
//! ```
//! # futures::executor::block_on(async {
//! # let runner = after::Runner::builder().build();
//! let mut request = after::open();
//! # let mut request = runner.open();
//! request.enter(|| after::defer(async { println!("by a callback") }));
//! request
//!     .scope(async { after::defer(async { println!("by a future") }) })
//!     .await;
//! request.end(after::Outcome::Finished);
//! # runner.drain().await;
//! # assert_eq!(runner.stats().completed, 2);
//! # });
//! ```
//!
//! [`AfterLayer`] is made of these parts, and so are the integrations for actix-web, Rocket, poem and salvo.
//! `examples/library.rs` in the repository is a library whose functions defer wherever they are called: in a handler, in
//! a command-line tool, on a thread, in a test.
//!
//! # The caller runs the tasks
//!
//! [`Scope::held`] gives the batch of tasks to you instead of to the spawner. Await it, or [release](Batch::release) it
//! when the tasks may start: after you have written the response to a socket, say.
//!
#![cfg_attr(feature = "tower", doc = "[`AfterLayer`]: tower::AfterLayer")]
#![cfg_attr(
    not(feature = "tower"),
    doc = "[`AfterLayer`]: https://docs.rs/after/latest/after/tower/struct.AfterLayer.html"
)]

#[allow(unused_imports)] // for the links
use crate::*;
