//! How many tasks run and wait at once, and how long they may take.
//!
//! To be read in this order: `limit`, `place`, `room`; `sleep`, `scope_deadline`. `limit`,
//! `place` and `room` share one lock, and know each other.

mod limit;
mod place;
mod room;
mod scope_deadline;
mod sleep;

pub use self::{limit::Overflow, sleep::Sleep};
pub(crate) use self::{
    limit::{Limit, PermitWaiter},
    place::Place,
    room::Room,
    scope_deadline::ScopeDeadline,
    sleep::{poll_sleep, sleep_without_runtime},
};
