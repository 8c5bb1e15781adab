//! Tasks that were dropped unfinished, gathered by reason, so that a runtime that goes down with a thousand of them gets
//! one line.
//!
//! They are reported when nothing of their Runner is pending any more (the runtime has dropped the last one), or within a
//! second, whichever comes first; and no more than once a second, so that a service that sheds thousands logs one line a second.

use std::{
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use crate::{
    node::Label,
    report,
    runner::RunnerRef,
    sync::{Mutex, MutexGuard},
};

/// Why tasks were dropped unfinished. Each has a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A limit left no room for them: counted as shed, all others as lost.
    Shed,
    /// Their batch was dropped by whom it was given to.
    Dropped,
    /// Their batch was never given to a spawner.
    Held,
    /// As `Dropped`, `Held` and `Pool`, after a shutdown that did not wait any longer.
    CutOff,
    SpawnerPanicked,
    /// Closures, dropped by the pool that was to run them.
    Pool,
}

impl Loss {
    const ALL: [Loss; 6] = [
        Loss::Shed,
        Loss::Dropped,
        Loss::Held,
        Loss::CutOff,
        Loss::SpawnerPanicked,
        Loss::Pool,
    ];

    /// For a field of an event.
    #[cfg(feature = "tracing")]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Loss::Shed => "shed",
            Loss::Dropped => "dropped",
            Loss::Held => "held",
            Loss::CutOff => "cut off",
            Loss::SpawnerPanicked => "spawner panicked",
            Loss::Pool => "blocking pool",
        }
    }

    /// What has happened, and what to do.
    pub(crate) fn explained(self) -> &'static str {
        match self {
            Loss::Shed => {
                "`max_waiting` tasks were waiting already: raise it or `max_running`, or defer less"
            }
            Loss::Dropped => {
                "their runtime or spawner dropped them: await `after::shutdown` before it goes"
            }
            Loss::Held => {
                "their batch was dropped by its holder: await it to its end, `release` it, or `run` the recorder"
            }
            Loss::CutOff => {
                "they were dropped after a shutdown had reached its limit: give it a longer one, or end them when \
                 `after::stopping` resolves"
            }
            Loss::SpawnerPanicked => {
                "their spawner panicked when it was given them: repair it, its message is in a line of its own"
            }
            Loss::Pool => {
                "the blocking pool dropped them before they ran: await `after::shutdown` before it goes"
            }
        }
    }
}

/// How many lost tasks a report names.
const NAMED: usize = 5;

/// Between two reports.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Losses {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the place of the reason in [`Loss::ALL`].
    gathered: [Gathered; Loss::ALL.len()],
    /// When the last report was made.
    reported: Option<Instant>,
    /// Whether a thread will come by and report.
    thread: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.gathered.iter().all(|losses| losses.count == 0)
    }
}

#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) count: u64,
    pub(crate) first: Vec<Label>,
}

impl Losses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether these are the first since the last report.
    pub(crate) fn add(&self, why: Loss, tasks: impl Iterator<Item = Label>) -> bool {
        let mut state = self.lock();
        let none_before = state.is_empty();
        let gathered = &mut state.gathered[why as usize];
        let before = gathered.count;
        for task in tasks {
            gathered.count += 1;
            if gathered.first.len() < NAMED {
                gathered.first.push(task);
            }
        }
        none_before && gathered.count > before
    }

    /// Reports what was gathered, unless the last report was just made and it need not be now; the thread will do it
    /// then. Returns whether there was anything to report.
    pub(crate) fn report(&self, now: bool) -> bool {
        let mut state = self.lock();
        let recently = state.reported.is_some_and(|last| last.elapsed() < PAUSE);
        if state.is_empty() || (recently && state.thread && !now) {
            return false;
        }
        state.reported = Some(Instant::now());
        let gathered = std::mem::take(&mut state.gathered);
        drop(state);
        for (why, losses) in Loss::ALL.into_iter().zip(&gathered) {
            if losses.count > 0 {
                report::lost(why, losses);
            }
        }
        true
    }

    /// Sees to it that a thread reports: one while there are losses, because nothing else is sure to come by.
    pub(crate) fn report_within_a_second(&self, runner: &RunnerRef) {
        let mut state = self.lock();
        // A model can't wait for a thread of std's: see `sync`.
        if state.thread || state.is_empty() || cfg!(after_loom) {
            return;
        }
        state.thread = true;
        drop(state);
        let later = runner.clone();
        let spawned = thread::Builder::new()
            .name("after-losses".into())
            .spawn(move || {
                let account = &later.get().account;
                loop {
                    thread::sleep(PAUSE);
                    account.report_losses(true);
                    let mut state = account.losses.lock();
                    if state.is_empty() {
                        state.thread = false;
                        return;
                    }
                }
            });
        if spawned.is_err() {
            self.lock().thread = false;
            runner.get().account.report_losses(true);
        }
    }
}
