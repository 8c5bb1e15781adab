//! The layer on an axum router: each request is a scope, and is over when its response body is.
//!
//! Run it with `cargo run --example axum`: it asks itself over HTTP and prints what its tasks say. Or
//! keep the server up and ask it yourself with curl: `cargo run --example axum -- --serve`. Stopped by
//! Ctrl-C or SIGTERM it ends with code 0, or with 2 if deferred tasks were unfinished; ask it for what [`stuck`] has, and
//! stop it then.

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

/// Where the tasks of this example tell what they have seen.
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

/// A response that goes on until its client goes, or the server stops. Each chunk may defer too.
async fn events(State(audit): State<Audit>) -> Body {
    record(audit);
    let chunk = Ok::<_, Infallible>(Bytes::from_static(b"tick\n"));
    let ticks = stream::repeat(chunk).inspect(|_| {
        let count = async { println!("  (so many ticks were counted, and told once)") };
        after::task("count").key("count").defer(count);
    });
    Body::from_stream(ticks.take_until(after::stopping()))
}

/// Goes on for ever too, and its audit does not wait for that: the handler says so in the response's extensions.
async fn clock(State(audit): State<Audit>) -> impl IntoResponse {
    record(audit);
    let chunk = Ok::<_, Infallible>(Bytes::from_static(b"tock\n"));
    (
        Extension(RunAfter::Head),
        Body::from_stream(stream::repeat(chunk)),
    )
}

/// The audit of a request, which knows what was asked and how it has ended.
fn record(audit: Audit) {
    after::task("audit").defer(async move {
        let request: RequestHead = context::get().ok_or("the layer captures no requests")?;
        let user = request.cookie("user").unwrap_or("nobody");
        let outcome = after::outcome().ok_or("the request is not over")?;
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
    // `stop` resolves `stopping`: for the server, and for the streams that it waits for.
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
            // The client reads a few ticks and goes.
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
    // Not by returning: the runtime that is dropped then waits for closures that are stuck, without a limit.
    process::exit(if completed { 0 } else { 2 })
}

/// Resolves at Ctrl-C or SIGTERM. From the call on, these no longer end the process by themselves.
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

/// The first bytes of an answer, as a client with a cookie reads it.
async fn ask(url: String) -> Result<String, Box<dyn Error>> {
    let client = spawn_blocking(move || {
        // Straight to the server, whatever proxy the environment names, and not for ever.
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
