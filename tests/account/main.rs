//! The account of a Runner and what is counted on it: limits, the report of a shutdown, observers; and what grows with the
//! number of tasks.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "tokio")]
mod lanes;
mod limits;
mod linear;
mod observers;
mod roster;
#[cfg(feature = "tracing")]
mod spans;
