//! The account of a Runner: how many tasks there are and were, which are unfinished, and how the end of one is told.
//!
//! To be read in this order: `counts`, `stats`; `ended_set`, `roster`, `shard`; `event`, `account`, `losses`; `ended_task`.
//! `account` and `losses` know each other: the thread that reports losses keeps the account.

mod account;
mod counts;
mod ended_set;
mod ended_task;
mod event;
mod losses;
mod roster;
mod shard;
mod stats;

pub use self::stats::{ShutdownReport, Stats, Unfinished};
pub(crate) use self::{
    account::{Account, KeepsAccount},
    counts::{Counts, FewCounts, Unpublished},
    ended_set::EndedSet,
    ended_task::{EndedTask, discard, discard_untold},
    event::Listener,
    roster::{Extra, Joining},
    shard::RosterKey,
};
