//! SQLite: one connection, used from the pool of blocking threads.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::Connection;
use tokio::task::{JoinError, spawn_blocking};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Database {
    connection: Arc<Mutex<Connection>>,
}

impl Database {
    /// Opens the file, or makes it, with something to play with in it.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Database> {
        let connection = Connection::open(path)?;
        connection.execute_batch(include_str!("schema.sql"))?;
        Ok(Database {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// Runs `query` on a thread that may block. It runs to its end, also if nobody waits for that any more.
    pub(crate) async fn call<T, F>(&self, query: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let database = self.clone();
        let called = spawn_blocking(move || database.call_blocking(query)).await;
        called.map_err(DatabaseError::Stopped)?
    }

    /// The same where blocking is fine: in `defer_blocking`.
    pub(crate) fn call_blocking<T, F>(&self, query: F) -> Result<T, DatabaseError>
    where
        F: FnOnce(&mut Connection) -> rusqlite::Result<T>,
    {
        query(&mut self.lock()).map_err(DatabaseError::Query)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A query that panicked has left no transaction behind: dropping one rolls it back.
        let locked = self.connection.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) enum DatabaseError {
    Query(rusqlite::Error),
    /// The query panicked, or the runtime is gone.
    Stopped(JoinError),
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseError::Query(error) => write!(f, "the database: {error}"),
            DatabaseError::Stopped(error) => write!(f, "the database: {error}"),
        }
    }
}

impl std::error::Error for DatabaseError {}
