//! Work after the response on AWS Lambda: it is done before the process is frozen, and the client does not wait for it.
//!
//! Lambda freezes the process when the function asks for its next invocation, and the runtime does that as soon as the
//! response is sent. What `tokio::spawn` has started stops there, in the middle: it goes on with somebody else's
//! invocation, or never. With [`AfterLambdaLayer`] each invocation is an [`after::scope`](after::scope()):
//!
//! ```text
//! GET /next       the handler         POST /response          GET /next
//!     |               |                     |                     |
//!     | invocation ===*=====================| deferred work ..... | frozen
//!                  defer(a)          the client has its answer
//! ```
//!
//! ```no_run
//! use after_lambda::{AfterLambdaLayer, OutcomeLayer};
//! use axum::{Router, routing::get};
//! use lambda_http::Adapter;
//! use lambda_runtime::{Error, Runtime};
//!
//! async fn order() -> &'static str {
//!     after::task("receipt").on_success().defer(async { println!("the client has its answer") });
//!     "ordered"
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let app = Router::new().route("/order", get(order)).layer(OutcomeLayer::new());
//!     Runtime::new(Adapter::from(app)).layer(AfterLambdaLayer::new()).run().await
//! }
//! ```
//!
//! # What is promised
//!
//! - What an invocation has deferred starts when the platform has taken its whole response, and has ended before the next
//!   invocation is asked for.
//! - Shortly before the invocation's deadline (100 ms: [`margin`](AfterLambdaLayer::margin)) what is unfinished is cut off.
//!   It is dropped, counted as lost and named on standard error: the names with the number of the invocation at once, the
//!   place of each `defer` in the line of `after`, which comes once a second at the most.
//! - Under concurrent invocations (`run_concurrent`) each waits for its own tasks only.
//!
//! What is not:
//!
//! - **The time is billed.** An invocation lasts until its tasks have ended, and the next one on the same instance waits for
//!   that, or is given to another instance.
//! - A task is lost with the process: in a crash, out of memory, at the function's time limit when it holds the thread
//!   so that the deadline is not seen. What must not be lost belongs into a queue: SQS, say.
//! - A closure of [`defer_blocking`](after::defer_blocking) that has begun can't be cut off: the deadline reports it, and it
//!   is frozen where it is.
//! - What was spawned beside `after` is frozen as ever.
//!
//! # The outcome
//!
//! The layer around the runtime sees neither the status of a response nor a panic: the runtime makes an answer of both
//! before. So an [`OutcomeLayer`] around the handler tells it. Without one each invocation counts as
//! [`Finished`](after::Outcome::Finished), unless its response could not be sent.
//!
//! | With it | [`outcome`](after::outcome()) |
//! |---|---|
//! | a status below 400 and a body that is complete, or an event's `Ok` | `Finished` |
//! | a status of 400 or above, a body that returns an error, an `Err` | `Failed` |
//! | a panic in the handler or the body | `Panicked` |
//! | a body that is dropped before it is complete: the client or the platform has broken off the stream | `Cancelled` |
//!
//! It is also what has the body of a **streamed** response in the scope: the runtime reads that on a task of its own. Without
//! it `after::defer` panics there.
//!
//! | Handler | |
//! |---|---|
//! | HTTP, in one piece | `Runtime::new(lambda_http::Adapter::from(app))` |
//! | HTTP, streamed | `Runtime::new(lambda_http::StreamAdapter::from(app))` |
//! | HTTP, streamed, concurrent invocations | `lambda_http::streaming_runtime_concurrent(app)`, `run_concurrent` |
//! | events: SQS, S3, ... | `Runtime::new(OutcomeLayer::new().layer(service_fn(handler)))` |
//!
//! **A router that has `after`'s own `AfterLayer`**, because it is served elsewhere too, has a scope of its own inside the
//! invocation's. Its tasks start when the body was taken, which is before the response is sent, and run beside that. With
//! one invocation at a time they are waited for as well, as is all else that is pending on the same Runner; at the deadline
//! they are named, and frozen. One that never ends holds each later invocation up to its deadline: give it a
//! [`timeout`](after::TaskBuilder::timeout). Under concurrent invocations they are **not** waited for: take an [`OutcomeLayer`] there.
//!
//! # The end
//!
//! With the feature `graceful-shutdown` of `lambda_runtime`, `spawn_graceful_shutdown_handler` runs a closure at SIGTERM:
//! [`after::shutdown`](after::shutdown()) belongs in it, with a limit below the 500 ms that the platform gives. The example
//! `order` does it. With one invocation at a time nothing is pending then as a rule, because all was done before the freeze.
//!
//! # Limits
//!
//! On a Runner with [`max_running`](after::RunnerBuilder::max_running) the tasks wait for permits as elsewhere. With
//! [`Overflow::Backpressure`](after::Overflow::Backpressure) the response does not wait for room.

mod ending;
mod future;
mod layer;
mod outcome;

pub use self::{
    future::AfterLambdaFuture,
    layer::{AfterLambdaLayer, AfterLambdaService},
    outcome::{OutcomeBody, OutcomeEventFuture, OutcomeFuture, OutcomeLayer, OutcomeService},
};

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
