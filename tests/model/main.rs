//! Random programs against small models, polled by hand on one thread, so that each case can be reproduced and shrunk.
//! `PROPTEST_CASES=20000 cargo test --release --all-features --test model` for a long run.
//!
//! The seed of a program that has found a defect stays in the `.proptest-regressions` file beside the source.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod programs;
#[cfg(feature = "tower")]
mod requests;

use proptest::test_runner::FileFailurePersistence;

/// Where seeds are kept. Proptest's default is a folder beside the one of `main.rs`, among the other tests.
const SEEDS: FileFailurePersistence = FileFailurePersistence::WithSource("proptest-regressions");
