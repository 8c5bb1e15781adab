//! The shop: a server, and a worker that may be in the same process.

use std::{error::Error, time::Duration};

use after::tower::AfterLayer;
use after_apalis::{Job, Jobs, Running, Worker};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

type BoxError = Box<dyn Error + Send + Sync>;

const LIMIT: Duration = Duration::from_secs(10);

/// Must come, whatever happens to this process.
#[derive(Serialize, Deserialize)]
struct Receipt {
    order: i64,
}

impl Job for Receipt {
    const NAME: &'static str = "receipt";
}

/// The order and its receipt: both, or neither.
async fn order(State(jobs): State<Jobs>, Path(number): Path<i64>) -> (StatusCode, String) {
    match take(&jobs, number).await {
        Ok(()) => {
            // May be lost, so it is only deferred.
            after::task("statistics")
                .defer(async move { println!("shop    counted order {number}") });
            (StatusCode::CREATED, format!("order {number}\n"))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn take(jobs: &Jobs, number: i64) -> Result<(), BoxError> {
    const INSERT: &str = "INSERT INTO orders (number) VALUES ($1)";
    let receipt = Receipt { order: number };
    // The same four lines: a transaction's type is its database's.
    if let Some(pool) = jobs.sqlite() {
        let mut tx = pool.begin().await?;
        sqlx::query(INSERT).bind(number).execute(&mut *tx).await?;
        jobs.enqueue(&mut *tx, receipt).await?;
        tx.commit().await?;
    } else if let Some(pool) = jobs.postgres() {
        let mut tx = pool.begin().await?;
        sqlx::query(INSERT).bind(number).execute(&mut *tx).await?;
        jobs.enqueue(&mut *tx, receipt).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// A job may run twice. What it does is recorded under its id, in the transaction that does it: the second time is a
/// no-op. For what is not in the database (a mail, a payment) pass the id on as an idempotency key.
async fn send(jobs: Jobs, receipt: Receipt) -> Result<(), BoxError> {
    let running = after::context::get::<Running>().expect("in a job");
    println!(
        "worker  sends the receipt of order {}, attempt {}",
        receipt.order, running.attempt
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    if running.attempt == 1 && std::env::var_os("DURABLE_KILL").is_some() {
        println!("worker  is killed in the middle of it");
        kill_this_process();
    }
    const INSERT: &str =
        "INSERT INTO receipts (job, number) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let id = running.id.to_string();
    if let Some(pool) = jobs.sqlite() {
        sqlx::query(INSERT)
            .bind(id)
            .bind(receipt.order)
            .execute(pool)
            .await?;
    } else if let Some(pool) = jobs.postgres() {
        sqlx::query(INSERT)
            .bind(id)
            .bind(receipt.order)
            .execute(pool)
            .await?;
    }
    println!("worker  has sent the receipt of order {}", receipt.order);
    Ok(())
}

pub(crate) async fn connect(url: &str) -> Result<Jobs, BoxError> {
    let jobs = Jobs::connect(url).await?;
    for table in [
        "CREATE TABLE IF NOT EXISTS orders (number BIGINT PRIMARY KEY)",
        "CREATE TABLE IF NOT EXISTS receipts (job TEXT PRIMARY KEY, number BIGINT)",
    ] {
        if let Some(pool) = jobs.sqlite() {
            sqlx::query(table).execute(pool).await?;
        } else if let Some(pool) = jobs.postgres() {
            sqlx::query(table).execute(pool).await?;
        }
    }
    Ok(jobs)
}

async fn start(jobs: &Jobs) -> Result<Worker, BoxError> {
    let shop = jobs.clone();
    Ok(jobs
        .worker()
        // So that one need not wait: the default is 5 seconds, of which 3 may be missed.
        .heartbeat(Duration::from_secs(1), 3)
        .handle(move |receipt: Receipt| send(shop.clone(), receipt))
        .start()
        .await?)
}

/// The server; with a worker beside it on SQLite, where one process is all there is.
pub(crate) async fn serve(url: &str, port: &str) -> Result<(), BoxError> {
    let jobs = connect(url).await?;
    let worker = match jobs.sqlite() {
        Some(_) => Some(start(&jobs).await?),
        None => None,
    };
    let app = Router::new()
        .route("/orders/{number}", post(order))
        .with_state(jobs)
        .layer(AfterLayer::new());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(terminated())
        .await?;
    shutdown(worker).await;
    Ok(())
}

/// A worker alone: as many as one likes, on as many machines.
pub(crate) async fn work(url: &str) -> Result<(), BoxError> {
    let jobs = connect(url).await?;
    let worker = start(&jobs).await?;
    terminated().await;
    shutdown(Some(worker)).await;
    Ok(())
}

/// One shutdown for all: the server has ended, so nothing new is deferred; then what it has deferred (which may still
/// enqueue); then the worker, which gives back what it can't finish.
async fn shutdown(worker: Option<Worker>) {
    let report = after::shutdown(LIMIT).await;
    if !report.is_clean() {
        eprintln!("{report}");
    }
    if let Some(worker) = worker {
        let report = worker.shutdown(LIMIT).await;
        println!("worker  stops: {report}");
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut term) => {
            term.recv().await;
        }
        Err(error) => eprintln!("no signals: {error}"),
    }
}

#[cfg(not(unix))]
async fn terminated() {
    let _ = tokio::signal::ctrl_c().await;
}

/// Nothing is dropped, nothing is flushed, nothing is said to the database.
fn kill_this_process() -> ! {
    #[cfg(unix)]
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    std::process::abort()
}
