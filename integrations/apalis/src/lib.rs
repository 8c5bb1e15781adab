//! Durable jobs beside [`after`]: what must survive a crash goes through a database, and is worked off by
//! [apalis](https://docs.rs/apalis-core) on SQLite, Postgres or Redis.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use after_apalis::{Job, Jobs};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Receipt {
//!     order: i64,
//! }
//!
//! impl Job for Receipt {
//!     const NAME: &'static str = "receipt";
//! }
//!
//! async fn send(receipt: Receipt) -> Result<(), std::io::Error> {
//!     println!("the receipt of order {}", receipt.order);
//!     Ok(())
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let jobs = Jobs::connect("sqlite:shop.db").await?;
//! let worker = jobs.worker().handle(send).start().await?;
//!
//! // In a request: the order and its receipt, or neither.
//! let mut tx = jobs.sqlite().expect("it is SQLite").begin().await?;
//! // .. the order ..
//! jobs.enqueue(&mut *tx, Receipt { order: 7 }).await?;
//! tx.commit().await?;
//!
//! // At the end: the server, what it deferred, the worker.
//! after::shutdown(Duration::from_secs(10)).await;
//! worker.shutdown(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Which of three
//!
//! | | what it is for | the process is killed | the request fails |
//! |---|---|---|---|
//! | [`after::defer`] | what may be lost: metrics, caches, an index that is rebuilt anyway | what has not run is lost | as its condition says |
//! | [`jobs.enqueue(&mut *tx, ..)`](Jobs::enqueue) | what must happen if the transaction did: receipts, webhooks, payments | nothing is lost; what ran may run again | the rollback takes the job along |
//! | [`jobs.defer(..)`](Jobs::defer) | what should survive a deploy or a crash, on a store that is not in your transaction (Redis) | lost between the response and the enqueue, some milliseconds; then as above | as its condition says |
//!
//! [`jobs.push(..)`](Jobs::push) in the handler, before the response, is the fourth: the client waits for the store, and
//! the job runs though the transaction may then fail.
//!
//! # What is promised
//!
//! - A job that was committed runs, **at least once**. It runs twice where a worker was lost, or stopped for longer than
//!   heartbeats may be missed, after it did the work and before it said so. Handlers must be idempotent: remember
//!   [`Running::id`] in the transaction that does the work, or pass it on as the idempotency key of what they call.
//! - A job that was rolled back never runs.
//! - A job never disappears: it is done, or waits, or is a dead letter with its payload and its last error.
//! - Not promised: order; that a job starts within a time (it does some milliseconds after the commit if a slot is
//!   free); anything at all for what a job itself *defers*, which is in memory, as everywhere in `after`.
//! - A store that loses what it has committed loses jobs: Redis without `appendonly`, SQLite with `synchronous = OFF`
//!   and a power cut. A worker reports the former; [`Jobs::connect`] sets the latter to `FULL`.
//!
//! # How it flows
//!
//! ```text
//! application ─ enqueue, push, defer ─> Jobs ─ INSERT ─> store (apalis' tables)
//!                                                          │ LISTEN/NOTIFY, pub/sub, data_version; and a poll
//!                                       as many as there are slots ─ fetch
//!                                                          │
//!                                                apalis' Worker ─> a task of `after`, and in it an `after::scope`
//!                                                          │                                     │
//!   store <─ finish: done, again after a backoff, dead ────┴──────────── the handler's result ───┘
//! ```
//!
//! The tables, their migrations, the protocol (who has locked what, who lives) and the worker loop are apalis'. This
//! crate adds what its defaults leave out, each for a reason that stands beside it in the source:
//!
//! | apalis 1.0 alone | here |
//! |---|---|
//! | a crash is noticed after 300 s | heartbeats every 5 s, 3 may be missed: 10 to 20 s; [`WorkerBuilder::heartbeat`] |
//! | a worker that comes back under its old name keeps the old one's jobs locked | every start has a name of its own |
//! | an idle queue is asked every 30 s, unless a listener is attached | told at once on all three stores, and asked every second |
//! | a failed job is tried again at once, 25 times in 30 ms | [`Backoff`]: 1 s, doubled up to an hour, with jitter |
//! | a job that kills its process is given back for ever | it counts as an attempt, and is dead in the end |
//! | heartbeats stop while a job blocks, and while a stop waits for jobs | on a timer of their own; [`WorkerBuilder::handle_blocking`] |
//! | a second job with the same idempotency key aborts your transaction (Postgres) | [`Enqueued::AlreadyThere`] |
//! | more than 8,000 jobs that are due end the worker with an error (Redis) | they are taken by the thousand |
//! | an error of the database ends the worker | it waits, and says so once |
//! | what runs at the end is freed by missed heartbeats | named, and given back at once: [`Worker::shutdown`] |
//!
//! Workers of apalis alone may work on the same queues, and apalis' board shows them. A job takes one slot of its name's
//! worker ([`WorkerBuilder::concurrency`]), and each name polls for itself.
//!
//! # A job is a request
//!
//! Each attempt runs in a scope, on the worker's Runner: library code that calls [`after::defer`] works in a job as it does
//! in a request. The outcome is that of the handler's result, and [`Running`] is in the context. The attempt itself is a
//! task of that Runner, named as the job: observers, metrics, spans, `max_running` and the account see it as they see any
//! task ([`WorkerBuilder::runner`]).
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "redis")))]
compile_error!("after-apalis needs a store: enable `sqlite` (the default), `postgres` or `redis`");

mod backoff;
mod error;
mod job;
mod jobs;
mod report;
mod store;
mod worker;

pub use apalis_core::task::{Task, builder::TaskBuilder};
pub use backoff::Backoff;
pub use error::Error;
pub use job::{Enqueued, IntoTask, Job, Running};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use jobs::Connection;
pub use jobs::Jobs;
pub use store::{Counts, Dead};
pub use worker::{GivenBack, JobResult, StopReport, Worker, WorkerBuilder};
