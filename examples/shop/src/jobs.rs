//! What must survive the process: jobs in the database, the worker that does them, and what the page shows of them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use after::BoxError;
use after_apalis::Worker;
use serde::Serialize;
use sqlx::SqlitePool;

use crate::{
    app::App,
    patterns::webhook::{self, Webhook},
};

/// The ids of those that an earlier process has left.
pub(crate) async fn left(pool: &SqlitePool) -> sqlx::Result<HashSet<String>> {
    let query = "SELECT id FROM Jobs WHERE status NOT IN ('Done', 'Killed')";
    let left = sqlx::query_scalar(query).fetch_all(pool).await?;
    Ok(left.into_iter().collect())
}

pub(crate) async fn start(app: Arc<App>) -> Result<Worker, BoxError> {
    let worker = app
        .jobs
        .worker()
        // Nobody wants to watch the page for as long as the defaults take: 5 seconds, of which 3 may be missed, and 1 s.
        .heartbeat(Duration::from_secs(1), 3)
        .poll(Duration::from_millis(100));
    let worker = worker.handle(move |job: Webhook| {
        let app = app.clone();
        async move { webhook::deliver(&app, &job).await }
    });
    Ok(worker.start().await?)
}

/// A job, as the page shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shown {
    name: String,
    /// As it was enqueued.
    payload: String,
    /// apalis' own word: `Pending`, `Running`, `Failed` and to be tried again, `Done`, `Killed`.
    state: String,
    /// How many have ended.
    attempts: i64,
    /// Whether an earlier process has left it, and so it survived that.
    left: bool,
}

/// The newest ones.
pub(crate) async fn shown(app: &App) -> Vec<Shown> {
    let query = "SELECT id, job_type, CAST(job AS TEXT), status, attempts FROM Jobs ORDER BY id DESC LIMIT 6";
    let rows = sqlx::query_as::<_, (String, String, String, String, i64)>(query);
    // A database that is away is reported by whoever needs it.
    let rows = rows.fetch_all(&app.pool).await.unwrap_or_default();
    let shown = rows
        .into_iter()
        .map(|(id, name, payload, state, attempts)| Shown {
            left: app.left.contains(&id),
            name,
            payload,
            state,
            attempts,
        });
    shown.collect()
}
