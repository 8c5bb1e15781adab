//! Running: when tasks start, in which order, on which runtime.
//!
//! # One batch per request
//!
//! What one scope has collected is one [`Batch`]: one call of [`Spawner::spawn`], one task of the runtime. Giving it to the
//! spawner, when the request ends, is called the *hand-over*. A request that
//! defers nothing spawns nothing, and until its first [`defer()`] a scope allocates nothing and locks nothing.
//!
//! The tasks start in the order of deferral, and then run concurrently; a batch polls one at a time. After 32 polls it
//! yields to the runtime, and each round starts one task further on than the last, so that no task can starve the others
//! of a runtime's budget. Its cost is linear in tasks and wake-ups.
//!
//! # Order
//!
//! [`RunnerBuilder::order`] sets it for all scopes, [`Scope::order`] for one.
//!
//! | | |
//! |---|---|
//! | [`Order::Concurrent`] (default) | all are in progress at once, on one thread, as in `join!` |
//! | [`Order::Sequential`] | each starts when the one before has ended, whether it succeeded or not |
//! | [`Order::Parallel`] | each is spawned separately, so that a runtime with several threads spreads them |
//!
//! [`spawned`](TaskBuilder::spawned) does for one task what `Parallel` does for all: use it for work that computes between
//! its awaits. Awaiting a held batch waits for separately spawned tasks too. They start in the order of deferral only as
//! far as the runtime keeps it.
//!
//! # After the response
//!
//! Under [`AfterLayer`] the request ends when the server has read the last byte of the response body, so streaming works.
//!
//! A plain [`scope()`] around a handler ends when the response is made, which is before it is written. The first poll of a
//! batch starts nothing and goes back to the end of the runtime's queue. So the connection's task, which may stand behind
//! it there, writes the response first. On a runtime with several threads another thread may start the tasks meanwhile. A
//! body that is streamed after the scope's end is not waited for.
//!
//! # The runtime
//!
//! With tokio there is nothing to configure. A [`Runner`] looks for a runtime when a scope defers its first task, and, if
//! none is current then, when the request ends. The module [`spawner`] says what is found, in which order. To choose,
//! build a [`Runner`] on a spawner and [install](Runner::install) it at the beginning of `main`:
//!
//! ```
//! use after::{Runner, spawner};
//!
//! // The tasks run on a runtime of their own, which a busy server can't starve.
//! let threads = spawner::from_fn(|batch| {
//!     std::thread::spawn(|| futures::executor::block_on(batch));
//! });
//! Runner::new(threads).install()?;
//! # Ok::<(), after::InstallError>(())
//! ```
//!
//! [`Spawner`] is a trait with one required method; [`spawner::from_fn`] makes one of a function. A request may end in a
//! destructor and on any thread. That never panics: tasks that cannot run are lost, and reported.
//!
#![cfg_attr(feature = "tower", doc = "[`AfterLayer`]: tower::AfterLayer")]
#![cfg_attr(
    not(feature = "tower"),
    doc = "[`AfterLayer`]: https://docs.rs/after/latest/after/tower/struct.AfterLayer.html"
)]

#[allow(unused_imports)] // for the links
use crate::*;
