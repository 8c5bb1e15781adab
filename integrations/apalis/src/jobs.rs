use std::{fmt, sync::Arc, time::Duration};

use after::TaskBuilder;
use apalis_core::task::Task;
use tokio::sync::watch;

use crate::{
    Error, WorkerBuilder,
    error::without_password,
    job::{Enqueued, IntoTask, Job, compact},
    store::{Counts, Dead, Store},
};

/// How long a store may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Where jobs are stored: one database, by its URL. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use after_apalis::Jobs;
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Receipt { order: i64 }
/// # impl after_apalis::Job for Receipt { const NAME: &'static str = "receipt"; }
///
/// let jobs = Jobs::connect("sqlite:shop.db").await?;
///
/// let mut tx = jobs.sqlite().expect("it is SQLite").begin().await?;
/// // .. the order itself ..
/// jobs.enqueue(&mut *tx, Receipt { order: 7 }).await?;
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Jobs {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    /// Counts what this process has enqueued: a worker on SQLite looks out for the commit.
    enqueued: watch::Sender<u64>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("store", &self.store().kind())
            .finish_non_exhaustive()
    }
}

impl Jobs {
    /// Connects, and sets up apalis' tables where they are missing.
    ///
    /// `sqlite:shop.db`, `postgres://user@host/database`, `redis://host`: the driver's own URLs, with its own
    /// parameters. A file of SQLite is created if it is missing, with a write-ahead log and `synchronous = FULL`.
    ///
    /// # Errors
    ///
    /// The URL is of no store whose feature is enabled; nobody answers within 5 seconds; the tables are those of a
    /// version of apalis before 1.0.
    pub async fn connect(url: &str) -> Result<Jobs, Error> {
        let scheme = url.split(':').next().unwrap_or_default();
        let store: Store = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => Store::Sqlite(crate::store::Sqlite::connect(url, LIMIT).await?),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                Store::Postgres(crate::store::Postgres::connect(url, LIMIT).await?)
            }
            #[cfg(feature = "redis")]
            "redis" | "rediss" | "unix" | "redis+unix" => {
                Store::Redis(crate::store::Redis::connect(url, LIMIT).await?)
            }
            _ => {
                return Err(Error::message(format!(
                    "no store for {}: it must begin with `sqlite:`, `postgres:` or `redis:`, and the feature of that \
                     name must be enabled",
                    without_password(url)
                )));
            }
        };
        Ok(Jobs::on(store))
    }

    /// On a pool of yours, as you have set it up.
    ///
    /// # Errors
    ///
    /// apalis' tables can't be set up.
    #[cfg(feature = "sqlite")]
    pub async fn with_sqlite(pool: sqlx::SqlitePool) -> Result<Jobs, Error> {
        Ok(Jobs::on(Store::Sqlite(
            crate::store::Sqlite::new(pool).await?,
        )))
    }

    /// On a pool of yours, as you have set it up. A worker opens one connection more, for notifications.
    ///
    /// # Errors
    ///
    /// apalis' tables can't be set up.
    #[cfg(feature = "postgres")]
    pub async fn with_postgres(pool: sqlx::PgPool) -> Result<Jobs, Error> {
        Ok(Jobs::on(Store::Postgres(
            crate::store::Postgres::new(pool).await?,
        )))
    }

    /// With a client of yours.
    ///
    /// # Errors
    ///
    /// Nobody answers within 5 seconds.
    #[cfg(feature = "redis")]
    pub async fn with_redis(client: redis::Client) -> Result<Jobs, Error> {
        Ok(Jobs::on(Store::Redis(
            crate::store::Redis::new(client, "Redis", LIMIT).await?,
        )))
    }

    fn on(store: Store) -> Jobs {
        Jobs {
            shared: Arc::new(Shared {
                store,
                enqueued: watch::Sender::new(0),
            }),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(crate) fn enqueued(&self) -> watch::Receiver<u64> {
        self.shared.enqueued.subscribe()
    }

    /// The pool, if it is on SQLite: for your transactions, and to look into apalis' tables `Jobs` and `Workers`.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub fn sqlite(&self) -> Option<&sqlx::SqlitePool> {
        match self.store() {
            Store::Sqlite(store) => Some(&store.pool),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// The pool, if it is on Postgres: for your transactions, and to look into apalis' schema `apalis`.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn postgres(&self) -> Option<&sqlx::PgPool> {
        match self.store() {
            Store::Postgres(store) => Some(&store.pool),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// The connection, if it is on Redis.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn redis(&self) -> Option<redis::aio::ConnectionManager> {
        match self.store() {
            Store::Redis(store) => Some(store.connection.clone()),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// Stores the job in a transaction of yours: if that commits, the job runs, at least once; if it rolls back, the job
    /// was never there. A worker starts it some milliseconds after the commit.
    ///
    /// `connection` is `&mut *tx` of a `sqlx::Transaction`, or any connection of sqlx to this database.
    ///
    /// An idempotency key that exists is an answer, [`Enqueued::AlreadyThere`], and leaves the transaction as it was.
    /// (On Postgres, where another transaction that has not ended holds the key, this waits for its end.)
    ///
    /// # Errors
    ///
    /// The database is away, or full, or the job can't be written as JSON. Then let the transaction roll back.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub async fn enqueue<C, J>(
        &self,
        connection: &mut C,
        job: impl IntoTask<J>,
    ) -> Result<Enqueued, Error>
    where
        C: Connection,
        J: Job,
    {
        if self.store().kind() != C::KIND {
            return Err(Error::message(format!(
                "a job `{}` of {} can't be enqueued in a transaction of {}",
                J::NAME,
                self.store().kind(),
                C::KIND
            )));
        }
        let enqueued = connection.insert(J::NAME, compact(job)?).await?;
        self.announce();
        Ok(enqueued)
    }

    /// Stores the job now, on a connection of its own: what there is to do on Redis, and where there is no transaction.
    ///
    /// # Errors
    ///
    /// The store is away, or full, or the job can't be written as JSON. Whether it was stored when an answer was lost,
    /// nobody knows: an idempotency key makes it safe to try again.
    pub async fn push<J: Job>(&self, job: impl IntoTask<J>) -> Result<Enqueued, Error> {
        self.push_compact(J::NAME, compact(job)?).await
    }

    async fn push_compact(&self, name: &str, task: Task<Vec<u8>>) -> Result<Enqueued, Error> {
        let enqueued = self.store().push(name, task).await?;
        self.announce();
        Ok(enqueued)
    }

    fn announce(&self) {
        self.shared
            .enqueued
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Stores the job after the response: the enqueue is a deferred task with the job's name. A crash between the
    /// response and the hand-over, a few milliseconds, loses it: where there is a transaction, [`enqueue`](Jobs::enqueue)
    /// in it. A store that is away is tried again for ten seconds; then the task has failed, and is reported.
    ///
    /// # Panics
    ///
    /// Outside a scope, as [`after::defer`].
    #[track_caller]
    pub fn defer<J: Job>(&self, job: impl IntoTask<J>) {
        self.defer_as(after::task(J::NAME), job);
    }

    /// As [`defer`](Jobs::defer), with a name, a key or a condition of its own:
    /// `jobs.defer_as(after::task("receipt").on_success(), Receipt { order })`.
    ///
    /// # Panics
    ///
    /// Outside a scope, as [`after::defer`].
    #[track_caller]
    pub fn defer_as<J: Job>(&self, task: TaskBuilder, job: impl IntoTask<J>) {
        let jobs = self.clone();
        // Now, while the caller is there to see a panic of its `Serialize`.
        let job = compact(job);
        task.defer(async move {
            let job = job?;
            let mut wait = Duration::from_millis(100);
            loop {
                // With the same id each time: what was stored, though the answer was lost, is not stored twice.
                match jobs.push_compact(J::NAME, job.clone()).await {
                    Ok(_) => return Ok(()),
                    Err(_) if wait < Duration::from_secs(6) => tokio::time::sleep(wait).await,
                    Err(error) => return Err(error),
                }
                wait *= 2;
            }
        });
    }

    /// A worker on this store. It does nothing until it is started.
    pub fn worker(&self) -> WorkerBuilder {
        WorkerBuilder::new(self.clone())
    }

    /// How many jobs of this name there are.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn counts<J: Job>(&self) -> Result<Counts, Error> {
        self.store().counts(J::NAME).await
    }

    /// Jobs that are not tried any more, each with its last error, at most so many.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn dead<J: Job>(&self, most: u32) -> Result<Vec<Dead>, Error> {
        self.store().dead(J::NAME, most).await
    }

    /// Gives a dead letter all of its attempts again. `false`: there is none with this id.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn retry<J: Job>(&self, id: &str) -> Result<bool, Error> {
        self.store().retry(J::NAME, id).await
    }

    /// Removes jobs that were done so long ago, with their idempotency keys. Nothing else ever does: what is done stays,
    /// as with apalis alone.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn remove_done<J: Job>(&self, older: Duration) -> Result<u64, Error> {
        self.store().remove_done(J::NAME, older).await
    }

    /// Names of jobs that have waited for this long though no live worker has a handler of that name, and how many wait:
    /// a name misspelt, or a worker not deployed. They are kept, and run once a worker comes that knows them. Workers
    /// report the same once a minute.
    ///
    /// A worker is taken for alive here that has sent a heartbeat within the last minute.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn without_handler(&self, waited: Duration) -> Result<Vec<(String, u64)>, Error> {
        self.store()
            .without_handler(waited, Duration::from_secs(60))
            .await
    }
}

/// A connection of sqlx that a job can be enqueued on: `SqliteConnection` or `PgConnection`, and so `&mut *tx`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub trait Connection: sealed::Insert + Send {}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sealed {
    use super::{Enqueued, Error, Task};

    pub trait Insert {
        const KIND: &'static str;

        fn insert(
            &mut self,
            queue: &str,
            task: Task<Vec<u8>>,
        ) -> impl Future<Output = Result<Enqueued, Error>> + Send;
    }
}

#[cfg(feature = "sqlite")]
impl Connection for sqlx::SqliteConnection {}
#[cfg(feature = "sqlite")]
impl sealed::Insert for sqlx::SqliteConnection {
    const KIND: &'static str = "SQLite";

    async fn insert(&mut self, queue: &str, task: Task<Vec<u8>>) -> Result<Enqueued, Error> {
        crate::store::sqlite_insert(self, queue, task).await
    }
}

#[cfg(feature = "postgres")]
impl Connection for sqlx::PgConnection {}
#[cfg(feature = "postgres")]
impl sealed::Insert for sqlx::PgConnection {
    const KIND: &'static str = "Postgres";

    async fn insert(&mut self, queue: &str, task: Task<Vec<u8>>) -> Result<Enqueued, Error> {
        crate::store::postgres_insert(self, queue, task).await
    }
}
