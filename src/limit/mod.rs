//! How many tasks run and wait at once, and how long they may take.
//!
//! To be read in this order: `overflow`, `line`, `limit`, `place`, `room`; `sleep`, `scope_time`. `limit`, `place` and `room`
//! share one lock, and know each other.

mod limit;
mod line;
mod overflow;
mod place;
mod room;
mod scope_time;
mod sleep;

pub(crate) use self::{
    limit::{Entry, Limit},
    place::Place,
    room::Room,
    scope_time::Member,
    sleep::{poll_sleep, sleep_without_runtime},
};
pub use self::{overflow::Overflow, sleep::Sleep};
