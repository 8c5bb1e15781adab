//! What the Runner's observer is told, counted by kind.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use after::{Observer, Outcome, TaskDeferred, TaskEnd, TaskFinished, TaskStarted};

use crate::kind::{KINDS, Kind};

pub(crate) const ENDS: [&str; 7] = [
    "completed",
    "failed",
    "panicked",
    "timed out",
    "discarded",
    "shed",
    "lost",
];
pub(crate) const OUTCOMES: [Outcome; 4] = [
    Outcome::Finished,
    Outcome::Failed,
    Outcome::Cancelled,
    Outcome::Panicked,
];

/// Shared by its clones.
#[derive(Clone)]
pub(crate) struct Tally {
    counts: Arc<Counts>,
}

struct Counts {
    kinds: [KindCounts; KINDS],
    /// How the requests have ended, as their audits are told.
    outcomes: [AtomicU64; OUTCOMES.len()],
    strangers: AtomicU64,
}

#[derive(Default)]
struct KindCounts {
    deferred: AtomicU64,
    started: AtomicU64,
    ends: [AtomicU64; ENDS.len()],
}

/// The counts of one kind, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) deferred: u64,
    pub(crate) started: u64,
    pub(crate) ends: [u64; ENDS.len()],
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            counts: Arc::new(Counts {
                kinds: array::from_fn(|_| KindCounts::default()),
                outcomes: array::from_fn(|_| AtomicU64::new(0)),
                strangers: AtomicU64::new(0),
            }),
        }
    }

    pub(crate) fn of(&self, kind: Kind) -> Count {
        let counts = &self.counts.kinds[kind as usize];
        Count {
            deferred: read(&counts.deferred),
            started: read(&counts.started),
            ends: array::from_fn(|end| read(&counts.ends[end])),
        }
    }

    pub(crate) fn sum(&self) -> Count {
        let mut sum = Count::default();
        for kind in Kind::ALL {
            let of = self.of(kind);
            sum.deferred += of.deferred;
            sum.started += of.started;
            for (sum, of) in sum.ends.iter_mut().zip(of.ends) {
                *sum += of;
            }
        }
        sum
    }

    pub(crate) fn outcomes(&self) -> [u64; OUTCOMES.len()] {
        array::from_fn(|outcome| read(&self.counts.outcomes[outcome]))
    }

    /// Events of tasks that nobody here has deferred.
    pub(crate) fn strangers(&self) -> u64 {
        read(&self.counts.strangers)
    }

    fn kind(&self, name: &str) -> Option<&KindCounts> {
        let kind = Kind::named(name);
        if kind.is_none() {
            add(&self.counts.strangers);
        }
        kind.map(|kind| &self.counts.kinds[kind as usize])
    }
}

impl Observer for Tally {
    fn deferred(&self, event: &TaskDeferred<'_>) {
        if let Some(counts) = self.kind(event.task.name) {
            add(&counts.deferred);
        }
    }

    fn started(&self, event: &TaskStarted<'_>) {
        if let Some(counts) = self.kind(event.task.name) {
            add(&counts.started);
        }
    }

    fn finished(&self, event: &TaskFinished<'_>) {
        let end = match event.end {
            TaskEnd::Completed => 0,
            TaskEnd::Failed(_) => 1,
            TaskEnd::Panicked(_) => 2,
            TaskEnd::TimedOut => 3,
            TaskEnd::Discarded => 4,
            TaskEnd::Shed => 5,
            _ => 6,
        };
        if let Some(counts) = self.kind(event.task.name) {
            add(&counts.ends[end]);
        }
        if event.task.name == Kind::Audit.name() {
            let outcome = OUTCOMES
                .iter()
                .position(|of| Some(*of) == event.task.outcome);
            match outcome {
                Some(outcome) => add(&self.counts.outcomes[outcome]),
                None => add(&self.counts.strangers),
            }
        }
    }
}

/// Nothing else is read on the strength of a count, and the totals are read when all is over.
pub(crate) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
