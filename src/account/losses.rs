//! Tasks that were dropped unfinished, gathered by reason, so that a runtime that goes down with a thousand of them gets
//! one line.
//!
//! They are reported when nothing of their Runner is pending any more (the runtime has dropped the last one), or within a
//! second, whichever comes first; and no more than once a second, so that a service that sheds thousands logs one line
//! a second.

use std::time::Duration;

use super::account::KeepsAccount;
use crate::{
    platform::Instant,
    report::{self, Gathered, Label, Loss},
    sync::{Mutex, come_by, lock},
};

/// How many lost tasks a report names.
const NAMED: usize = 5;

/// Between two reports.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Losses {
    state: Mutex<LossesState>,
}

#[derive(Default)]
struct LossesState {
    /// By the place of the reason in [`Loss::ALL`].
    gathered: [Gathered; Loss::ALL.len()],
    /// When the last report was made.
    reported: Option<Instant>,
    /// Whether a thread will come by and report.
    thread: bool,
}

impl LossesState {
    fn is_empty(&self) -> bool {
        self.gathered.iter().all(|losses| losses.count == 0)
    }
}

impl Losses {
    /// Returns whether these are the first since the last report.
    pub(crate) fn add(&self, why: Loss, tasks: impl Iterator<Item = Label>) -> bool {
        let mut state = lock(&self.state);
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
        let mut state = lock(&self.state);
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
    pub(crate) fn report_within_a_second(&self, keeper: &impl KeepsAccount) {
        let mut state = lock(&self.state);
        // A model can't wait for a thread of std's: see `sync`.
        if state.thread || state.is_empty() || cfg!(after_loom) {
            return;
        }
        state.thread = true;
        drop(state);
        let later = keeper.clone();
        let started = come_by("after-losses", PAUSE, move || {
            let account = later.account();
            account.report_losses(true);
            let mut state = lock(&account.losses.state);
            state.thread = !state.is_empty();
            state.thread.then_some(PAUSE)
        });
        if started.is_err() {
            lock(&self.state).thread = false;
            keeper.account().report_losses(true);
        }
    }
}
