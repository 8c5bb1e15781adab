//! Run background tasks after the HTTP response: Next.js's `after()` for axum, hyper, tonic and any async Rust.
//!
#![cfg_attr(feature = "tower", doc = include_str!("guide/first_axum.md"))]
#![cfg_attr(not(feature = "tower"), doc = include_str!("guide/first_plain.md"))]
//!
//! [`AfterLayer`] opens a scope for each request. [`defer()`] adds a task to the scope that is current. The tasks start
//! when the request ends: on success, error, panic or disconnect. The client never waits for them. [`shutdown()`] waits
//! for those that are still running, and names the ones that it could not wait for.
//!
//! A service in production also listens for SIGTERM, and gives the server a time limit: [`stop()`] shows how.
//!
//! Without the layer, wrap the future of a request in [`scope()`]:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let response = after::scope(async {
//!     after::defer(async { println!("after the response") });
//!     "the response"
//! })
//! .await;
//! assert_eq!(response, "the response");
//! # after::shutdown(std::time::Duration::from_secs(5)).await;
//! # }
//! ```
//!
//! # The promise
//!
//! > When the request ends, because it has resolved, was dropped or has panicked, all tasks that its scope has collected
//! > are given to a [`Spawner`], once and together. None is polled before. A [`Runner`] tracks each task until it ends,
//! > and every deferred task is counted in [`Stats`] exactly once.
//!
//! ```text
//!           scope(request) is polled   the request ends (resolved, dropped,
//!              |                       |                 panicked)
//! request      |====*=========*========|
//!                   |         |        |
//!                defer(a)  defer(b)    | the outcome is decided, and [a, b]
//!               (neither is polled)    | go to the spawner as one batch
//!                                      |
//! client       . . . . . waits . . . . |== has the response ==>
//!                                      |
//! batch                                |  .   a b   a   b c   b   c
//!                                         |   |         |         |
//!     first poll: the response goes first-+   |         |         |
//!     the tasks start, in order of deferral --+         |         |
//!     b defers c, which joins the batch ----------------+         |
//!     the last task has ended, `drain` may return ----------------+
//! ```
//!
//! Three terms that may surprise:
//!
//! - A **scope does not wait** for its tasks, unlike [`std::thread::scope`]. It resolves when the request does.
//! - **`defer` means the end of the request**, not the end of the block. `after` means after the response, not a delay.
//! - The tasks of one request run **concurrently on one thread**, as in `join!`, unless you ask for [more](Order).
//!
//! # What happens when
//!
//! | When | The tasks deferred so far |
//! |---|---|
//! | the request resolves | run; [`outcome()`] is [`Finished`](Outcome::Finished) |
//! | it resolves to what [`failed_if`](Scope::failed_if) calls a failure; under the layer: status 400 or above | run; [`Failed`](Outcome::Failed) |
//! | its scope is dropped first: client disconnects, timeout, `select!` | run; [`Cancelled`](Outcome::Cancelled) |
//! | it panics | run; [`Panicked`](Outcome::Panicked); the panic propagates |
//! | one of them returns an error or panics | it is reported and counted; the others run |
//! | one of them exceeds its timeout | it is dropped, reported and counted as timed out; the others run |
//! | one of them never ends, and has no timeout | it stays pending until its runtime is dropped |
//! | their condition does not match | are dropped unrun, and counted as discarded |
//! | the queue is full | the response waits (backpressure), or new tasks are dropped (load shedding): [`Overflow`] |
//! | [`shutdown()`] is awaited | are waited for until its limit; the report names the rest |
//! | the runtime is dropped, or a [`Spawner`] drops the batch | are dropped, counted as lost, and reported |
//! | the runtime was dropped before the request ended | go to the next runtime: [`spawner`](spawner#a-runtime-that-has-gone) |
//! | the process crashes, is killed, or calls `exit` | **are lost silently**: they are in memory |
//!
//! Without [`failed_if`](Scope::failed_if), an `Err` still counts as `Finished`. A `main` on tokio that returns without
//! [`shutdown()`] drops its runtime, and the tasks with it; one line on standard error sums them up. The threads of smol,
//! async-std and [`spawner::Threads`] are daemons: there the process ends silently.
//!
//! # Where to look
//!
//! | I want | Write | Guide |
//! |---|---|---|
//! | a task with a name, a key, a condition, a timeout | [`task()`] and [`TaskBuilder`] | [tasks](guide::tasks) |
//! | work that blocks a thread | [`defer_blocking`] | [tasks](guide::tasks) |
//! | to use `?` in a task | end its block with [`after::Ok(())`](Ok()) | [tasks](guide::tasks) |
//! | to clean up asynchronously in `Drop` | [`try_defer`] | [tasks](guide::tasks) |
//! | values of the request in its tasks | [`context`] | [tasks](guide::tasks) |
//! | to know in the task how the request ended | [`outcome()`] | [tasks](guide::tasks) |
//! | to defer on another task or thread | [`handle()`], taken in the request | [elsewhere](guide::elsewhere) |
//! | to integrate a framework | [`open()`] and [`OpenScope`] | [elsewhere](guide::elsewhere) |
//! | another runtime, or to choose one | [`spawner`], [`Runner::install`] | [running](guide::running) |
//! | tasks one by one, or in parallel | [`Order`], [`spawned`](TaskBuilder::spawned) | [running](guide::running) |
//! | timeouts, a concurrency limit, backpressure | [`RunnerBuilder`] | [production](guide::production) |
//! | metrics, spans, logs of slow tasks | [`Observer`], [`on_defer`](RunnerBuilder::on_defer) | [production](guide::production) |
//! | a graceful shutdown | [`stop()`], [`stopping()`], [`shutdown()`] | [production](guide::production) |
//! | to test what a handler defers | [`testing::capture`] | [testing](guide::testing) |
//!
//! # Guaranteed, and not guaranteed
//!
//! | Guaranteed | Not guaranteed |
//! |---|---|
//! | no task is polled before the request ends, nor inside [`defer()`] | that it starts soon: the runtime decides |
//! | the tasks of a scope are given to the spawner once, however the request ends | that the response is written by then, or ever read |
//! | tasks start in the order of deferral | the order in which they end; any order between requests |
//! | a task that fails or panics affects no other task, no request, no runtime | anything of this with `panic = "abort"` |
//! | in every [`Stats`] the counts add up | statistics that outlive the process |
//! | two scopes polled alternately never see each other's tasks or values | that thread-locals and spans follow a task |
//! | a task that is always ready starves no other | progress while another task computes or blocks |
//! | the memory of a task is freed when it ends | a limit of number or time, unless you set one |
//! | permits are given in the order in which requests ended | that tasks end, or responses go out, in that order |
//! | a task past its timeout is dropped | that a poll is interrupted; that a closure is stopped |
//!
//! `tokio::task_local!` values and the current `tracing` span belong to the polls of the request: they are not there when
//! a task runs. Use [`context`], move values into the task, or wrap it with [`on_defer`](RunnerBuilder::on_defer).
//! [Fine print](guide::fine_print) has the rare cases, and [Not here](guide::not_here) what this crate leaves to others.
//!
//! # Cancellation safety
//!
//! Dropping a [`Scope`], or the future of a request under the layer, ends the request as
//! [`Cancelled`](Outcome::Cancelled); its tasks run. [`Runner::drain`], [`Runner::shutdown`] and [`stopping()`] only wait:
//! dropping their futures loses nothing, and they may be awaited again. Dropping a [`Batch`] loses its tasks.
//!
//! # Cargo features
//!
//! All are additive.
//!
//! | Feature | Default | |
//! |---|---|---|
//! | `tokio` | yes | `spawner::Tokio`, and its detection |
//! | `threads` | yes | `spawner::Threads`, for programs without a runtime; a pool for blocking work, for spawners without one |
//! | `tracing` | yes | reports become `tracing` events if a subscriber is set; hooks that carry the caller's span |
//! | `tower` | yes | [`AfterLayer`], for axum, hyper, tonic: a request ends with its response body |
//! | `metrics` | | `metrics::Metrics`, an observer that counts through the `metrics` facade |
//! | `smol` | | `spawner::Smol` |
//! | `async-std` | | `spawner::AsyncStd` |
//!
//! With tokio there is nothing to configure. A service on tokio can do without `threads`:
//! `default-features = false, features = ["tokio", "tracing", "tower"]`. Then a request that ends where no runtime is
//! current, and which has never seen one, loses its tasks, and a report says so.
//!
//! The crate needs Rust 1.87, and has no `unsafe` code of its own.
//!
//! # When to prefer something simpler
//!
//! - The handler knows all its work at its end, and always gets there: one `tokio::spawn` of a `join!` is cheaper.
//! - The work must start now, needs several cores, or gives a result that you need: `tokio::spawn`, `JoinSet`.
//! - It belongs to no request: `tokio_util`'s `TaskTracker` waits for it at the end.
//! - It must survive a crash: a durable job queue. A deferred task can enqueue the job.
//!
#![cfg_attr(feature = "tower", doc = "[`AfterLayer`]: crate::tower::AfterLayer")]
#![cfg_attr(
    not(feature = "tower"),
    doc = "[`AfterLayer`]: https://docs.rs/after/latest/after/tower/struct.AfterLayer.html"
)]
#![cfg_attr(
    not(feature = "threads"),
    doc = "[`spawner::Threads`]: https://docs.rs/after/latest/after/spawner/struct.Threads.html"
)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// A folder may have the name of what it is about, and a file of that name in it.
#![allow(clippy::module_inception)]

mod account;
mod batch;
pub mod guide;
mod limit;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod platform;
mod pool;
mod report;
mod runner;
mod scope;
pub mod spawner;
mod sync;
mod task;
pub mod testing;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub mod tracing;

#[doc(inline)]
pub use crate::spawner::Spawner;
pub use crate::{
    account::{ShutdownReport, Stats, Unfinished},
    batch::Batch,
    limit::Overflow,
    report::{Observer, Outcome, TaskDeferred, TaskEnd, TaskFinished, TaskInfo, TaskStarted},
    runner::{
        InstallError, Runner, RunnerBuilder, Stopping, in_scope, outcome, shutdown, stop, stopping,
    },
    scope::{
        Attached, Entered, Handle, Held, OpenScope, Scope, StartGuard, TaskBuilder, TryDeferError,
        context, defer, defer_blocking, forget, handle, open, scope, task, try_defer, try_handle,
    },
    task::{BoxError, IntoTask, Ok, Order, TaskFuture, TaskOutput, TaskResult},
};

/// The README's programs, as doctests.
#[cfg(all(doctest, feature = "tower", feature = "tracing"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The programs of the page on production, as doctests.
#[cfg(all(doctest, feature = "tower", feature = "tracing"))]
#[doc = include_str!("../docs/production.md")]
struct Production;

/// The programs of the page on testing, as doctests.
#[cfg(all(doctest, feature = "tower"))]
#[doc = include_str!("../docs/testing.md")]
struct Testing;

/// The programs of the guide from `tokio::spawn`, as doctests.
#[cfg(all(doctest, feature = "tower"))]
#[doc = include_str!("../docs/from-spawn.md")]
struct FromSpawn;

/// The programs of the short answers, as doctests.
#[cfg(all(doctest, feature = "tower"))]
#[doc = include_str!("../docs/how-to.md")]
struct HowTo;
