//! The program of `docs/production.md`, word for word: a Runner with limits, timeouts and observation, and a stop within
//! limits.
//!
//! Run it with `cargo run --example production`, ask it with `curl http://127.0.0.1:8080`, and stop it with SIGTERM.
//! `ADDRESS=127.0.0.1:0` takes any free port. Unix only, because it waits for SIGTERM.

use std::{env, error::Error, process, time::Duration};

use after::{Observer, Overflow, Runner, TaskFinished, tower::AfterLayer};
use axum::{Router, routing::get};
#[cfg(unix)]
use tokio::signal::unix::{SignalKind, signal};
use tokio::{net::TcpListener, select, time::sleep};

/// For the last requests, and again for the tasks that they leave behind.
const LIMIT: Duration = Duration::from_secs(10);

/// Logs tasks that have blocked a thread of the runtime for more than 10 ms.
struct LongPolls;

impl Observer for LongPolls {
    fn finished(&self, event: &TaskFinished<'_>) {
        if event.longest_poll > Duration::from_millis(10) {
            println!("`{}` blocked for {:?}", event.task.name, event.longest_poll);
        }
    }
}

async fn handler() -> &'static str {
    after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
    after::task("receipt")
        .on_success()
        .timeout(Duration::from_secs(5))
        .defer(async { println!("receipt") });
    "hello\n"
}

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    Runner::builder()
        .task_timeout(Duration::from_secs(30)) // of each task, from its first poll
        .scope_timeout(Duration::from_secs(120)) // of all tasks of a request
        .max_running(64) // tasks, over all requests
        .max_waiting(1_000) // tasks, over all requests; beyond that:
        .overflow(Overflow::Backpressure) // responses wait. `Shed`: tasks are dropped
        .observer(LongPolls)
        .on_defer(after::tracing::in_current_span)
        .build()
        .install()?;

    let mut terminate = signal(SignalKind::terminate())?;
    let app = Router::new()
        .route("/", get(handler))
        .layer(AfterLayer::new());
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);

    // After `install`, because `stopping` belongs to the global Runner.
    let server = axum::serve(listener, app).with_graceful_shutdown(after::stopping());
    let stop = async {
        terminate.recv().await;
        after::stop(); // 1. the server, and streams that await `stopping`, end
        sleep(LIMIT).await; // 2. but no client holds the process
    };
    select! {
        ended = server.into_future() => ended?,
        () = stop => println!("some connections are still open"),
    }
    let report = after::shutdown(LIMIT).await; // 3. waits for the tasks
    println!("{report}"); // names what is unfinished
    process::exit(if report.is_clean() { 0 } else { 2 }) // 4. even if a thread is stuck
}

#[cfg(not(unix))]
fn main() {}
