//! The guide: how tasks are deferred, run, limited, observed and tested. Documentation only, without items.
//!
//! | Page | |
//! |---|---|
//! | [Tasks](tasks) | names, keys, conditions, blocking work, values of the request, clean-up in `Drop` |
//! | [Elsewhere](elsewhere) | other tasks and threads, requests that are not one future, libraries |
//! | [Running](running) | when tasks start, in which order, on which runtime |
//! | [Production](production) | timeouts, limits, observers, reports, shutdown, retries |
//! | [Testing](testing) | what a handler defers, and running it |
//! | [Not here](not_here) | retries, delays, join handles, cron and others: why not, and what to do |
//! | [Fine print](fine_print) | executors inside a scope, shared futures, leaks, discontinued runtimes |

pub mod elsewhere;
pub mod fine_print;
pub mod not_here;
pub mod production;
pub mod running;
pub mod tasks;
pub mod testing;
