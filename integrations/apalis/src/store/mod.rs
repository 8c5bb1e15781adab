//! What apalis' tables hold, and what is done to them.
//!
//! Its statements are used where they will do: its migrations, its end of a job (`ack_tasks`, `handle_results`), its
//! take-over, its fetch on SQLite, its push on Redis. The others are this crate's, each for a trap of apalis 1.0 that is
//! named beside it:
//!
//! | | trap |
//! |---|---|
//! | insert | a key that exists aborts the transaction (Postgres) |
//! | fetch on Postgres | marks a job `Running` only in a second statement, which takes it from whoever has it by then; and one id that is no ULID fails a fetch whose jobs are locked already |
//! | take-over | knows no `max_attempts`: a job that kills its process does so for ever |
//! | end | a failed job is due at once: `run_at` stays |
//! | register, heartbeat | a start goes by the client's clock (Postgres), and a worker whose row is gone does not come back |
//! | give back, sign off, retry, counts, dead letters | there is none |
//!
//! SQL is written out where it is sent, in both dialects. What is the same around it is here.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "postgres")]
pub(crate) use postgres::{Postgres, insert as postgres_insert};
#[cfg(feature = "redis")]
pub(crate) use redis::Redis;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::{Sqlite, insert as sqlite_insert};

use std::time::Duration;

use apalis_core::{
    task::{Task, task_id::TaskId},
    worker::context::WorkerContext,
};
use serde_json::Value;

use crate::{Error, job::Enqueued};

/// One name's share of a worker: a row of its own among apalis' workers.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) queue: &'static str,
    pub(crate) context: WorkerContext,
}

impl Registration {
    pub(crate) fn worker(&self) -> &str {
        self.context.name()
    }
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) id: TaskId,
    pub(crate) attempt: usize,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Done(Value),
    Again { error: String, after: Duration },
    Dead { error: String },
}

/// What was taken from workers whose heartbeats stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) again: u64,
    pub(crate) dead: u64,
}

/// How many jobs of one name are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Waiting for a worker, or for their next attempt.
    pub pending: u64,
    /// Taken by a worker.
    pub running: u64,
    /// Done, and not removed yet.
    pub done: u64,
    /// Out of attempts, or aborted: see [`Jobs::dead`](crate::Jobs::dead).
    pub dead: u64,
}

/// A job that is not tried any more. It is kept, with its payload, until somebody removes or
/// [retries](crate::Jobs::retry) it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dead {
    /// The job's id.
    pub id: String,
    /// How often it was tried.
    pub attempts: usize,
    /// Why the last attempt failed.
    pub error: String,
}

/// The error in apalis' `last_result`: `{"Err": ".."}`.
pub(crate) fn error_of(result: Option<Value>) -> String {
    match result {
        Some(Value::Object(mut fields)) => match fields.remove("Err") {
            Some(Value::String(error)) => error,
            Some(other) => other.to_string(),
            None => Value::Object(fields).to_string(),
        },
        Some(other) => other.to_string(),
        None => "unknown".into(),
    }
}

/// Why a job was given up whose workers went away.
pub(crate) const LOST_TOO_OFTEN: &str = "its worker stopped sending heartbeats while it ran, in each of its attempts: it may be what kills the process, \
     or it blocks the runtime (see `WorkerBuilder::handle_blocking`)";

#[derive(Debug)]
pub(crate) enum Store {
    #[cfg(feature = "sqlite")]
    Sqlite(Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(Postgres),
    #[cfg(feature = "redis")]
    Redis(Redis),
}

macro_rules! each {
    ($self:expr, $store:ident => $call:expr) => {
        match $self {
            #[cfg(feature = "sqlite")]
            Store::Sqlite($store) => $call,
            #[cfg(feature = "postgres")]
            Store::Postgres($store) => $call,
            #[cfg(feature = "redis")]
            Store::Redis($store) => $call,
            // Without a feature there is no store.
            #[allow(unreachable_patterns)]
            _ => unreachable!("no store"),
        }
    };
}

#[allow(unused_variables)]
impl Store {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Store::Sqlite(_) => "SQLite",
            #[cfg(feature = "postgres")]
            Store::Postgres(_) => "Postgres",
            #[cfg(feature = "redis")]
            Store::Redis(_) => "Redis",
            #[allow(unreachable_patterns)]
            _ => unreachable!("no store"),
        }
    }

    pub(crate) async fn push(&self, queue: &str, task: Task<Vec<u8>>) -> Result<Enqueued, Error> {
        each!(self, store => store.push(queue, task).await)
    }

    pub(crate) async fn register(&self, worker: &Registration) -> Result<(), Error> {
        each!(self, store => store.register(worker).await)
    }

    /// Says that these live. A row that somebody has removed comes back.
    pub(crate) async fn heartbeat(&self, workers: &[Registration]) -> Result<(), Error> {
        let names: Vec<&str> = workers.iter().map(Registration::worker).collect();
        let known = each!(self, store => store.heartbeat(&names).await)?;
        if known < workers.len() as u64 {
            for worker in workers {
                self.register(worker).await?;
            }
        }
        Ok(())
    }

    /// Takes what workers of this queue hold that were not heard of for this long.
    pub(crate) async fn recover(
        &self,
        queue: &str,
        dead_for: Duration,
    ) -> Result<Recovered, Error> {
        each!(self, store => store.recover(queue, dead_for).await)
    }

    pub(crate) async fn fetch(
        &self,
        worker: &Registration,
        most: usize,
    ) -> Result<Vec<Task<Vec<u8>>>, Error> {
        each!(self, store => store.fetch(worker, most).await)
    }

    /// How many were still this worker's.
    pub(crate) async fn finish(
        &self,
        worker: &Registration,
        ended: &[Ended],
    ) -> Result<u64, Error> {
        each!(self, store => store.finish(worker, ended).await)
    }

    /// What this worker holds, but for these, becomes pending, and others are told.
    pub(crate) async fn give_back(
        &self,
        worker: &Registration,
        but: &[String],
    ) -> Result<u64, Error> {
        each!(self, store => store.give_back(worker, but).await)
    }

    /// After `give_back`: the worker is gone.
    pub(crate) async fn leave(&self, worker: &Registration) -> Result<(), Error> {
        each!(self, store => store.leave(worker).await)
    }

    /// Calls `wake` with the name of a queue that has something, or with `None` if any may. Ends with an error, never
    /// without one.
    pub(crate) async fn listen(
        &self,
        queues: &[&'static str],
        enqueued: tokio::sync::watch::Receiver<u64>,
        wake: &(dyn Fn(Option<&str>) + Send + Sync),
    ) -> Result<std::convert::Infallible, Error> {
        each!(self, store => store.listen(queues, enqueued, wake).await)
    }

    /// Names of jobs that wait though no live worker knows them, and how many.
    pub(crate) async fn without_handler(
        &self,
        waited: Duration,
        alive: Duration,
    ) -> Result<Vec<(String, u64)>, Error> {
        each!(self, store => store.without_handler(waited, alive).await)
    }

    pub(crate) async fn counts(&self, queue: &str) -> Result<Counts, Error> {
        each!(self, store => store.counts(queue).await)
    }

    pub(crate) async fn dead(&self, queue: &str, most: u32) -> Result<Vec<Dead>, Error> {
        each!(self, store => store.dead(queue, most).await)
    }

    pub(crate) async fn retry(&self, queue: &str, id: &str) -> Result<bool, Error> {
        each!(self, store => store.retry(queue, id).await)
    }

    pub(crate) async fn remove_done(&self, queue: &str, older: Duration) -> Result<u64, Error> {
        each!(self, store => store.remove_done(queue, older).await)
    }
}

/// A count of rows.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Counts {
    /// A row of pending, running, done, dead.
    fn of((pending, running, done, dead): (i64, i64, i64, i64)) -> Self {
        Counts {
            pending: count(pending),
            running: count(running),
            done: count(done),
            dead: count(dead),
        }
    }
}

/// Results in apalis' form, for the SQL stores.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn results(ended: &[Ended]) -> Vec<apalis_core::backend::TaskResult<Value>> {
    use apalis_core::{backend::TaskResult, task::status::Status};
    ended
        .iter()
        .map(|ended| {
            let (status, result) = match &ended.verdict {
                Verdict::Done(value) => (Status::Done, Ok(value.clone())),
                Verdict::Again { error, .. } => (Status::Failed, Err(error.clone())),
                Verdict::Dead { error } => (Status::Killed, Err(error.clone())),
            };
            TaskResult {
                task_id: ended.id.clone(),
                attempt: ended.attempt,
                status,
                result,
            }
        })
        .collect()
}

/// The retries among them, by id, in seconds.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn delays(ended: &[Ended]) -> Vec<(String, f64)> {
    ended
        .iter()
        .filter_map(|ended| match ended.verdict {
            Verdict::Again { after, .. } => Some((ended.id.to_string(), after.as_secs_f64())),
            _ => None,
        })
        .collect()
}
