//! Fine print: executors inside a scope, shared futures, leaks, discontinued runtimes.
//!
//! **Executors inside a scope.** A task of an executor that is itself driven inside a scope (a `LocalSet` that a request
//! awaits, say) counts as inside that scope, unless it has its own. If such tasks belong to different requests, wrap each
//! in a scope.
//!
//! **Shared futures.** Several requests may poll one future alternately, a `Shared` of `futures` say. The request that
//! polls it collects what it defers meanwhile, and it sees that request's values. Wrap it in a scope of its own before it
//! is shared: [`scope()`], or that of a [`Handle`].
//!
//! **`panic = "abort"`.** The first panic ends the process, whether it is a request's or a task's. Nothing that these
//! docs say about panics holds.
//!
//! **`mem::forget`.** The tasks of a scope or [`Batch`] that is forgotten never run. They stay pending forever:
//! [`drain`](Runner::drain) does not return, and [`shutdown()`] waits for its limit and says so in its report. Of a
//! forgotten scope perhaps only the first task is counted, because a request in progress publishes its counts in groups.
//!
//! **async-std** is discontinued (RUSTSEC-2025-0052). Its spawner is for services that still run on it.
//!
//! **actix-web.** Each of its workers has a current-thread runtime of its own, which is dropped when the server stops, and
//! its tasks with it. Install a Runner on the main runtime: `Runner::new(Tokio::current()).install()`.
//!
//! **`wasm32-unknown-unknown`** (Cloudflare Workers, browsers). The clock and the timers are JavaScript's, and no thread
//! can be started. A batch must be held and awaited, or its Runner needs a spawner; without one its tasks are lost, and a
//! report says so. A closure of [`defer_blocking`] runs inside the batch, in its turn. Losses are reported at once. A
//! timeout of more than 24 days is none. The target's panics abort, unless you build std otherwise. The page on serverless
//! platforms in `docs` shows a Worker, and what a Runner that requests share can't do there.

#[allow(unused_imports)] // for the links
use crate::*;
