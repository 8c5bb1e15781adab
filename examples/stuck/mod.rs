//! Routes that could keep a server from stopping, for the examples that serve: `curl` one of them, then stop the example.
//! `tests/shutdown_process.rs` does so.

use std::{convert::Infallible, env, future::ready, thread, time::Duration};

use axum::{Router, body::Body, routing::get};
use futures::stream::{self, StreamExt as _};

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/stuck/closure", get(closure))
        .route("/stuck/task", get(task))
        .route("/stuck/stream", get(stream_without_an_end))
        .route("/stream", get(stream_that_is_told))
}

/// Nothing stops a closure that has begun, and a tokio runtime that is dropped waits for it.
async fn closure() -> &'static str {
    after::task("stuck closure").defer_blocking(|| {
        loop {
            thread::park();
        }
    });
    "deferred\n"
}

/// Dropped with its runtime, or with the process.
async fn task() -> &'static str {
    after::task("stuck task").defer(std::future::pending::<()>());
    "deferred\n"
}

/// A server waits for its responses when it stops.
async fn stream_without_an_end() -> Body {
    after::task("audit").defer(async {});
    let first = stream::once(ready(Ok::<_, Infallible>("open\n")));
    Body::from_stream(first.chain(stream::pending()))
}

/// The same done right: it ends when `after::stop` is called.
async fn stream_that_is_told() -> Body {
    after::task("audit").defer(async {});
    let first = stream::once(ready(Ok::<_, Infallible>("open\n")));
    let stream = first.chain(stream::pending());
    Body::from_stream(stream.take_until(after::stopping()))
}

/// For the server's last requests, and again for their tasks: ten seconds, or what `LIMIT_MS` says.
pub(crate) fn limit() -> Duration {
    let given = env::var("LIMIT_MS").ok();
    let milliseconds = given.and_then(|milliseconds| milliseconds.parse().ok());
    milliseconds.map_or(Duration::from_secs(10), Duration::from_millis)
}
