//! Lost tasks, gathered so that a runtime that goes down with a thousand of them gets one line.
//!
//! They are reported when nothing of their Runner is pending any more (the runtime has dropped the last one), or a second
//! after the first of them, whichever comes first.

use std::{
    panic::Location,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{report, runner::RunnerRef};

/// How many lost tasks a report names.
const NAMED: usize = 5;

#[derive(Default)]
pub(crate) struct Losses {
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) count: u64,
    pub(crate) first: Vec<(&'static str, &'static Location<'static>)>,
}

impl Losses {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether these are the first since the last report.
    pub(crate) fn add(
        &self,
        tasks: impl Iterator<Item = (&'static str, &'static Location<'static>)>,
    ) -> bool {
        let mut gathered = self.lock();
        let before = gathered.count;
        for task in tasks {
            gathered.count += 1;
            if gathered.first.len() < NAMED {
                gathered.first.push(task);
            }
        }
        before == 0 && gathered.count > 0
    }

    /// Reports what was gathered; returns whether there was anything.
    pub(crate) fn report(&self) -> bool {
        let gathered = std::mem::take(&mut *self.lock());
        if gathered.count == 0 {
            return false;
        }
        report::lost(&gathered);
        true
    }

    /// A thread for one second, and only after a loss: nothing else is sure to come by.
    pub(crate) fn report_in_a_second(runner: RunnerRef) {
        let later = runner.clone();
        let spawned = thread::Builder::new()
            .name("after-losses".into())
            .spawn(move || {
                thread::sleep(Duration::from_secs(1));
                later.get().account.report_losses();
            });
        if spawned.is_err() {
            runner.get().account.report_losses();
        }
    }
}
