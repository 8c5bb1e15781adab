//! What did not end as it should while a recorder ran it, and how a test is told.

use std::{
    fmt,
    sync::{PoisonError, Weak},
};

use super::records::{Failure, Records};
use crate::{
    report::{self, Observer, TaskEnd, TaskFinished},
    sync::Mutex,
};

/// Notes what fails, so that `run` can name it.
pub(super) struct Failures {
    pub(super) kept: Weak<Mutex<Records>>,
}

impl Observer for Failures {
    fn finished(&self, event: &TaskFinished<'_>) {
        let how = match event.end {
            TaskEnd::Failed(error) => format!("failed: {}", report::Chain(error)),
            TaskEnd::Panicked(payload) => format!("panicked: {}", report::message(payload)),
            TaskEnd::TimedOut => "timed out".into(),
            TaskEnd::Lost => "was lost".into(),
            TaskEnd::Shed => "was shed".into(),
            TaskEnd::Completed | TaskEnd::Discarded => return,
        };
        let failure = Failure {
            name: event.task.name.to_owned(),
            key: event.task.key.map(str::to_owned),
            location: event.task.location,
            how,
        };
        let Some(kept) = self.kept.upgrade() else {
            return;
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.clearing > 0 && matches!(event.end, TaskEnd::Lost) {
            return;
        }
        kept.failures.push(failure);
    }
}

/// What has gone wrong in a run. `Display` is for the test's output.
pub(super) struct Verdict {
    pub(super) failures: Vec<Failure>,
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
        for Failure {
            name,
            key,
            location,
            how,
        } in &self.failures
        {
            write!(f, "; `{name}` (")?;
            if let Some(key) = key {
                write!(f, "key `{key}`, ")?;
            }
            write!(f, "deferred at {location}) {how}")?;
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
