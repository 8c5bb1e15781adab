//! The layer on real servers and sockets: what hyper and axum make of it, and what clients do to it.
//!
//! Polled by hand: `tests/tower`.
#![cfg(all(feature = "tower", feature = "tokio"))]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;
#[macro_use]
#[path = "../common/http.rs"]
mod servers;

mod clients;
mod ends;
mod frames;
mod moments;
mod response_first;
mod shutdown;
mod stalled;
mod tasks;
mod uploads;
