//! The after phase: the hand-over of a request's tasks, their release, their turns, their ends.
//!
//! To be read in this order: `batch`; `hand_over`, `release`, `offer`, `refused`; `future`, `turn`, `round`, `woken`,
//! `poll`, `task_time`, `expire`, `finish`, `turn_end`, `join`; `permits`, `end`, `close`; `blocking`.

mod batch;
mod blocking;
mod close;
mod end;
mod expire;
mod finish;
mod future;
mod hand_over;
mod join;
mod offer;
mod permits;
mod poll;
mod refused;
mod release;
mod round;
mod task_time;
mod turn;
mod turn_end;
mod woken;

pub use self::batch::Batch;
pub(crate) use self::blocking::Blocking;
