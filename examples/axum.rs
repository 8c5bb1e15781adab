//! The layer on an axum router: each request is a scope, which ends with its response body.
//!
//! `cargo run --example axum` sends requests to itself and prints what the tasks log. `cargo run --example axum -- --serve`
//! keeps the server up, for you to try with curl. Ctrl-C or SIGTERM stops it: it ends with code 0, or with 2 if deferred tasks
//! were unfinished. The routes of [`stuck`] show the latter.

mod stuck;

use std::{
    convert::Infallible,
    env,
    error::Error,
    io::{self, Read},
    pin::pin,
    process,
    time::Duration,
};

use after::{
    context,
    tower::{AfterLayer, RequestHead, RunAfter},
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::get,
};
use futures::stream::{self, StreamExt};
use tokio::{net::TcpListener, sync::mpsc, task::spawn_blocking, time::timeout};

/// Where the tasks of this example log what they see.
type Audit = mpsc::UnboundedSender<String>;

async fn hello(State(audit): State<Audit>) -> &'static str {
    record(audit);
    "hello\n"
}

/// Fails, and is audited all the same.
async fn purchase(State(audit): State<Audit>, Path(item): Path<String>) -> (StatusCode, String) {
    record(audit);
    (StatusCode::PAYMENT_REQUIRED, format!("no {item} for you\n"))
}

/// A response that goes on until the client disconnects, or the server stops. Each chunk may defer too.
async fn events(State(audit): State<Audit>) -> Body {
    record(audit);
    let chunk = Ok::<_, Infallible>(Bytes::from_static(b"tick\n"));
    let ticks = stream::repeat(chunk).inspect(|_| {
        let count = async { println!("  (the ticks are counted, and logged once)") };
        after::task("count").key("count").defer(count);
    });
    Body::from_stream(ticks.take_until(after::stopping()))
}

/// Goes on forever too, and its audit does not wait for that: `RunAfter::Head` in the response's extensions.
async fn clock(State(audit): State<Audit>) -> impl IntoResponse {
    record(audit);
    let chunk = Ok::<_, Infallible>(Bytes::from_static(b"tock\n"));
    (
        Extension(RunAfter::Head),
        Body::from_stream(stream::repeat(chunk)),
    )
}

/// The audit of a request: what was requested, and how it ended.
fn record(audit: Audit) {
    after::task("audit").defer(async move {
        let request: RequestHead = context::get().ok_or("the layer captures no requests")?;
        let user = request.cookie("user").unwrap_or("nobody");
        let outcome = after::outcome().ok_or("the request has not ended")?;
        audit.send(format!("{} by {user}: {outcome:?}", request.uri().path()))?;
        after::Ok(())
    });
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (audit, mut records) = mpsc::unbounded_channel();
    let app = Router::new()
        .route("/", get(hello))
        .route("/purchase/{item}", get(purchase))
        .route("/events", get(events))
        .route("/clock", get(clock))
        .with_state(audit)
        .merge(stuck::routes())
        // Around everything above.
        .layer(AfterLayer::new().capture_request());

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // `stop`, below, resolves `stopping`: the server ends, and so do the streams that it waits for.
    let server = axum::serve(listener, app).with_graceful_shutdown(after::stopping());
    let server = tokio::spawn(server.into_future());

    if env::args().any(|argument| argument == "--serve") {
        let mut told_to_stop = pin!(told_to_stop()?);
        println!("Serving on http://{address}; stop it with Ctrl-C. In another terminal, try:\n");
        for path in ["", "purchase/tea", "events", "clock"] {
            println!("  curl --cookie user=ann http://{address}/{path}");
        }
        println!();
        loop {
            tokio::select! {
                () = &mut told_to_stop => break,
                record = records.recv() => println!("  audit: {}", record.unwrap_or_default()),
            }
        }
    } else {
        for (path, expected) in [
            ("/", "/ by ann: Finished"),
            ("/purchase/tea", "/purchase/tea by ann: Failed"),
            // The client reads a few ticks and disconnects.
            ("/events", "/events by ann: Cancelled"),
            ("/clock", "/clock by ann: Finished"),
        ] {
            let answer = ask(format!("http://{address}{path}")).await?;
            let record = records.recv().await.ok_or("the server is gone")?;
            println!("asked for {path}, read {answer:?}\n  audit: {record}");
            if record != expected {
                return Err(format!("{record:?} instead of {expected:?}").into());
            }
        }
    }

    after::stop();
    let limit = stuck::limit();
    match timeout(limit, server).await {
        Ok(ended) => ended??,
        Err(_) => println!("connections are still open after {limit:?}"),
    }
    let report = after::shutdown(limit).await;
    println!("{report}");
    let completed = report.is_clean() && report.stats().failed == 0;
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if completed { 0 } else { 2 })
}

/// Resolves at Ctrl-C or SIGTERM. From the call on, these signals no longer end the process themselves.
#[cfg(unix)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(windows)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

/// The first bytes of a response, as a client with a cookie reads it.
async fn ask(url: String) -> Result<String, Box<dyn Error>> {
    let client = spawn_blocking(move || {
        // No proxy, whatever the environment says, and a timeout.
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)));
        let agent = ureq::Agent::new_with_config(config.build());
        let answer = agent.get(&url).header("cookie", "user=ann").call()?;
        let mut text = String::new();
        let mut start = answer.into_body().into_reader().take(20);
        start.read_to_string(&mut text)?;
        Ok::<_, ureq::Error>(text)
    });
    Ok(client.await??)
}
