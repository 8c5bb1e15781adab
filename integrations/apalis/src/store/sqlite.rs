use std::{convert::Infallible, str::FromStr, time::Duration};

use apalis_core::task::Task;
use apalis_sqlite::{Config, SqliteStorage, queries};
use serde_json::Value;
use sqlx::{
    ConnectOptions, Connection, Row, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use super::{
    Counts, Dead, Ended, LOST_TOO_OFTEN, Recovered, Registration, count, delays, error_of, results,
};
use crate::{
    Error,
    error::chain,
    job::{Enqueued, MAX_ATTEMPTS},
};

/// Between two looks at whether somebody has committed, while a transaction of this process may be about to.
const SOON: Duration = Duration::from_millis(5);
/// Else: what other processes enqueue starts within this time.
const IDLE: Duration = Duration::from_millis(20);
/// How long after an enqueue its commit is expected.
const EXPECTING: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Sqlite {
    pub(crate) pool: SqlitePool,
}

fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| Error::new(format!("SQLite: {what}"), error)
}

impl Sqlite {
    pub(crate) async fn connect(url: &str, limit: Duration) -> Result<Self, Error> {
        let what = || format!("can't open {url}");
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| Error::new(what(), error))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // apalis' own set-up turns it off: then a power cut may take the file along, not only the last jobs.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(limit);
        let pool = SqlitePoolOptions::new()
            .max_connections(8)
            .acquire_timeout(limit)
            .connect_with(options)
            .await
            .map_err(|error| Error::new(what(), error))?;
        Self::new(pool).await
    }

    /// Only the tables: how the user's pool is set up is the user's.
    pub(crate) async fn new(pool: SqlitePool) -> Result<Self, Error> {
        let mut migrations = SqliteStorage::migrations();
        // The table of migrations is the application's too.
        migrations.set_ignore_missing(true);
        let mut tries = 0;
        loop {
            match migrations.run(&pool).await {
                Ok(()) => return Ok(Sqlite { pool }),
                // Another process that starts does the same just now.
                Err(error) if tries < 20 && chain(&error).contains("locked") => tries += 1,
                Err(error) => {
                    return Err(Error::new("SQLite: apalis' tables can't be set up", error));
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A transaction that writes, from its start: it can't fail later because others have written meanwhile.
    async fn immediate(&self) -> Result<Transaction<'static, sqlx::Sqlite>, sqlx::Error> {
        loop {
            match self.pool.begin_with("BEGIN IMMEDIATE").await {
                // SQLite ends a transaction by itself when the disk is full, and sqlx goes on to think that the
                // connection is in it.
                Err(sqlx::Error::InvalidSavePointStatement) => {
                    let mut connection = self.pool.acquire().await?;
                    if connection.is_in_transaction() {
                        connection.close_on_drop();
                        connection.close().await?;
                    }
                }
                begun => return begun,
            }
        }
    }

    pub(crate) async fn push(&self, queue: &str, task: Task<Vec<u8>>) -> Result<Enqueued, Error> {
        let mut connection = self.pool.acquire().await.map_err(failed("no connection"))?;
        insert(&mut connection, queue, task).await
    }

    pub(crate) async fn register(&self, worker: &Registration) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO Workers (id, worker_type, storage_name, layers, last_seen, started_at) \
             VALUES (?1, ?2, 'SqliteStorage', ?3, strftime('%s', 'now'), strftime('%s', 'now')) \
             ON CONFLICT (id) DO UPDATE SET last_seen = excluded.last_seen",
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
        let known = sqlx::query(
            "UPDATE Workers SET last_seen = strftime('%s', 'now') WHERE id IN (SELECT value FROM json_each(?1))",
        )
        .bind(Value::from(workers).to_string())
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
        // Of what apalis has here as time, whole seconds, one may be as good as over when it begins.
        let seconds = dead_for.as_secs() as i64 + 1;
        // Most heartbeats find nothing: no reason to stop the writers.
        let stale: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM Jobs INNER JOIN Workers ON lock_by = Workers.id \
             WHERE status IN ('Running', 'Queued') AND Workers.worker_type = ?1 \
             AND strftime('%s', 'now') - Workers.last_seen >= ?2)",
        )
        .bind(queue)
        .bind(seconds)
        .fetch_one(&self.pool)
        .await
        .map_err(&failed)?;
        if !stale {
            return Ok(Recovered::default());
        }
        let mut tx = self.immediate().await.map_err(&failed)?;
        // apalis' statement gives back whatever a lost worker held, without regard to `max_attempts`: a job that kills
        // its process would do so for ever.
        let dead = sqlx::query(
            "UPDATE Jobs SET status = 'Killed', done_at = strftime('%s', 'now'), attempts = attempts + 1, \
             last_result = json_object('Err', ?3) WHERE id IN ( \
                 SELECT Jobs.id FROM Jobs INNER JOIN Workers ON lock_by = Workers.id \
                 WHERE status IN ('Running', 'Queued') AND attempts + 1 >= max_attempts \
                 AND Workers.worker_type = ?1 AND strftime('%s', 'now') - Workers.last_seen >= ?2)",
        )
        .bind(queue)
        .bind(seconds)
        .bind(LOST_TOO_OFTEN)
        .execute(&mut *tx)
        .await
        .map_err(&failed)?
        .rows_affected();
        let again = queries::reenqueue_orphaned(
            &mut *tx,
            seconds,
            queue,
            &apalis_core::backend::WorkerFilter::None,
        )
        .await
        .map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        Ok(Recovered { again, dead })
    }

    pub(crate) async fn fetch(
        &self,
        worker: &Registration,
        most: usize,
    ) -> Result<Vec<Task<Vec<u8>>>, Error> {
        let failed = failed("jobs can't be fetched");
        // Whoever has nothing to fetch doesn't stop the writers.
        let due: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM Jobs WHERE job_type = ?1 \
             AND (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)) \
             AND run_at <= strftime('%s', 'now') + 0)",
        )
        .bind(worker.queue)
        .fetch_one(&self.pool)
        .await
        .map_err(&failed)?;
        if !due {
            return Ok(Vec::new());
        }
        let config = Config::default().queue(worker.queue).batch_size(most);
        let mut tx = self.immediate().await.map_err(&failed)?;
        let tasks = queries::fetch_next(&mut *tx, &config, &worker.context)
            .await
            .map_err(|error| Error::new("SQLite: jobs can't be fetched", error))?;
        // They start at once, so they are `Running` at once.
        let ids: Vec<String> = tasks
            .iter()
            .filter_map(|task| task.task_id().map(ToString::to_string))
            .collect();
        queries::lock_tasks(&mut *tx, &ids, worker.worker())
            .await
            .map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        Ok(tasks)
    }

    pub(crate) async fn finish(
        &self,
        worker: &Registration,
        ended: &[Ended],
    ) -> Result<u64, Error> {
        let failed = failed("results can't be recorded");
        let results = results(ended);
        let results: Vec<_> = results.iter().collect();
        let mut tx = self.immediate().await.map_err(&failed)?;
        let recorded = queries::ack_tasks(&mut *tx, &results, worker.worker())
            .await
            .map_err(&failed)?;
        // apalis' statement leaves `run_at`, so that a failed job is due again at once.
        for (id, seconds) in delays(ended) {
            sqlx::query(
                "UPDATE Jobs SET run_at = strftime('%s', 'now') + ?1 \
                 WHERE id = ?2 AND lock_by = ?3 AND status = 'Failed'",
            )
            // apalis' clock has whole seconds here.
            .bind(seconds.ceil() as i64)
            .bind(id)
            .bind(worker.worker())
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)?;
        Ok(recorded)
    }

    pub(crate) async fn give_back(
        &self,
        worker: &Registration,
        but: &[String],
    ) -> Result<u64, Error> {
        let given = sqlx::query(
            "UPDATE Jobs SET status = 'Pending', lock_by = NULL, lock_at = NULL \
             WHERE lock_by = ?1 AND status IN ('Running', 'Queued') \
             AND id NOT IN (SELECT value FROM json_each(?2))",
        )
        .bind(worker.worker())
        .bind(Value::from(but.to_vec()).to_string())
        .execute(&self.pool)
        .await
        .map_err(failed("jobs can't be given back"))?;
        Ok(given.rows_affected())
    }

    pub(crate) async fn leave(&self, worker: &Registration) -> Result<(), Error> {
        let failed = failed("a worker can't be signed off");
        // Jobs that are done still name it.
        sqlx::query("UPDATE Workers SET last_seen = 0 WHERE id = ?1")
            .bind(worker.worker())
            .execute(&self.pool)
            .await
            .map_err(&failed)?;
        sqlx::query(
            "DELETE FROM Workers WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM Jobs WHERE lock_by = ?1)",
        )
        .bind(worker.worker())
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        Ok(())
    }

    /// SQLite tells nobody of a commit. But a connection can ask, without touching the file, whether others have
    /// committed since it asked last.
    pub(crate) async fn listen(
        &self,
        _: &[&'static str],
        mut enqueued: tokio::sync::watch::Receiver<u64>,
        wake: &(dyn Fn(Option<&str>) + Send + Sync),
    ) -> Result<Infallible, Error> {
        let failed = failed("commits can't be followed");
        let options = (*self.pool.connect_options()).clone();
        let mut connection = options.connect().await.map_err(&failed)?;
        let mut last: i64 = -1;
        let mut until = Instant::now();
        loop {
            let version: i64 = sqlx::query_scalar("PRAGMA data_version")
                .fetch_one(&mut connection)
                .await
                .map_err(&failed)?;
            if version != last {
                last = version;
                wake(None);
            }
            if enqueued.has_changed().unwrap_or(false) {
                enqueued.mark_unchanged();
                until = Instant::now() + EXPECTING;
            }
            if Instant::now() < until {
                sleep(SOON).await;
            } else {
                tokio::select! {
                    () = sleep(IDLE) => {}
                    changed = enqueued.changed() => if changed.is_ok() {
                        until = Instant::now() + EXPECTING;
                    } else {
                        sleep(IDLE).await;
                    }
                }
            }
        }
    }

    pub(crate) async fn without_handler(
        &self,
        waited: Duration,
        alive: Duration,
    ) -> Result<Vec<(String, u64)>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT job_type, count(*) FROM Jobs \
             WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)) \
             AND run_at <= strftime('%s', 'now') - ?1 \
             AND NOT EXISTS (SELECT 1 FROM Workers \
                 WHERE worker_type = job_type AND last_seen > strftime('%s', 'now') - ?2) \
             GROUP BY job_type ORDER BY job_type",
        )
        .bind(waited.as_secs() as i64)
        .bind(alive.as_secs() as i64)
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
             FROM Jobs WHERE job_type = ?1",
        )
        .bind(queue)
        .fetch_one(&self.pool)
        .await
        .map_err(failed("jobs can't be counted"))?;
        Ok(Counts::of(counts))
    }

    pub(crate) async fn dead(&self, queue: &str, most: u32) -> Result<Vec<Dead>, Error> {
        let rows = sqlx::query(
            "SELECT id, attempts, last_result FROM Jobs WHERE job_type = ?1 \
             AND (status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts)) \
             ORDER BY done_at DESC LIMIT ?2",
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
                attempts: row.get::<i64, _>(1).max(0) as usize,
                error: error_of(
                    row.get::<Option<String>, _>(2)
                        .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
                ),
            })
            .collect())
    }

    pub(crate) async fn retry(&self, queue: &str, id: &str) -> Result<bool, Error> {
        let retried = sqlx::query(
            "UPDATE Jobs SET status = 'Pending', attempts = 0, run_at = strftime('%s', 'now') + 0, \
             done_at = NULL, lock_by = NULL, lock_at = NULL WHERE job_type = ?1 AND id = ?2 \
             AND (status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts))",
        )
        .bind(queue)
        .bind(id)
        .execute(&self.pool)
        .await
        .map_err(failed("a dead letter can't be retried"))?;
        Ok(retried.rows_affected() > 0)
    }

    pub(crate) async fn remove_done(&self, queue: &str, older: Duration) -> Result<u64, Error> {
        let failed = failed("what is done can't be removed");
        let removed = sqlx::query(
            "DELETE FROM Jobs WHERE job_type = ?1 AND status = 'Done' \
             AND done_at + 0 <= strftime('%s', 'now') - ?2",
        )
        .bind(queue)
        .bind(older.as_secs() as i64)
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        // Each start of a worker has left a row.
        sqlx::query(
            "DELETE FROM Workers WHERE worker_type = ?1 AND last_seen < strftime('%s', 'now') - 86400 \
             AND NOT EXISTS (SELECT 1 FROM Jobs WHERE lock_by = Workers.id)",
        )
        .bind(queue)
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        Ok(removed.rows_affected())
    }
}

/// As apalis' own, but that it says whether the key was there, or the id: a push that is tried again.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    queue: &str,
    task: Task<Vec<u8>>,
) -> Result<Enqueued, Error> {
    let wrong = |error| Error::new(format!("SQLite: a job `{queue}` can't be enqueued"), error);
    let (payload, ctx) = task.take();
    let id = ctx.task_id().expect("given an id when it was made").clone();
    let metadata = serde_json::to_string(ctx.metadata()).unwrap_or_default();
    let inserted = sqlx::query(
        "INSERT INTO Jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata, \
         idempotency_key) VALUES (?1, ?2, ?3, 'Pending', 0, ?4, coalesce(?5, strftime('%s', 'now') + 0), ?6, ?7, ?8) \
         ON CONFLICT DO NOTHING",
    )
    .bind(id.to_string())
    .bind(queue)
    .bind(payload)
    .bind(ctx.max_attempts().unwrap_or(MAX_ATTEMPTS) as i64)
    .bind(ctx.run_at().map(|at| at as i64))
    .bind(ctx.priority().unwrap_or_default() as i64)
    .bind(metadata)
    .bind(ctx.idempotency_key())
    .execute(connection)
    .await
    .map_err(wrong)?;
    Ok(if inserted.rows_affected() == 0 {
        Enqueued::AlreadyThere
    } else {
        Enqueued::New(id)
    })
}
