//! Deferring from outside the request's own task: a spawned task, a blocking closure, and one that comes late.
//!
//! Run it with `cargo run --example subtasks`.

use std::{
    error::Error,
    sync::mpsc::{self, Sender},
    time::Duration,
};

use after::Handle;
use tokio::task::{JoinError, spawn_blocking};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (log, logged) = mpsc::channel();
    let runner = after::Runner::global();

    let request = after::scope(request(log.clone())).failed_if(Result::is_err);
    let handle = request.await?;
    runner.drain().await;
    println!("the tasks of the request have ended");

    // A callback that comes in later, say. There is no batch to join any more, so this is one of its own: it runs at
    // once, and the shutdown waits for it as for any other.
    handle.defer(async move { log.send("late") });

    let report = after::shutdown(Duration::from_secs(5)).await;
    let logged: Vec<_> = logged.try_iter().collect();
    println!("in this order: {}", logged.join(", "));
    println!("{report}");

    assert_eq!(
        logged,
        ["request over", "request", "subtask", "blocking", "late"]
    );
    assert_eq!((report.stats().completed, report.stats().pending), (4, 0));
    Ok(())
}

async fn request(log: Sender<&'static str>) -> Result<Handle, JoinError> {
    // A spawned task is no part of the request, so `after::defer` would panic there. The handle takes the scope along.
    let handle = after::handle();
    defer_entry("request", &log);

    let subtask = log.clone();
    tokio::spawn(handle.scope(async move {
        assert!(after::in_scope());
        defer_entry("subtask", &subtask);
    }))
    .await?;

    let (in_scope, blocking) = (handle.clone(), log.clone());
    spawn_blocking(move || in_scope.sync_scope(|| defer_entry("blocking", &blocking))).await?;

    // Wherever they were deferred, none has begun: the request was not over.
    let _ = log.send("request over");
    Ok(handle)
}

/// Any code below a scope may defer, without knowing whether it runs in the request or in a part of it.
fn defer_entry(entry: &'static str, log: &Sender<&'static str>) {
    let log = log.clone();
    after::task(entry).defer(async move { log.send(entry) });
}
