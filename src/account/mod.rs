//! The account of a Runner: how many tasks there are and were, which are unfinished, and how the end of one is told.
//!
//! To be read in this order: `counts`, `stats`; `finished`, `roster`; `signal`, `account`, `losses`; `ended`. `account` and
//! `losses` know each other: the thread that reports losses keeps the account.

mod account;
mod counts;
mod ended;
mod finished;
mod losses;
mod roster;
mod signal;
mod stats;

pub use self::stats::{ShutdownReport, Stats, Unfinished};
pub(crate) use self::{
    account::{Account, KeepsAccount, Seat},
    counts::Counts,
    ended::{Ended, discard},
    finished::Finished,
    roster::{Extra, Joining},
    signal::Waiter,
};
