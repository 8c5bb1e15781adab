//! Production: timeouts, limits, observers, reports, shutdown, retries.
//!
//! None of this is on by default. Set it on a [`Runner`], once, before the first request:
//!
//! ```
//! use std::{process, time::Duration};
//!
//! use after::{Observer, Overflow, Runner, TaskFinished};
//!
//! /// For the last requests, and again for the tasks that they leave behind.
//! const LIMIT: Duration = Duration::from_secs(10);
//!
//! /// Logs tasks that blocked a worker thread for more than 10 ms.
//! struct LongPolls;
//!
//! impl Observer for LongPolls {
//!     fn finished(&self, event: &TaskFinished<'_>) {
//!         if event.longest_poll > Duration::from_millis(10) {
//!             println!("`{}`: {:?}", event.task.name, event.longest_poll);
//!         }
//!     }
//! }
//!
//! # #[cfg(not(all(feature = "tracing", feature = "metrics")))] fn main() {}
//! # #[cfg(all(feature = "tracing", feature = "metrics"))]
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     Runner::builder()
//!         .task_timeout(Duration::from_secs(30))
//!         .scope_timeout(Duration::from_secs(120))
//!         .max_running(64)
//!         .max_waiting(1_000)
//!         .overflow(Overflow::Backpressure)
//!         .observer(LongPolls)
//!         .observer(after::metrics::Metrics::default())
//!         .on_defer(after::tracing::following_current_span)
//!         .build()
//!         .install()?;
//!
//!     // Here the server, until a signal. At the signal:
//!     # after::scope(async { after::defer(async {}) }).await;
//!     after::stop();
//!     // Then wait for the server, for `LIMIT` at most.
//!
//!     let report = after::shutdown(LIMIT).await;
//!     println!("{report}");
//!     // `exit`, because a runtime that is dropped waits for stuck closures.
//!     process::exit(if report.is_clean() { 0 } else { 2 })
//! }
//! ```
//!
//! # Timeouts
//!
//! A task's timeout, its [own](TaskBuilder::timeout) or the [Runner's](RunnerBuilder::task_timeout), starts at its first
//! poll: time in the queue does not count. [`scope_timeout`](RunnerBuilder::scope_timeout) is for all tasks of a request
//! together, and starts when the request ends, time in the queue included.
//!
//! What is past a timeout is dropped, with its scope current, reported and counted as timed out; the other tasks go on. A
//! timeout is checked between polls: a task that computes without an await is not interrupted. A closure's timeout starts
//! when it is given to the blocking pool. One that has started can't be stopped: its timeout is reported, it stays pending
//! until it returns, and is then counted as timed out.
//!
//! Timeouts use the spawner's timer, so tokio's paused clock works. Where tokio's runtime has no timer, that is reported
//! once, and a timer without a runtime is used.
//!
//! # Limits
//!
//! [`max_running`](RunnerBuilder::max_running) is the concurrency limit: no more tasks run at once, over all requests of
//! the Runner. Permits are given first come, first served, in the order in which requests ended. Closures count until they
//! return. [`max_waiting`](RunnerBuilder::max_waiting) is the length of the queue. When the queue is full:
//!
//! - [`Overflow::Backpressure`] (default): the response waits until the queue has capacity for the request's tasks. What
//!   a response can wait for is never dropped. A request with more tasks than the queue can ever hold waits until the
//!   queue is empty, and then all of its tasks are accepted.
//! - [`Overflow::Shed`]: the newest tasks are dropped, and count as [shed](Stats::shed). This is load shedding.
//!
//! Tasks with no response to hold back (of a request that was dropped; deferred by tasks and destructors; late, through a
//! handle; in a held batch) are queued up to 2 × `max_waiting`, then dropped, so memory stays bounded. A request that has
//! deferred nothing never waits. Under [`AfterLayer`] the wait is before the response's head, and a client that reads
//! slowly holds back nobody else's response.
//!
//! Three consequences:
//!
//! - [`Scope<F>`](Scope) may hold the output, so it is `Send` only if `F` *and* `F::Output` are, with limits or without.
//! - **Deadlock:** a task that awaits what it has deferred keeps its permit meanwhile. With `max_running(1)` or
//!   [`Order::Sequential`] only a timeout ends it.
//! - A task that calls its own server keeps its permit while the response, under backpressure, waits for the queue. If all
//!   tasks with a permit do so, only their timeouts end that. Give such a task a timeout, or a Runner of its own.
//!
//! # Observers and hooks
//!
//! An [`Observer`] has three callbacks: `deferred`, `started` (with the time in the queue) and `finished` (with the
//! result, the run time and the longest poll). Each deferred task has exactly one `finished`. Several may observe; a panic
//! of one affects no other. The feature `metrics` has one that counts through the `metrics` facade.
//!
//! A hook given to [`on_defer`](RunnerBuilder::on_defer) wraps each task where it is deferred, while the caller's span or
//! baggage is current. The feature `tracing` has two. `in_current_span` runs tasks in the request's span, which stays open
//! until they end. `following_current_span` gives each task a span of its own, so that the request's span closes with the
//! request. A hook wraps what the batch polls. For [`defer_blocking`] that is the wait for the closure: the closure, on its
//! thread, is not in the span.
//!
//! # Reports
//!
//! Errors, panics and timeouts of tasks, and dropped tasks, are never silent. With the feature `tracing` *and* a
//! subscriber they are events of level `error` and target `after`. Otherwise each is a line on standard error:
//!
//! ```text
//! after: task `audit` deferred at src/handlers.rs:12:25 failed: connection refused
//! after: task `mail` (key `user:7`) deferred at src/handlers.rs:15:24 panicked: ...
//! after: task `webhook` deferred at src/handlers.rs:18:27 timed out after 10s
//! after: 100 tasks lost: their runtime or spawner dropped them: await `after::shutdown`
//!     before it is dropped; first: `mail` ...
//! after: 7 tasks shed: `max_waiting` tasks were waiting already: raise it or
//!     `max_running`, or defer less; first: `mail` ...
//! ```
//!
//! Each is one line; the last two are wrapped here. A panic is caught after Rust's panic hook has run. Dropped tasks are
//! gathered, and reported in one line for each reason, with the names of the first five: when nothing is pending any
//! more, or a second after the first, or at the end of a [`shutdown()`]; at most once a second. The reasons:
//!
//! | `reason` | |
//! |---|---|
//! | `shed` | the queue was full |
//! | `dropped` | the runtime or spawner dropped the batch |
//! | `held` | a held batch was dropped |
//! | `cut off` | one of these two, after a shutdown had reached its limit |
//! | `spawner panicked` | the spawner panicked when it was given the batch |
//! | `blocking pool` | the pool dropped a closure before it ran |
//!
//! A subscriber that is set for one thread sees only what is reported on that thread; the rest goes to standard error. On
//! `wasm32-unknown-unknown`, which has none, the lines go to `console.error`.
//!
//! An event of a task has the fields `task` (its name), `key`, if it has one, and `location` (of its `defer`). The event of
//! dropped tasks has those of the first one, and `count`, `reason` and `first`, which names up to five.
//!
//! The error, the panic or the timeout of a task that a hook of [`on_defer`](RunnerBuilder::on_defer) has wrapped is
//! reported while the hook's future is polled: in the span that it enters, with the hub or the baggage that it binds.
//! Outside of these are reported: dropped tasks; a panic of the hook, of its future, or of the task's destructor when it is
//! dropped unfinished; and what ends before its first poll.
//!
//! # Statistics
//!
//! [`Runner::stats`] gives a [`Stats`], in each of which `deferred` is the sum of all other counts. A request is pending
//! from its first [`defer()`] on. [`Runner::unfinished`] lists unfinished tasks at any time, for an admin page.
//! [`Runner::drain`] waits for a moment with nothing pending, which may never come under steady traffic.
//!
//! # Graceful shutdown
//!
//! This crate handles no signals. At the signal:
//!
//! 1. Call [`stop()`]. It resolves [`stopping()`], for streams, sockets, retry loops, and the server itself.
//! 2. Let the server end its requests, within a limit: a client that is stuck would hold it forever.
//! 3. Await [`shutdown()`]. It waits for the tasks, for its limit at most, and returns a [`ShutdownReport`] with the name,
//!    the key, the place and the age of each unfinished task. It cancels nothing: what is deferred meanwhile runs, and is
//!    waited for.
//! 4. End the process with [`exit`](std::process::exit) and a code that the report gives. A tokio runtime that is dropped
//!    [waits for closures](Runner::shutdown) that are stuck.
//!
//! The example at [`stop()`] has all of it in ten lines. A limit of zero does not wait and reports how things stand: that
//! is for a second signal, as in `examples/shutdown.rs`. Whoever kills the process later should leave time for both limits.
//!
//! # Retries, and a second lane
//!
//! Retries are for a crate of their own: `examples/retries.rs` has one with `backon` that gives up at [`stopping()`]. The
//! sleep between two attempts is part of the task: its timeout counts it.
//!
//! A task that sleeps until its next attempt keeps its permit, and so delays the tasks behind it, and under backpressure
//! the responses. Give such work a Runner of its own, with limits of its own and [`Overflow::Shed`]. The handler
//! defers it in a scope that ends at once. At the end, [stop](Runner::stop) and [shut down](Runner::shutdown) both:
//!
//! ```
//! use std::time::Duration;
//!
//! use after::{Overflow, Runner};
//!
//! # async fn send_with_retries() {}
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // Next to the global Runner, which has the quick work.
//! let mails = Runner::builder()
//!     .max_running(8)
//!     .max_waiting(500)
//!     .overflow(Overflow::Shed)
//!     .build();
//!
//! after::scope(async {
//!     after::task("audit").defer(async { println!("not delayed by mails") });
//!     let mail = async { after::task("mail").defer(send_with_retries()) };
//!     mails.scope(mail).await;
//! })
//! .await;
//!
//! let limit = Duration::from_secs(10);
//! let (quick, slow) = tokio::join!(after::shutdown(limit), mails.shutdown(limit));
//! println!("{quick}\n{slow}");
//! # assert!(quick.is_clean() && slow.is_clean());
//! # }
//! ```
//!
//! `examples/lanes.rs` is the whole program.
//!
#![cfg_attr(feature = "tower", doc = "[`AfterLayer`]: tower::AfterLayer")]
#![cfg_attr(
    not(feature = "tower"),
    doc = "[`AfterLayer`]: https://docs.rs/after/latest/after/tower/struct.AfterLayer.html"
)]

#[allow(unused_imports)] // for the links
use crate::*;
