//! A request from its first poll to the end of its last task: what is collected, when and how it is handed over, how the
//! tasks take turns, and what ends them.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod conditions;
mod fairness;
mod handover;
mod isolation;
mod lifecycle;
mod open;
mod orders;
#[cfg(all(feature = "tokio", feature = "threads"))]
mod runtimes_gone;
mod scope;
mod stopping;
mod surprises;
mod timeouts;
mod wakers;
