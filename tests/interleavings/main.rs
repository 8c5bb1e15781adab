//! What can come between: each end of a request and of its tasks at each moment, by hand and on real threads, with spawners
//! and wakers that break their contract; and the defects that were found so.
//!
//! Each test has a Runner of its own. None uses the global one, whose account one of them looks at.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod cases;
mod forgotten;
mod matrix;
#[cfg(feature = "threads")]
mod races;
mod regressions;
mod spawners;
mod wakers;
#[cfg(feature = "tower")]
mod written;
