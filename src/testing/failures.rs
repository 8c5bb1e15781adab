//! What did not end as it should while a recorder ran it, and how a test is told.

use std::{error::Error, fmt, time::Duration};

use super::recorder::Keeper;
use crate::{
    account::Unfinished,
    report::{self, Observer, TaskEnd, TaskFinished, named},
};

impl Observer for Keeper {
    /// Notes what fails, so that `run` can name it.
    fn finished(&self, event: &TaskFinished<'_>) {
        let how = match event.end {
            TaskEnd::Failed(error) => format!("failed: {}", report::Chain(error)),
            TaskEnd::Panicked(payload) => format!("panicked: {}", report::message(payload)),
            TaskEnd::TimedOut => "timed out".into(),
            TaskEnd::Lost => "was lost".into(),
            TaskEnd::Shed => "was shed".into(),
            TaskEnd::Completed | TaskEnd::Discarded => return,
        };
        let task = &event.task;
        let place = format!("deferred at {}", task.location);
        let failure = format!("{} {how}", named(task.name, task.key, place));
        let lost = matches!(event.end, TaskEnd::Lost);
        if let Some(kept) = self.kept.upgrade() {
            kept.with(|kept| {
                if kept.clearing == 0 || !lost {
                    kept.failures.push(failure);
                }
            });
        }
    }
}

/// What has gone wrong in a run. `Display` is for the test's output.
pub(super) struct Verdict {
    pub(super) failures: Vec<String>,
    /// On Runners that are not the recorder's.
    pub(super) unnamed: u64,
    /// Tasks of the recorder's Runner that it was not given.
    pub(super) elsewhere: Elsewhere,
}

impl Verdict {
    pub(super) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.unnamed == 0 && self.elsewhere.is_none()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.failures.len() as u64 + self.unnamed;
        if count > 0 {
            write!(f, "of the recorded tasks {count} did not complete")?;
        }
        for failure in &self.failures {
            write!(f, "; {failure}")?;
        }
        if self.unnamed > 0 {
            let unnamed = self.unnamed;
            write!(f, "; {unnamed} on a Runner that is not the recorder's")?;
        }
        if !self.elsewhere.is_none() {
            let and = if count > 0 { "; and " } else { "" };
            write!(f, "{and}{}", self.elsewhere)?;
        }
        Ok(())
    }
}

/// Tasks of the recorder's Runner that it was not given, so that it could not run them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Elsewhere {
    /// Of requests that have not ended.
    pub(super) requests: u64,
    /// In batches that the test has.
    pub(super) held: u64,
}

impl Elsewhere {
    pub(super) fn is_none(self) -> bool {
        self.requests == 0 && self.held == 0
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = |count: u64| match count {
            1 => "1 task belongs".to_owned(),
            count => format!("{count} tasks belong"),
        };
        let Elsewhere { requests, held } = *self;
        if requests > 0 {
            let tasks = tasks(requests);
            write!(
                f,
                "{tasks} to a request that has not ended: read its response's body to the end, or drop it, which makes the \
                 request cancelled"
            )?;
        }
        if held > 0 {
            let and = if requests > 0 { "; and " } else { "" };
            let tasks = tasks(held);
            write!(
                f,
                "{and}{tasks} to a batch that is held: release it, or await it"
            )?;
        }
        Ok(())
    }
}

/// Error returned by [`Recorder::run_within`](super::Recorder::run_within) at its limit: the tasks that had not ended. See there for an example.
#[derive(Clone, Debug)]
pub struct Stuck {
    pub(super) limit: Duration,
    pub(super) unfinished: Vec<Unfinished>,
    pub(super) elsewhere: Elsewhere,
}

impl Stuck {
    /// The recorded tasks that had not ended. See [`run_within`](super::Recorder::run_within) for an example.
    ///
    /// Empty if all that is left belongs to requests that have not ended, or to held batches: `Display` says so.
    pub fn unfinished(&self) -> &[Unfinished] {
        &self.unfinished
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still unfinished after {:?}:", self.limit)?;
        for (index, task) in self.unfinished.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma} {}", named(task.name, None, task.location))?;
        }
        if !self.elsewhere.is_none() {
            let and = match self.unfinished.is_empty() {
                true => "",
                false => "; and",
            };
            write!(f, "{and} {}", self.elsewhere)?;
        }
        Ok(())
    }
}

impl Error for Stuck {}
