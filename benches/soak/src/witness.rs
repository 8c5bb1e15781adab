//! SQLite as the witness: what the tasks say of themselves, kept apart from the account that is to be checked.

use std::{env, fs, io, path::PathBuf, process, thread, time::Duration};

use rusqlite::{CachedStatement, Connection, params};
use tokio::sync::{mpsc, oneshot};

use crate::{
    AnyError,
    kind::{KINDS, Kind},
};

/// What somebody has seen.
pub(crate) enum Row {
    /// A task, in its first poll.
    Started { task: u64, request: u64, kind: Kind },
    /// A task, in its last.
    Completed { task: u64 },
    /// A client, that has read the whole answer to this request.
    Answered { request: u64 },
    /// Answers when everything before it is committed.
    Flush(oneshot::Sender<()>),
    /// Nobody has anything more to say.
    End,
}

/// Rows that may be under way before those who bring more have to wait.
const UNDER_WAY: usize = 16_384;
/// Rows of one transaction at the most.
const TRANSACTION: usize = 4_096;

pub(crate) struct Witness {
    rows: mpsc::Sender<Row>,
    writer: thread::JoinHandle<Result<Connection, rusqlite::Error>>,
    path: PathBuf,
}

/// The rows of one kind.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rows {
    pub(crate) started: u64,
    pub(crate) completed: u64,
}

/// What the rows say when all is over.
pub(crate) struct Testimony {
    pub(crate) rows: [Rows; KINDS],
    pub(crate) answered: u64,
    /// Completed, and never started.
    pub(crate) completed_unstarted: u64,
    /// Requests that were answered in full, and whose audit has not started.
    pub(crate) answered_unaudited: u64,
}

impl Witness {
    pub(crate) fn open() -> Result<Witness, AnyError> {
        let path = env::temp_dir().join(format!("after-soak-{}.sqlite", process::id()));
        // Of an earlier process with the same number.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = Connection::open(&path)?;
        // The primary keys make a task that runs twice an error. Durability is not what is tested here.
        database.execute_batch(
            "PRAGMA journal_mode = OFF;
             PRAGMA synchronous = OFF;
             CREATE TABLE started (task INTEGER PRIMARY KEY, request INTEGER NOT NULL, kind INTEGER NOT NULL);
             CREATE TABLE completed (task INTEGER PRIMARY KEY);
             CREATE TABLE answered (request INTEGER PRIMARY KEY);",
        )?;
        let (rows, received) = mpsc::channel(UNDER_WAY);
        let writer = thread::spawn(move || write(database, received));
        Ok(Witness { rows, writer, path })
    }

    pub(crate) fn rows(&self) -> mpsc::Sender<Row> {
        self.rows.clone()
    }

    /// Waits until all rows that were sent before are written.
    pub(crate) async fn flush(&self) -> Result<(), AnyError> {
        let (written, when_written) = oneshot::channel();
        let sent = self.rows.send(Row::Flush(written)).await;
        sent.map_err(|_| "the witness has stopped writing")?;
        when_written.await?;
        Ok(())
    }

    /// Ends the writer, which has ended by itself if a row was refused, and reads what it has written.
    pub(crate) fn testify(self) -> Result<Testimony, AnyError> {
        // Refused if the writer has ended.
        let _ = self.rows.blocking_send(Row::End);
        let written = self.writer.join();
        let database = written.map_err(|_| "the witness panicked")??;
        let testimony = read(&database)?;
        drop(database);
        fs::remove_file(self.path)?;
        Ok(testimony)
    }
}

fn write(
    database: Connection,
    mut received: mpsc::Receiver<Row>,
) -> Result<Connection, rusqlite::Error> {
    let mut rows = Vec::with_capacity(TRANSACTION);
    let mut flushed = Vec::new();
    let mut ended = false;
    while !ended && received.blocking_recv_many(&mut rows, TRANSACTION) > 0 {
        let transaction = database.unchecked_transaction()?;
        {
            let prepare = |sql| database.prepare_cached(sql);
            let mut started = prepare("INSERT INTO started VALUES (?, ?, ?)")?;
            let mut completed = prepare("INSERT INTO completed VALUES (?)")?;
            let mut answered = prepare("INSERT INTO answered VALUES (?)")?;
            for row in rows.drain(..) {
                match row {
                    Row::Started {
                        task,
                        request,
                        kind,
                    } => insert(&mut started, params![task, request, kind as usize])?,
                    Row::Completed { task } => insert(&mut completed, params![task])?,
                    Row::Answered { request } => insert(&mut answered, params![request])?,
                    Row::Flush(written) => flushed.push(written),
                    Row::End => ended = true,
                }
            }
        }
        transaction.commit()?;
        for written in flushed.drain(..) {
            // Who has asked may have given up.
            let _ = written.send(());
        }
        // A pause makes the next transaction a larger one.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(database)
}

fn insert(
    statement: &mut CachedStatement<'_>,
    row: impl rusqlite::Params,
) -> Result<(), rusqlite::Error> {
    statement.execute(row).map(drop)
}

fn read(database: &Connection) -> Result<Testimony, rusqlite::Error> {
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, u64>(0));
    let mut rows = [Rows::default(); KINDS];
    for (index, rows) in rows.iter_mut().enumerate() {
        rows.started = count(&format!(
            "SELECT count(*) FROM started WHERE kind = {index}"
        ))?;
        rows.completed = count(&format!(
            "SELECT count(*) FROM completed JOIN started USING (task) WHERE kind = {index}"
        ))?;
    }
    let audit = Kind::Audit as usize;
    Ok(Testimony {
        rows,
        answered: count("SELECT count(*) FROM answered")?,
        completed_unstarted: count(
            "SELECT count(*) FROM (SELECT task FROM completed EXCEPT SELECT task FROM started)",
        )?,
        answered_unaudited: count(&format!(
            "SELECT count(*) FROM (SELECT request FROM answered
             EXCEPT SELECT request FROM started WHERE kind = {audit})"
        ))?,
    })
}
