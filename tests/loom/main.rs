//! Races, each in every interleaving of two or three threads that loom finds.
//!
//! ```console
//! RUSTFLAGS="--cfg after_loom" cargo test --release --no-default-features --features tower --test loom --target-dir target/loom
//! ```
//!
//! With at most three preemptions in a run, in one model two, or as many as `LOOM_MAX_PREEMPTIONS` says. Loom's
//! threads are coroutines of one, so what is ambient in the racing part is kept for each of them by the crate's
//! `sync`; what loom can't model (the spare boxes, real thread-locals, the pool of `spawner::Threads`) is in
//! `tests/interleavings/races.rs`.
//!
//! Every model asserts, besides its own fact, that each task has run or is on the account as something else, was
//! dropped exactly once, and that nothing is left when it ends: see `world`. A wake-up that is missed is a deadlock,
//! which loom reports. The comment `Broken:` of a test says with which change of the crate it was seen to fail.
#![cfg(after_loom)]

mod account;
mod batch;
mod handle;
mod limit;
#[cfg(feature = "tower")]
mod responses;
mod waiters;
mod world;
