//! What the benchmarks share: measuring in turns, several processes, the result files, and tasks that are woken.
//!
//! All candidates of a row are interleaved in one process, in short samples; a ratio is taken between samples that stand
//! side by side, and the median of them is the process's figure. One process is no measurement, because the layout of
//! its heap moves a row by a tenth and more: each benchmark runs itself several times, and gives the median and the range
//! over the processes.
#![allow(dead_code, unreachable_pub)] // no benchmark uses all of it

pub mod clock;
pub mod floor;
pub mod measure;
pub mod median;
pub mod pending;
pub mod processes;
pub mod results;
pub mod runtimes;
pub mod table;
pub mod wakes;
pub mod ways;

/// Whether this is a run that only shows that the benchmarks work: `AFTER_QUICK=1`.
pub fn quick() -> bool {
    std::env::var_os("AFTER_QUICK").is_some_and(|value| value != "0")
}
