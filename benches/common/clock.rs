//! The clocks of the benchmarks.

use std::time::{Duration, Instant};

/// What a sample is timed by.
#[derive(Clone, Copy)]
pub enum Clock {
    /// Real time: for what runs on several threads, and for samples that are short beside a slice of the scheduler.
    Real,
    /// The processor time of this thread, where the system tells it: what other processes take is not in it.
    Thread,
    /// The processor time of all threads of this process.
    Process,
}

impl Clock {
    pub fn time(self, work: impl FnOnce()) -> Duration {
        let before = self.now();
        work();
        self.now().saturating_sub(before)
    }

    pub fn now(self) -> Duration {
        match self {
            Clock::Real => real(),
            Clock::Thread => of_this_thread(),
            Clock::Process => of_this_process(),
        }
    }
}

fn real() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(unix)]
fn of_this_thread() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or_else(|_| real(), Duration::from)
}

#[cfg(unix)]
fn of_this_process() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or_else(|_| real(), Duration::from)
}

#[cfg(not(unix))]
fn of_this_process() -> Duration {
    real()
}

#[cfg(not(unix))]
fn of_this_thread() -> Duration {
    real()
}
