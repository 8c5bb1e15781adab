//! Only tests: see `tests/workers.rs`.
