use std::{convert::Infallible, str::FromStr, time::Duration};

use apalis_core::task::{Task, builder::TaskBuilder, metadata::MetadataStore, task_id::TaskId};
use apalis_postgres::{PostgresStorage, queries};
use sqlx::{
    ConnectOptions, PgPool, Row,
    postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions, types::PgHstore},
};

use super::{
    Counts, Dead, Ended, LOST_TOO_OFTEN, Recovered, Registration, count, delays, error_of, results,
};
use crate::{
    Error,
    error::without_password,
    job::{Enqueued, MAX_ATTEMPTS},
};

/// Of apalis' trigger on its table of jobs.
const CHANNEL: &str = "apalis::job::insert";

#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) pool: PgPool,
}

fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| Error::new(format!("Postgres: {what}"), error)
}

impl Postgres {
    pub(crate) async fn connect(url: &str, limit: Duration) -> Result<Self, Error> {
        let what = || format!("can't connect to {}", without_password(url));
        let options = PgConnectOptions::from_str(url).map_err(|error| Error::new(what(), error))?;
        // One by hand first: a pool says only that its time is over, not why.
        match tokio::time::timeout(limit, options.connect()).await {
            Ok(Ok(connection)) => drop(connection),
            Ok(Err(error)) => return Err(Error::new(what(), error)),
            Err(_) => {
                return Err(Error::new(what(), format!("no answer within {limit:?}")));
            }
        }
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(limit)
            .connect_lazy_with(options);
        Self::new(pool).await
    }

    pub(crate) async fn new(pool: PgPool) -> Result<Self, Error> {
        PostgresStorage::setup(&pool)
            .await
            .map_err(|error| Error::new("Postgres: apalis' tables can't be set up", error))?;
        Ok(Postgres { pool })
    }

    pub(crate) async fn push(&self, queue: &str, task: Task<Vec<u8>>) -> Result<Enqueued, Error> {
        let mut connection = self.pool.acquire().await.map_err(failed("no connection"))?;
        insert(&mut connection, queue, task).await
    }

    pub(crate) async fn register(&self, worker: &Registration) -> Result<(), Error> {
        // By the database's clock, like everything else here: apalis' own registration goes by the client's.
        sqlx::query(
            "INSERT INTO apalis.workers (id, worker_type, storage_name, layers, last_seen) \
             VALUES ($1, $2, 'PgStorage', $3, now()) \
             ON CONFLICT (id) DO UPDATE SET last_seen = now()",
        )
        .bind(worker.worker())
        .bind(worker.queue)
        .bind(worker.context.get_service())
        .execute(&self.pool)
        .await
        .map_err(failed("a worker can't be registered"))?;
        Ok(())
    }

    /// How many of them are known.
    pub(crate) async fn heartbeat(&self, workers: &[&str]) -> Result<u64, Error> {
        let known = sqlx::query("UPDATE apalis.workers SET last_seen = now() WHERE id = ANY($1)")
            .bind(workers)
            .execute(&self.pool)
            .await
            .map_err(failed("no heartbeat"))?;
        Ok(known.rows_affected())
    }

    pub(crate) async fn recover(
        &self,
        queue: &str,
        dead_for: Duration,
    ) -> Result<Recovered, Error> {
        let failed = failed("jobs of lost workers can't be taken over");
        let seconds = dead_for.as_secs().max(1);
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        // apalis' statement gives back whatever a lost worker held, without regard to `max_attempts`: a job that kills
        // its process would do so for ever.
        let dead = sqlx::query(
            "WITH stale AS ( \
                 SELECT jobs.id FROM apalis.jobs INNER JOIN apalis.workers ON jobs.lock_by = workers.id \
                 WHERE jobs.status IN ('Running', 'Queued') AND jobs.attempts + 1 >= jobs.max_attempts \
                 AND now() - workers.last_seen >= make_interval(secs => $1) AND workers.worker_type = $2 \
                 FOR UPDATE OF jobs SKIP LOCKED) \
             UPDATE apalis.jobs SET status = 'Killed', done_at = now(), attempts = attempts + 1, \
             last_result = jsonb_build_object('Err', $3::text) FROM stale WHERE apalis.jobs.id = stale.id",
        )
        .bind(seconds as f64)
        .bind(queue)
        .bind(LOST_TOO_OFTEN)
        .execute(&mut *tx)
        .await
        .map_err(&failed)?
        .rows_affected();
        let again = queries::reenqueue_orphaned(&mut *tx, queue, seconds)
            .await
            .map_err(|error| {
                Error::new("Postgres: jobs of lost workers can't be taken over", error)
            })?;
        tx.commit().await.map_err(&failed)?;
        Ok(Recovered { again, dead })
    }

    pub(crate) async fn fetch(
        &self,
        worker: &Registration,
        most: usize,
    ) -> Result<Vec<Task<Vec<u8>>>, Error> {
        // As apalis' function `get_jobs`, but `Running` at once, because they start at once. Its own second statement for
        // that asks only for the id: it takes a job from the worker that has taken it over meanwhile. And its reader fails
        // on an id that is no ULID, when the whole batch is locked.
        let rows = sqlx::query(
            "WITH due AS ( \
                 SELECT id FROM apalis.jobs \
                 WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)) \
                 AND run_at < now() AND job_type = $2 \
                 ORDER BY priority DESC, run_at ASC LIMIT $3 FOR UPDATE SKIP LOCKED) \
             UPDATE apalis.jobs SET status = 'Running', lock_by = $1, lock_at = now() FROM due \
             WHERE jobs.id = due.id \
             RETURNING jobs.id, job, attempts, max_attempts, priority, idempotency_key, metadata",
        )
        .bind(worker.worker())
        .bind(worker.queue)
        .bind(most as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("jobs can't be fetched"))?;
        Ok(rows
            .iter()
            .map(|row| {
                let id: String = row.get(0);
                let id = match ulid::Ulid::from_string(&id) {
                    Ok(id) => TaskId::from_ulid(id),
                    Err(_) => TaskId::from_string(id),
                };
                let metadata = row
                    .get::<Option<PgHstore>, _>(6)
                    .map(|metadata| {
                        metadata
                            .into_iter()
                            .filter_map(|(key, value)| Some((key, value?)))
                            .collect()
                    })
                    .unwrap_or_default();
                let task = TaskBuilder::new(row.get::<Vec<u8>, _>(1))
                    .task_id(id)
                    .attempt(row.get::<i32, _>(2).max(0) as usize)
                    .max_attempts(row.get::<i32, _>(3).max(0) as usize)
                    .priority(row.get::<Option<i32>, _>(4).unwrap_or_default().max(0) as usize)
                    .with_metadata(MetadataStore::from_map(metadata));
                match row.get::<Option<String>, _>(5) {
                    Some(key) => task.idempotency_key(key).build(),
                    None => task.build(),
                }
            })
            .collect())
    }

    pub(crate) async fn finish(
        &self,
        worker: &Registration,
        ended: &[Ended],
    ) -> Result<u64, Error> {
        let failed = failed("results can't be recorded");
        let wrong = |error| Error::new("Postgres: results can't be recorded", error);
        let results = results(ended);
        let results: Vec<_> = results.iter().collect();
        let delays = delays(ended);
        if delays.is_empty() {
            let mut connection = self.pool.acquire().await.map_err(&failed)?;
            return queries::handle_results(&mut *connection, &results, worker.worker())
                .await
                .map_err(wrong);
        }
        // apalis' statement leaves `run_at`, so that a failed job is due again at once.
        let (ids, seconds): (Vec<String>, Vec<f64>) = delays.into_iter().unzip();
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let recorded = queries::handle_results(&mut *tx, &results, worker.worker())
            .await
            .map_err(wrong)?;
        sqlx::query(
            "UPDATE apalis.jobs SET run_at = now() + make_interval(secs => again.seconds) \
             FROM unnest($1::text[], $2::float8[]) AS again (id, seconds) \
             WHERE jobs.id = again.id AND jobs.lock_by = $3 AND jobs.status = 'Failed'",
        )
        .bind(&ids)
        .bind(&seconds)
        .bind(worker.worker())
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        Ok(recorded)
    }

    pub(crate) async fn give_back(
        &self,
        worker: &Registration,
        but: &[String],
    ) -> Result<u64, Error> {
        // The trigger tells only of new rows, so the statement tells of these itself.
        let told = sqlx::query(
            "WITH given AS ( \
                 UPDATE apalis.jobs SET status = 'Pending', lock_by = NULL, lock_at = NULL \
                 WHERE lock_by = $1 AND status IN ('Running', 'Queued') AND NOT id = ANY($3) \
                 RETURNING id, job_type) \
             SELECT pg_notify($2, json_build_object('job_type', job_type, 'id', id)::text) FROM given",
        )
        .bind(worker.worker())
        .bind(CHANNEL)
        .bind(but)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("jobs can't be given back"))?;
        Ok(told.len() as u64)
    }

    pub(crate) async fn leave(&self, worker: &Registration) -> Result<(), Error> {
        // Jobs that are done still name it.
        sqlx::query(
            "WITH gone AS ( \
                 DELETE FROM apalis.workers WHERE id = $1 \
                 AND NOT EXISTS (SELECT FROM apalis.jobs WHERE lock_by = $1) RETURNING id) \
             UPDATE apalis.workers SET last_seen = to_timestamp(0) \
             WHERE id = $1 AND NOT EXISTS (SELECT FROM gone)",
        )
        .bind(worker.worker())
        .execute(&self.pool)
        .await
        .map_err(failed("a worker can't be signed off"))?;
        Ok(())
    }

    pub(crate) async fn listen(
        &self,
        _: &[&'static str],
        _: tokio::sync::watch::Receiver<u64>,
        wake: &(dyn Fn(Option<&str>) + Send + Sync),
    ) -> Result<Infallible, Error> {
        #[derive(serde::Deserialize)]
        struct Inserted {
            job_type: String,
        }
        let failed = failed("notifications can't be received");
        // A connection apart: it is held for good, and the pool may be one of few.
        let apart = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with((*self.pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&apart).await.map_err(&failed)?;
        listener.listen(CHANNEL).await.map_err(&failed)?;
        // What came before is not told.
        wake(None);
        loop {
            match listener.try_recv().await.map_err(&failed)? {
                Some(told) => match serde_json::from_str::<Inserted>(told.payload()) {
                    Ok(inserted) => wake(Some(&inserted.job_type)),
                    Err(_) => wake(None),
                },
                // The connection was lost, and what came meanwhile.
                None => wake(None),
            }
        }
    }

    pub(crate) async fn without_handler(
        &self,
        waited: Duration,
        alive: Duration,
    ) -> Result<Vec<(String, u64)>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT job_type, count(*) FROM apalis.jobs \
             WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)) \
             AND run_at < now() - make_interval(secs => $1) \
             AND NOT EXISTS (SELECT FROM apalis.workers \
                 WHERE worker_type = job_type AND last_seen > now() - make_interval(secs => $2)) \
             GROUP BY job_type ORDER BY job_type",
        )
        .bind(waited.as_secs_f64())
        .bind(alive.as_secs_f64())
        .fetch_all(&self.pool)
        .await
        .map_err(failed("waiting jobs can't be counted"))?;
        let waiting = rows.into_iter();
        Ok(waiting.map(|(name, rows)| (name, count(rows))).collect())
    }

    pub(crate) async fn counts(&self, queue: &str) -> Result<Counts, Error> {
        let counts = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)), \
             count(*) FILTER (WHERE status IN ('Running', 'Queued')), \
             count(*) FILTER (WHERE status = 'Done'), \
             count(*) FILTER (WHERE status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts)) \
             FROM apalis.jobs WHERE job_type = $1",
        )
        .bind(queue)
        .fetch_one(&self.pool)
        .await
        .map_err(failed("jobs can't be counted"))?;
        Ok(Counts::of(counts))
    }

    pub(crate) async fn dead(&self, queue: &str, most: u32) -> Result<Vec<Dead>, Error> {
        let rows = sqlx::query(
            "SELECT id, attempts, last_result FROM apalis.jobs WHERE job_type = $1 \
             AND (status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts)) \
             ORDER BY done_at DESC LIMIT $2",
        )
        .bind(queue)
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("dead letters can't be read"))?;
        Ok(rows
            .iter()
            .map(|row| Dead {
                id: row.get(0),
                attempts: row.get::<i32, _>(1).max(0) as usize,
                error: error_of(row.get(2)),
            })
            .collect())
    }

    pub(crate) async fn retry(&self, queue: &str, id: &str) -> Result<bool, Error> {
        let retried = sqlx::query(
            "WITH again AS ( \
                 UPDATE apalis.jobs SET status = 'Pending', attempts = 0, run_at = now(), done_at = NULL, \
                 lock_by = NULL, lock_at = NULL WHERE job_type = $1 AND id = $2 \
                 AND (status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts)) RETURNING id) \
             SELECT pg_notify($3, json_build_object('job_type', $1, 'id', id)::text) FROM again",
        )
        .bind(queue)
        .bind(id)
        .bind(CHANNEL)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("a dead letter can't be retried"))?;
        Ok(!retried.is_empty())
    }

    pub(crate) async fn remove_done(&self, queue: &str, older: Duration) -> Result<u64, Error> {
        let failed = failed("what is done can't be removed");
        let removed = sqlx::query(
            "DELETE FROM apalis.jobs WHERE job_type = $1 AND status = 'Done' \
             AND done_at <= now() - make_interval(secs => $2)",
        )
        .bind(queue)
        .bind(older.as_secs_f64())
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        // Each start of a worker has left a row.
        sqlx::query(
            "DELETE FROM apalis.workers WHERE worker_type = $1 AND last_seen < now() - interval '1 day' \
             AND NOT EXISTS (SELECT FROM apalis.jobs WHERE lock_by = workers.id)",
        )
        .bind(queue)
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        Ok(removed.rows_affected())
    }
}

/// As apalis' own, but that a key that exists is an answer: its plain `INSERT` ends in a unique violation, and that in
/// the transaction being aborted.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    queue: &str,
    task: Task<Vec<u8>>,
) -> Result<Enqueued, Error> {
    let (payload, ctx) = task.take();
    let id = ctx.task_id().expect("given an id when it was made").clone();
    let metadata = PgHstore(
        ctx.metadata()
            .clone()
            .into_inner()
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect(),
    );
    let inserted = sqlx::query(
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata, \
         idempotency_key) VALUES ($1, $2, $3, 'Pending', 0, $4, coalesce(to_timestamp($5::float8), now()), $6, $7, $8) \
         ON CONFLICT DO NOTHING",
    )
    .bind(id.to_string())
    .bind(queue)
    .bind(payload)
    .bind(ctx.max_attempts().unwrap_or(MAX_ATTEMPTS) as i32)
    .bind(ctx.run_at().map(|at| at as f64))
    .bind(ctx.priority().unwrap_or_default() as i32)
    .bind(metadata)
    .bind(ctx.idempotency_key())
    .execute(connection)
    .await
    .map_err(|error| Error::new(format!("Postgres: a job `{queue}` can't be enqueued"), error))?;
    Ok(if inserted.rows_affected() == 0 {
        Enqueued::AlreadyThere
    } else {
        Enqueued::New(id)
    })
}
