//! The first program of the README, word for word: tasks that run after the response, and a stop that loses none.
//!
//! Run it with `cargo run --example checkout`, ask it with `curl -X POST http://127.0.0.1:8080/checkout`, and stop it
//! with Ctrl-C or SIGTERM. `ADDRESS=127.0.0.1:0` takes any free port. Unix only, because it waits for SIGTERM.

use std::{env, io, process, time::Duration};

use after::tower::AfterLayer;
use axum::{Router, routing::post};
#[cfg(unix)]
use tokio::signal::unix::{SignalKind, signal};
use tokio::{net::TcpListener, select, signal::ctrl_c, time::sleep};

async fn checkout() -> &'static str {
    after::task("receipt").on_success().defer(send_receipt());
    after::task("audit").defer(write_audit_log());
    "thanks\n" // the client gets this at once
}

async fn send_receipt() -> io::Result<()> {
    Ok(()) // an `Err` is reported and counted
}

async fn write_audit_log() {}

/// For the last requests, and again for the tasks that they leave behind.
const LIMIT: Duration = Duration::from_secs(10);

#[cfg(unix)]
#[tokio::main]
async fn main() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let app = Router::new()
        .route("/checkout", post(checkout))
        .layer(AfterLayer::new()); // last, so that it is outermost
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let server = axum::serve(listener, app).with_graceful_shutdown(after::stopping());
    let stop = async {
        select! { _ = terminate.recv() => {} _ = ctrl_c() => {} }
        after::stop(); // the server, and streams that await `stopping`, end
        sleep(LIMIT).await; // a client that is stuck must not hold the process
    };
    select! {
        ended = server.into_future() => ended?,
        () = stop => println!("some connections are still open"),
    }
    let report = after::shutdown(LIMIT).await; // waits for the tasks
    println!("{report}");
    process::exit(if report.is_clean() { 0 } else { 2 }) // even if a thread is stuck
}

#[cfg(not(unix))]
fn main() {}
