//! Runs work once a request is over: after the response, whatever became of it, on any async runtime.
//!
//! [`scope()`] wraps the future of a request. Code anywhere below it calls [`defer()`] with a task. The promise:
//!
//! > When the request is over, because it has resolved, was dropped or has panicked, every task that its scope has
//! > collected is handed to a [`Spawner`], once, together with the others. None is polled before. Each stands on the
//! > account of a [`Runner`] until it has ended, one way or another.
//!
//! Where something simpler will do, use that: see [the end](#when-to-prefer-something-simpler).
//!
//! # Four words that mislead
//!
//! - A **scope does not wait** for its tasks, unlike [`std::thread::scope`]. It resolves when the request does.
//! - **`defer` means the end of the request**, not the end of the block.
//! - **`after` means after the response**, not after a delay.
//! - The tasks of one request run **concurrently, not in parallel**, unless you ask for that: on one thread at a time,
//!   as in `join!`.
//!
//! And one limit: work is **held in memory** and is lost in a crash. What must never be lost belongs in a durable
//! queue, which a deferred task may well feed.
//!
//! # The life of a request
//!
//! ```text
//!            scope(request) is polled       the request is over (resolved, dropped, panicked)
//!               |                              |
//! request       |=====*==========*=============|
//!                     |          |             |
//!                     defer(a)   defer(b)      | hand-over: the outcome is decided, the context is frozen,
//!                     (neither is polled)      | and [a, b] go to the spawner as one batch
//!                                              |
//! caller        . . . . . . waits . . . . . . .|== has the output, writes the response ==>
//!                                              |
//! batch                                        |  .   a b   a   b c   b   c
//!                                                 |   |         |         |
//!                                                 |   |         |         the last task has ended: nothing of this
//!                                                 |   |         |         request is pending, `drain` may return
//!                                                 |   |         b defers c, which joins the batch in a later turn
//!                                                 |   the tasks start, in order, one poll at a time
//!                                                 the first poll starts nothing: the response goes first
//! ```
//!
//! # A first example
//!
//! ```
//! use std::{num::ParseIntError, time::Duration};
//!
//! async fn handler(id: &str) -> Result<u32, ParseIntError> {
//!     after::defer(async { println!("audit: {:?}", after::outcome()) });
//!     id.parse()
//! }
//!
//! #[tokio::main]
//! async fn main() {
//!     let response = after::scope(handler("7")).failed_if(Result::is_err).await;
//!     assert_eq!(response, Ok(7)); // nobody has waited for the audit, which says `Some(Finished)`
//!
//!     // At the end of `main`, when the server has stopped: waits for what requests have left behind.
//!     let report = after::shutdown(Duration::from_secs(10)).await;
//!     assert!(report.is_clean(), "{report}");
//! }
//! ```
//!
//! For axum, hyper and tonic there is a layer, `tower::AfterLayer` (feature `tower`): with it a request is over when its
//! response body is. Elsewhere the scope goes around each handler, in a middleware, as in `examples/actix`.
//!
//! # What becomes of the tasks
//!
//! | When | The tasks deferred so far |
//! |---|---|
//! | the request resolves | run; [`outcome()`] is [`Finished`](Outcome::Finished) |
//! | it resolves to what [`failed_if`](Scope::failed_if) calls a failure | run; [`Failed`](Outcome::Failed) |
//! | its scope is dropped first: client gone, timeout, `select!` | run; [`Cancelled`](Outcome::Cancelled) |
//! | it panics | run; [`Panicked`](Outcome::Panicked); the panic goes on as it would have |
//! | one of them returns an error or panics | it is reported and counted; the others run on |
//! | one of them is past its time limit | it is dropped, reported and counted as timed out; the others run on |
//! | one of them never ends, and has no limit | it stays pending, and holds itself and the scope's context alone |
//! | their condition says no | are dropped unrun, and counted as discarded |
//! | there are more of them than a limit lets in | wait, with the answer, or are shed: [`Overflow`] |
//! | [`shutdown()`] is awaited | are waited for up to its limit; the report names those unfinished then |
//! | the runtime is dropped, or a [`Spawner`] drops the batch | those unfinished are lost: counted, and reported |
//! | the runtime was dropped before the hand-over | go to the next that is found: [`spawner`](spawner#a-runtime-that-has-gone) |
//! | the process crashes, is killed, calls `exit` | those unfinished are gone without a word |
//!
//! Without [`failed_if`](Scope::failed_if) a request that resolves to an `Err` has finished like any other.
//!
//! A `main` on tokio that ends without [`shutdown()`] drops its runtime: the tasks are lost, and one line sums them
//! up. The threads of smol, of async-std and of [`spawner::Threads`] are daemons: there the process just ends.
//!
//! # Collecting
//!
//! [`defer()`] takes a future (or what turns into one) that is `Send + 'static` and returns `()` or a `Result`:
//! [`TaskResult`]. The request itself need not be `Send`. [`defer_blocking`] takes a closure that may block.
//! [`task()`] names the next task for reports, and gives it a key.
//!
//! Scopes nest, and the innermost collects, with a context of its own that starts empty. The scope is current while
//! the request's future is polled *and while it is dropped*, so its destructors may defer: clean-up that awaits, for
//! types that have only `Drop`. In a destructor use [`try_defer`]: outside a scope [`defer()`] panics, and a panic
//! while another one unwinds aborts the process.
//!
//! A key names one task: the one deferred last with it runs, and [`forget`] takes it back. Both mean something until
//! the hand-over only. [`context`] keeps typed values of the request for its tasks.
//!
//! ```
//! #[derive(Clone)]
//! struct UserId(u64);
//!
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
//!     after::context::set(UserId(7));
//!     let _lease = Lease("the printer"); // given back after the response, also if the client goes before
//!
//!     for _ in 0..3 {
//!         // Runs once.
//!         after::task("purge").key("cache:7").defer(async { println!("purging") });
//!     }
//!     after::task("reminder").key("mail:7").defer(async { println!("you left something") });
//!     assert!(after::forget("mail:7")); // runs never
//!
//!     after::task("audit").defer(async {
//!         let user = after::context::get().map(|UserId(id)| id);
//!         println!("audit: user {user:?}, {:?}", after::outcome());
//!     });
//! }
//! # futures::executor::block_on(async {
//! # let runner = after::Runner::builder().build();
//! # runner.scope(handler()).await;
//! # runner.drain().await;
//! # let stats = runner.stats();
//! # assert_eq!((stats.completed, stats.discarded), (3, 3));
//! # });
//! ```
//!
//! # The hand-over, and spawners
//!
//! What one scope has collected is one [`Batch`]: one call of [`Spawner::spawn`], one task of the runtime. A scope
//! that has collected nothing hands over nothing; until its first [`defer()`] it allocates nothing and locks nothing.
//!
//! With tokio there is nothing to configure. A [`Runner`] looks for a runtime when a scope defers its first task, and,
//! if none is current then, at the hand-over; the module [`spawner`] says what is found in which order. To choose,
//! build a [`Runner`] on a spawner and [install](Runner::install) it at the beginning of `main`. `Spawner` is a trait
//! of one required method; [`spawner::from_fn`] makes one of a function. The hand-over works from a destructor, on any
//! thread, and never panics: tasks that cannot run are lost, and reported.
//!
//! [`Scope::held`] gives the batch to you instead, to be awaited or [released](Batch::release) when you say so.
//!
//! Around a handler, a plain scope ends when the response is made, which is not when it is written. The first poll of
//! a batch starts nothing and goes back to the end of the runtime's queue, so that the connection's task, which may
//! stand behind it there, writes the response first. On a runtime with several threads another thread may start the
//! tasks meanwhile. A body that is streamed after the scope's end is not waited for;
//! the layer of feature `tower` waits for it.
//!
//! # Running
//!
//! The tasks start in the order of deferral, and go on beside each other; a batch polls one at a time. After 32 polls
//! it lets the runtime have its turn, and each round starts one task further on than the last, so that no task can
//! starve its siblings of a runtime's budget. Its cost is linear in tasks and wake-ups. With [`Order::Sequential`]
//! each task starts when the one before has ended; with [`Order::Parallel`], and for a task that is
//! [`spawned`](TaskBuilder::spawned), a task is a batch of its own: see [below](#in-production).
//!
//! Inside a task the scope is current. What the task defers joins the batch and starts in a later turn, never inside
//! the call, at any depth; the batch ends when all of it has. [`outcome()`] and [`context`] answer as they stood at
//! the end of the request, and [`context::set`] in a task panics ([`context::try_set`] gives the value back).
//!
//! A closure given to [`defer_blocking`] starts when its turn among the tasks comes and runs on the spawner's pool of
//! blocking threads, in the same scope and in parallel with its siblings. Once begun it can't be stopped: if its batch
//! is dropped before it has returned it counts as lost, and runs on.
//!
//! # Handles
//!
//! A spawned task or another thread is outside the scope. [`handle()`] brings it along: [`Handle::scope`] for a
//! future, [`Handle::sync_scope`] for a closure, [`Handle::defer`] for one task. Work that comes through a handle
//! before the hand-over runs with the request's, and while the batch runs it joins that. Later it is handed over at
//! once as a batch of its own. A handle does not keep the request open. Where a layer or a framework runs the handler on
//! another task, `AfterLayer::provide_handle` puts one into the request's extensions.
//!
//! When the request and its tasks are over, the values of its [`context`] are dropped, also if one of them holds a
//! handle: work that comes later finds none. [`outcome()`] is still the request's. Code that runs in a
//! [`Handle::scope`] at that time, a handler that was detached from its connection, say, keeps the values until it ends;
//! and what it sets once the request has ended is its own: see [`Handle::scope`].
//!
//! ```
//! # futures::executor::block_on(async {
//! # let runner = after::Runner::builder().build();
//! # runner.scope(async {
//! let handle = after::handle();
//! let thread = std::thread::spawn(move || {
//!     handle.sync_scope(|| after::defer(async { println!("deferred on another thread") }));
//! });
//! # thread.join().unwrap();
//! # }).await;
//! # runner.drain().await;
//! # assert_eq!(runner.stats().completed, 1);
//! # });
//! ```
//!
//! # A request that is not one future
//!
//! A server that calls back, a future and then a body, a library's function that may run outside a request: there
//! [`open()`] gives an [`OpenScope`]. It is entered for each piece, and ended once, with the outcome that you say; dropped
//! without that it ends as [`Cancelled`](Outcome::Cancelled). What the pieces have deferred is one batch.
//!
//! ```
//! # futures::executor::block_on(async {
//! # let runner = after::Runner::builder().build();
//! let mut request = after::open();
//! # let mut request = runner.open();
//! request.enter(|| after::defer(async { println!("deferred by a callback") }));
//! request.scope(async { after::defer(async { println!("deferred by a future") }) }).await;
//! request.end(after::Outcome::Finished);
//! # runner.drain().await;
//! # assert_eq!(runner.stats().completed, 2);
//! # });
//! ```
//!
//! `examples/library.rs` is a library whose functions defer wherever they are called: in a handler, in a command-line
//! tool, on a thread, in a test.
//!
//! # Account and shutdown
//!
//! [`Runner::stats`] gives a [`Stats`], in each of which `deferred` is the sum of `completed`, `failed`, `panicked`,
//! `timed_out`, `discarded`, `shed`, `lost` and `pending`. A scope is pending from its first [`defer()`] on.
//! [`Runner::drain`] waits for a moment with nothing pending, which under steady traffic may never come.
//!
//! [`shutdown()`] is for the end of `main`, when the server has ended its last requests and while the runtime is still
//! there. It resolves [`stopping()`] in all tasks, for loops that would go on otherwise, waits for at most the limit,
//! and returns a [`ShutdownReport`] with the name, the key, the place and the age of each task that is unfinished;
//! [`Runner::unfinished`] says the same at any time, for an admin page. A shutdown closes nothing and cancels nothing:
//! what is deferred meanwhile is run and waited for. It handles no signals: that is the server's part.
//! [`stop()`] resolves [`stopping()`] earlier, at the signal: for streams and sockets, for which the server waits before it
//! ends.
//!
//! # Reporting
//!
//! Errors, panics and timeouts of tasks, and losses, are never silent. With the feature `tracing` *and* a subscriber
//! set they are events of level `error` and target `after`; else each is a line on standard error:
//!
//! ```text
//! after: task `audit` deferred at src/handlers.rs:12:25 failed: connection refused
//! after: task `mail` (key `user:7`) deferred at src/handlers.rs:15:24 panicked: index out of bounds: the len is 0 ..
//! after: task `webhook` deferred at src/handlers.rs:18:27 timed out after 10s
//! after: 100 tasks lost: their runtime or spawner dropped them: await `after::shutdown` before it goes; first: `mail` ...
//! after: 7 tasks shed: `max_waiting` tasks were waiting already: raise it or `max_running`, or defer less; first: ...
//! ```
//!
//! A panic is caught, after Rust's panic hook has had its say. Losses are gathered, and reported in one line for each
//! reason, with the names of the first five: when nothing is pending any more, or a second after the first, or at the
//! end of a [`shutdown()`]; and no more than once a second, however many a limit sheds. The reasons are: a limit shed
//! them; their runtime or spawner dropped them; the batch that was held was dropped; a shutdown had reached its limit
//! before that; the spawner panicked; the blocking pool dropped a closure. A subscriber that is set for one thread only
//! sees what is reported on that thread; the rest goes to standard error. On `wasm32-unknown-unknown`, which has none, the
//! lines go to `console.error`.
//!
//! An event of a task has the fields `task` (its name), `key`, if it has one, and `location` (of its `defer`). That of a
//! loss has those of the first task that was lost, and `count`, `reason` and `first`, which names up to five. The error, the
//! panic or the timeout of a task that a hook of [`on_defer`](RunnerBuilder::on_defer) has wrapped is reported while the
//! hook's future is polled: in the span that it enters, with the hub or the baggage that it binds. Outside of these are
//! reported: losses; a panic of the hook, of its future, or of the task's destructor when it is dropped unfinished; and
//! what ends before its first poll.
//!
//! # In production
//!
//! None of what follows is on by default. It is set on a [`Runner`], once, before the first request.
//!
//! ```
//! use std::{process, time::Duration};
//!
//! use after::{Observer, Overflow, Runner, TaskFinished};
//!
//! /// For the server's last requests, and again for the tasks that they leave behind.
//! const LIMIT: Duration = Duration::from_secs(10);
//!
//! /// Told of every task: here, of those that kept a thread of the runtime busy.
//! struct LongPolls;
//!
//! impl Observer for LongPolls {
//!     fn finished(&self, event: &TaskFinished<'_>) {
//!         if event.longest_poll > Duration::from_millis(10) {
//!             println!("`{}` was polled for {:?}", event.task.name, event.longest_poll);
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
//!     // .. the server, until a signal, at which `after::stop` is called, and then for `LIMIT` at the most ..
//!     # after::scope(async { after::defer(async {}) }).await;
//!     after::stop();
//!
//!     let report = after::shutdown(LIMIT).await;
//!     println!("{report}");
//!     // Not by returning: the runtime that is dropped then waits for closures that are stuck, without a limit.
//!     process::exit(if report.is_clean() { 0 } else { 2 })
//! }
//! ```
//!
//! **Conditions.** [`on_success`](TaskBuilder::on_success), [`on_failure`](TaskBuilder::on_failure) and
//! [`when`](TaskBuilder::when) decide at the hand-over, on the [`Outcome`], whether a task runs; those of nested and
//! late tasks when they are deferred into the batch, on the same outcome. What does not run is dropped, with its scope
//! current, and counted as discarded. An `Err` is a failure only where [`failed_if`](Scope::failed_if) says so.
//!
//! **Order.** [`Order::Concurrent`] is the default; [`Scope::order`] goes over [`RunnerBuilder::order`].
//! [`Order::Sequential`] starts a task when the one before has ended, whether that went well or not.
//! [`Order::Parallel`] makes each task a batch of one, with a call of the spawner and a task of the runtime of its own,
//! so that a runtime with several threads spreads them; [`spawned`](TaskBuilder::spawned) does so for one task.
//! Awaiting a held batch waits for what was split off. Parallel tasks start in the order of deferral only as far as the
//! runtime keeps it.
//!
//! **Timeouts.** A task's limit, its [own](TaskBuilder::timeout) or the [Runner's](RunnerBuilder::task_timeout), counts
//! from its first poll: waiting for its turn or for a permit does not count. The limit of
//! [`scope_timeout`](RunnerBuilder::scope_timeout) counts from the hand-over, waiting included; work that comes after
//! its batch is over is a hand-over of its own. What is past a limit is dropped, with its scope current, reported and
//! counted as timed out; its siblings go on. A limit is looked at between polls: a task that computes without an await
//! is not interrupted. A closure's limit counts from when it is given to the blocking pool. One that has begun can't be
//! stopped: its limit reports it, it stays pending until it returns, and is then counted as timed out. Limits go by the
//! spawner's timer, so a paused clock of tokio is obeyed; where tokio's runtime has no timer, that is said once and a
//! timer without a runtime is used.
//!
//! **Limits.** With [`max_running`](RunnerBuilder::max_running) no more tasks than that run at once, over all scopes of
//! the Runner, first come, first served: a permit goes to the task that was handed over first, never to a newcomer.
//! Closures count until they return. With [`max_waiting`](RunnerBuilder::max_waiting) no more than that wait for one.
//! Beyond, [`Overflow::Shed`] drops the newest tasks, which count as [shed](Stats::shed). [`Overflow::Backpressure`] makes
//! the answer wait: a scope that has collected something resolves when there is room for its tasks. What an answer can wait
//! for is never dropped, whatever its number: a request with more tasks than ever have room waits until no other task
//! waits, and then all of its tasks are accepted. What can't wait (a scope that was dropped, what tasks and destructors
//! defer, late work, a held batch) is accepted up to twice `max_waiting` and shed beyond, so that memory is bounded. A
//! scope that has collected nothing never waits. Under the layer of feature `tower` room is waited for before the head,
//! and no client's reading holds another's answer: see that module. Three consequences:
//!
//! - A [`Scope`] has a place for its output, so it is `Send` only if the request *and its output* are, as in `join!`,
//!   with limits or without.
//! - A task that awaits what it has deferred itself keeps its permit, and its place, meanwhile. With `max_running(1)`
//!   or [`Order::Sequential`] it hangs until its time limit, and for ever if it has none.
//! - A task that asks its own server keeps its permit while the answer, under backpressure, waits for room. If all who
//!   have a permit do so, nothing makes room but their time limits: give such a task one, or a Runner of its own.
//!
//! **Observation.** An [`Observer`] is told of each task: deferred, started (how long it has waited), finished (how,
//! how long it ran, its longest poll). Each deferred task has exactly one `finished`. Several may watch, and a panic of
//! one hurts nobody. The feature `metrics` has one that counts through the `metrics` facade. A hook given to
//! [`on_defer`](RunnerBuilder::on_defer) wraps each task where it is deferred, while the caller's span or baggage is
//! current. The feature `tracing` has two: `in_current_span` runs the task in the request's span, which then stays open
//! as long as the task; `following_current_span` gives it a span of its own, so that the request's ends with the
//! request. A hook wraps what the batch polls. Of [`defer_blocking`] that is the wait for the closure: the closure
//! itself, on its thread, is not in the span.
//!
//! **Shutdown.** At the signal call [`stop()`], so that what awaits [`stopping()`] ends: streams, sockets, and the server
//! itself, if it was given that. Let the server end its requests, within a limit: a client that is stuck would hold it for
//! ever. Then await [`shutdown()`], and end the process with [`exit`](std::process::exit) and a code that the report
//! gives, because a tokio runtime that is dropped [waits for closures](Runner::shutdown) that are stuck. The example at
//! [`stop()`] has all of it in ten lines. A limit of zero does not wait and reports how things stand: that is for a
//! second signal, as in `examples/shutdown.rs`, which has exit codes too. Whoever kills the process later should leave
//! time for the server's limit and for this one.
//!
//! **Retries** are for a crate of their own: `examples/retries.rs` has one with `backon` that gives up at [`stopping()`].
//! The sleep between two tries is part of the task: its time limit counts it, and it keeps its permit meanwhile.
//!
//! **Lanes.** A task that sleeps until its next try keeps its permit under [`max_running`](RunnerBuilder::max_running),
//! and so holds the work behind it, and under [`Overflow::Backpressure`] the answers. Give such work a Runner of its own,
//! with limits of its own and [`Overflow::Shed`]: a second lane. The handler hands it over with a scope that ends at once,
//! and at the end both are [stopped](Runner::stop) and [shut down](Runner::shutdown) side by side.
//! `examples/lanes.rs` is the program.
//!
//! ```
//! use std::time::Duration;
//!
//! use after::{Overflow, Runner};
//!
//! # async fn send_with_retries() {}
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // Beside the global Runner, which has the quick work.
//! let mails = Runner::builder().max_running(8).max_waiting(500).overflow(Overflow::Shed).build();
//!
//! after::scope(async {
//!     after::task("audit").defer(async { println!("not held by mails") });
//!     mails.scope(async { after::task("mail").defer(send_with_retries()) }).await;
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
//! # Testing
//!
//! [`testing::capture`] runs a request and gives back its output and a [`Recorder`](testing::Recorder) of what it has
//! deferred. Nothing has run until the test says so: [`run`](testing::Recorder::run) runs everything, nested work
//! included, and panics if a task failed or panicked; [`run_within`](testing::Recorder::run_within) has a limit, and
//! names the stuck tasks. Code that opens scopes of its own is recorded through
//! [`Recorder::runner`](testing::Recorder::runner).
//!
//! ```
//! use after::testing::capture;
//!
//! async fn purchase(item: &str) -> String {
//!     after::task("receipt").defer(async { println!("sending the receipt") });
//!     format!("you have bought {item}")
//! }
//!
//! #[tokio::main(flavor = "current_thread")] // in a test: `#[tokio::test]`
//! async fn main() {
//!     let (answer, recorder) = capture(purchase("tea")).await;
//!     assert_eq!(answer, "you have bought tea");
//!     assert_eq!(recorder.names(), ["receipt"]);
//!     recorder.run().await;
//! }
//! ```
//!
//! It works under any executor, and with tokio's clock paused. `docs/testing.md` goes through it step by step, on a
//! handler.
//!
//! # Guarantees, and what is none
//!
//! | Guaranteed | Not guaranteed |
//! |---|---|
//! | no task is polled before the hand-over, nor inside [`defer()`] | that it starts soon: the runtime decides |
//! | a scope with tasks is handed over once, however it ends | that the response is written by then, or ever read |
//! | tasks start in the order of deferral | the order in which they end; any order between requests |
//! | a task that fails or panics touches no sibling, no request, no runtime | anything of this with `panic = "abort"` |
//! | in every [`Stats`] the counts add up | an account that outlives the process |
//! | two scopes polled in turn never see each other's tasks or values | that thread-locals and spans follow a task |
//! | a sibling that is always ready starves nobody | progress while a sibling computes or blocks |
//! | the memory of a task is freed when it ends | a limit of number or time, unless you set one |
//! | permits are given in the order of the hand-overs | that tasks end, or answers go out, in that order |
//! | a task past its time limit is dropped | that a poll is interrupted; that a closure is stopped |
//!
//! `tokio::task_local!` values and the current `tracing` span are those of the request's polls: they are not there
//! when a task runs. Use [`context`], move values into the task, or wrap it with a hook:
//! [`on_defer`](RunnerBuilder::on_defer).
//!
//! # Fine print
//!
//! **Executors inside a scope.** A task of an executor that is itself driven inside a scope, a `LocalSet` that a
//! request awaits, say, counts as inside that scope, unless it has its own. If such tasks belong to different
//! requests, wrap each in a scope.
//!
//! **Shared futures.** A future that several requests poll in turn, a `Shared` of `futures` say, belongs to whichever
//! polls it: that one collects what it defers meanwhile, and it sees that one's context. Give it a scope of its own
//! before it is shared: [`scope()`], or that of a [`Handle`].
//!
//! **`panic = "abort"`.** The first panic ends the process, whether it is a request's or a task's. None of what is
//! said here about panics holds.
//!
//! **`mem::forget`.** The tasks of a scope or [`Batch`] that is forgotten never run. They stay pending for ever:
//! `drain` does not return, and [`shutdown()`] waits for its limit and says so in its report. Of a forgotten scope
//! perhaps only the first task is counted, because a request in progress publishes its counts in groups.
//!
//! **async-std** is discontinued (RUSTSEC-2025-0052). Its spawner is for services that still run on it.
//!
//! **actix-web.** Each of its workers has a current-thread runtime of its own, which goes when the server stops, and
//! takes what runs on it along. Install a Runner on the main runtime: `Runner::new(Tokio::current()).install()`.
//!
//! **`wasm32-unknown-unknown`** (Cloudflare Workers, browsers). The clock and the timers are JavaScript's, and no thread
//! can be started. A batch must be held and awaited, or its Runner needs a spawner; without one its tasks are lost, and a
//! report says so. A closure of [`defer_blocking`] runs inside the batch, in its turn. Losses are reported at once. A time
//! limit of more than 24 days is none. The target's panics abort, unless you build std otherwise. The page on serverless
//! platforms in `docs` shows a Worker, and what a Runner that requests share can't do there.
//!
//! # What is not here
//!
//! On purpose, so that what is deferred stays what it looks like: a future that runs once, after the request.
//!
//! | What you may look for | Why not, and what to do |
//! |---|---|
//! | retries, back-off | they are the task's own: a loop, or a crate such as `backon`, that ends at [`stopping()`]. See [In production](#in-production), Retries and Lanes, for what a sleeping retry holds |
//! | a delay, "in ten minutes" | a sleep in the task is held in memory, keeps a permit, and a deploy waits for it. For more than seconds: a durable queue, with the time in the job |
//! | a handle to join, a return value | the request is over, so nobody is there to wait. A result that the answer needs is awaited in the handler; for other work `tokio::spawn`, and for one's own bookkeeping a channel that is moved into the task. In a test a [`Recorder`](testing::Recorder) waits |
//! | cancelling a task that runs | a task whose work may be given up waits for that itself: for [`stopping()`], or for a `CancellationToken` that is moved into it, in a `select!`. Before the hand-over [`forget()`] takes it back; a [time limit](TaskBuilder::timeout) ends it |
//! | names made at run time | names become labels of metrics, of which there must be few. What differs by request is a [key](TaskBuilder::key): reports and events have it |
//! | once over all requests | a [key](TaskBuilder::key) is for one request. Keep a set of your own in the state of the service, or give the job of a durable queue a key |
//! | cron, a schedule | a loop in a task of your runtime, with a [`scope()`] for each round: `examples/not_http.rs`; or the platform's scheduler |
//! | spawning outside a scope | [`defer()`] panics there, [`try_defer`] gives the task back, because work that belongs to no request would run before anybody asked. Open a request with [`scope()`] or [`open()`] |
//! | scopes that follow `tokio::spawn` | no runtime tells of its spawns. Take a [`Handle`] along: [`Handle::scope`] around the spawned future |
//!
//! # Cargo features
//!
//! All are additive.
//!
//! | Feature | Default | |
//! |---|---|---|
//! | `tokio` | yes | `spawner::Tokio`, and its detection |
//! | `threads` | yes | `spawner::Threads`, for where no runtime is current; a pool for blocking work, for spawners without one |
//! | `tracing` | yes | reports become `tracing` events if a subscriber is set; hooks that carry the caller's span |
//! | `tower` | yes | `tower::AfterLayer`: requests end with their response bodies; for axum, hyper, tonic |
//! | `metrics` | | `metrics::Metrics`, an observer that counts through the `metrics` facade |
//! | `smol` | | `spawner::Smol` |
//! | `async-std` | | `spawner::AsyncStd` |
//!
//! A service on tokio may do without `threads`: `default-features = false, features = ["tokio", "tracing"]`. A scope that
//! ends where no runtime is current, having seen none, then loses its tasks, and a report says so.
//!
//! The crate needs Rust 1.87, and has no `unsafe` code of its own.
//!
//! # When to prefer something simpler
//!
//! - The work is known in one place at the end of the handler, and the handler always gets there: one `tokio::spawn`
//!   of a `join!` is cheaper.
//! - The work should start now, needs several cores, or gives a result that you want: `tokio::spawn`, `JoinSet`.
//! - It belongs to no request: `tokio_util`'s `TaskTracker` waits for it at the end.
//! - It must survive a crash: a durable queue.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// A folder may have the name of what it is about, and a file of that name in it.
#![allow(clippy::module_inception)]

mod account;
mod batch;
mod limit;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod platform;
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
