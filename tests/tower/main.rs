//! The layer, polled by hand: what its scope spans, when and how its requests end, what is handed over and when.
//!
//! On real servers and sockets: `tests/http`.
#![cfg(feature = "tower")]

#[path = "../common/mod.rs"]
mod common;

mod elsewhere;
mod ends;
mod failures;
mod frames;
mod moments;
mod panics;
mod request;
mod response;
mod room;
mod scope;
mod script;
mod shared;
