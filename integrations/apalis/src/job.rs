use apalis_core::task::{Task, builder::TaskBuilder, task_id::TaskId};
use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// Data that is stored now and handled later, possibly in another process.
///
/// The name is apalis' queue, and the label in reports and metrics. The payload is JSON, as apalis' own: a worker of
/// apalis alone can take such a job, and this crate's worker can take one that apalis alone has pushed.
///
/// Payloads outlive a deploy. Give a field that comes later `#[serde(default)]`; a job that can't be read any more is
/// kept, first for retries and then as a dead letter, with the reason.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Receipt {
///     order: i64,
/// }
///
/// impl after_apalis::Job for Receipt {
///     const NAME: &'static str = "receipt";
/// }
/// ```
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// What handlers are found by. Renaming it is a new job.
    const NAME: &'static str;
}

/// What can be enqueued: a [`Job`], or apalis' `Task` of one, which carries an idempotency key, a time to run at, a
/// priority or a number of attempts.
///
/// ```
/// use after_apalis::{IntoTask, TaskBuilder};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Receipt { order: i64 }
/// # impl after_apalis::Job for Receipt { const NAME: &'static str = "receipt"; }
///
/// let task = TaskBuilder::new(Receipt { order: 7 }).idempotency_key("order-7").max_attempts(5).build();
/// assert_eq!(task.into_task().idempotency_key(), Some("order-7"));
/// ```
pub trait IntoTask<J: Job> {
    /// The task of apalis that is stored.
    fn into_task(self) -> Task<J>;
}

impl<J: Job> IntoTask<J> for J {
    fn into_task(self) -> Task<J> {
        TaskBuilder::new(self).build()
    }
}

impl<J: Job> IntoTask<J> for Task<J> {
    fn into_task(self) -> Task<J> {
        self
    }
}

/// What became of a job that was enqueued.
#[derive(Clone, Debug)]
pub enum Enqueued {
    /// It is stored, under this id. In a transaction: once that commits.
    New(TaskId),
    /// A job of this name with this idempotency key is stored already, done or not. Nothing was changed, and the
    /// transaction is fine.
    AlreadyThere,
}

impl Enqueued {
    /// Whether this call stored it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        matches!(self, Enqueued::New(_))
    }
}

/// Which job runs, for its handler: `after::context::get::<Running>()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Running {
    /// [`Job::NAME`].
    pub name: &'static str,
    /// The same in every attempt: what an idempotent handler can remember.
    pub id: TaskId,
    /// From 1.
    pub attempt: usize,
    /// After this one it is a dead letter.
    pub max_attempts: usize,
}

/// How many attempts a job gets that says nothing itself. apalis' own number.
pub(crate) const MAX_ATTEMPTS: usize = 25;

/// A job as it is stored, with an id.
pub(crate) fn compact<J: Job>(job: impl IntoTask<J>) -> Result<Task<Vec<u8>>, Error> {
    let task = job.into_task();
    let task = task.try_map_args(|job| {
        serde_json::to_vec(&job).map_err(|error| {
            Error::new(
                format!("a job `{}` can't be written as JSON", J::NAME),
                error,
            )
        })
    })?;
    Ok(match task.task_id() {
        Some(_) => task,
        // A ULID: the stores read nothing else back.
        None => task
            .into_builder()
            .task_id(TaskId::from_ulid(ulid::Ulid::generate()))
            .build(),
    })
}
