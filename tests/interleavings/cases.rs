//! What the matrices share: how something ends, what has happened so far, and the Runner that notes it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
};

use after::{Observer, Outcome, Runner, RunnerBuilder, TaskFinished, spawner};

use crate::common::{Batches, balanced};

/// How a request ends, its body, or a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finish,
    Fail,
    Drop,
    Panic,
}

pub(crate) const ENDS: [End; 4] = [End::Finish, End::Fail, End::Drop, End::Panic];

impl End {
    /// What the poll does in which a future ends so: nothing, if it is to be dropped.
    pub(crate) fn reached(self) -> Poll<Result<(), &'static str>> {
        match self {
            End::Finish => Poll::Ready(Ok(())),
            End::Fail => Poll::Ready(Err("told to")),
            End::Drop => Poll::Pending,
            End::Panic => std::panic::panic_any("told to"),
        }
    }

    /// What tasks see of a request that ends so.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            End::Finish => Outcome::Finished,
            End::Fail => Outcome::Failed,
            End::Drop => Outcome::Cancelled,
            End::Panic => Outcome::Panicked,
        }
    }
}

/// What has happened so far in a case.
#[derive(Default)]
pub(crate) struct Seen<C> {
    /// Asserted as a whole, so that nothing happens twice, early, or unnoticed.
    pub(crate) counts: Mutex<C>,
    /// The outcomes that tasks saw when they were dropped.
    pub(crate) outcomes: Mutex<Vec<Option<Outcome>>>,
    /// How often an observer was told of an end.
    told: AtomicUsize,
}

impl<C> Seen<C> {
    pub(crate) fn count(&self, change: impl FnOnce(&mut C)) {
        change(&mut self.counts.lock().unwrap());
    }

    /// A task is dropped, in its scope.
    pub(crate) fn task_is_dropped(&self, change: impl FnOnce(&mut C)) {
        self.count(change);
        self.outcomes.lock().unwrap().push(after::outcome());
    }

    pub(crate) fn told(&self) -> u64 {
        self.told.load(SeqCst) as u64
    }
}

struct Tells<C>(Arc<Seen<C>>);

impl<C: Send + 'static> Observer for Tells<C> {
    fn finished(&self, _: &TaskFinished<'_>) {
        self.0.told.fetch_add(1, SeqCst);
    }
}

/// Where `seen` is told of ends.
pub(crate) fn observed<C: Send + 'static>(
    builder: RunnerBuilder,
    seen: &Arc<Seen<C>>,
) -> RunnerBuilder {
    builder.observer(Tells(seen.clone()))
}

/// For a Runner whose batches are kept, and counted in `seen`.
pub(crate) fn counting<C: Send + 'static>(
    seen: &Arc<Seen<C>>,
    hand_over: fn(&mut C),
) -> (RunnerBuilder, Batches) {
    let batches = Batches::default();
    let (keep, seen) = (batches.clone(), seen.clone());
    let builder = Runner::builder().spawner(spawner::from_fn(move |batch| {
        seen.count(hand_over);
        keep.push(batch);
    }));
    (builder, batches)
}

/// Deferred, pending, and how many an observer was told of; and that somebody else's scope has got nothing.
#[track_caller]
pub(crate) fn account<C>(
    runner: &Runner,
    seen: &Seen<C>,
    (outer, of_outer): &(Runner, Batches),
) -> (u64, u64, u64) {
    assert_eq!((balanced(outer).deferred, of_outer.len()), (0, 0));
    let stats = balanced(runner);
    (stats.deferred, stats.pending, seen.told())
}
