//! Under which conditions the variants are compared.

use std::time::Duration;

use crate::work::Task;

/// Of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) work: Work,
    /// Threads of the runtime; 0 for the current-thread one.
    pub(crate) workers: usize,
    /// Each asks again as soon as it is answered.
    pub(crate) connections: usize,
}

/// What each task does, before it is known how fast the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Microseconds of CPU.
    Cpu(u64),
    /// Microseconds of waiting.
    Sleep(u64),
}

impl Cell {
    pub(crate) const ALL: [Cell; 7] = [
        Cell::new(Work::Cpu(5), 2, 32),
        Cell::new(Work::Sleep(2_000), 2, 32),
        Cell::new(Work::Cpu(5), 0, 32),
        Cell::new(Work::Sleep(2_000), 0, 32),
        Cell::new(Work::Cpu(5), 2, 2),
        Cell::new(Work::Sleep(2_000), 2, 2),
        Cell::new(Work::Cpu(200), 2, 32),
    ];

    /// On both runtimes, and both kinds of task.
    pub(crate) const QUICK: [Cell; 2] = [
        Cell::new(Work::Sleep(2_000), 2, 32),
        Cell::new(Work::Cpu(5), 0, 32),
    ];

    pub(crate) const fn new(work: Work, workers: usize, connections: usize) -> Cell {
        Cell {
            work,
            workers,
            connections,
        }
    }

    pub(crate) fn runtime(self) -> &'static str {
        match self.workers {
            0 => "current-thread",
            1 => "1 worker",
            _ => "2 workers",
        }
    }
}

impl Work {
    pub(crate) fn name(self) -> String {
        match self {
            Work::Cpu(microseconds) => format!("{microseconds} µs of CPU"),
            Work::Sleep(microseconds) => format!("{} ms of sleep", microseconds / 1_000),
        }
    }

    pub(crate) fn task(self, steps_in_a_microsecond: u64) -> Task {
        match self {
            Work::Cpu(microseconds) => Task::Steps(microseconds * steps_in_a_microsecond),
            Work::Sleep(microseconds) => Task::Sleep(Duration::from_micros(microseconds)),
        }
    }
}
