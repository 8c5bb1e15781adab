//! A function for the tests: `tests/lambda.rs` runs it under an emulator of the platform that stops its process.
//!
//! `MARGIN_MS` is the layer's, and `FUNCTION` is `buffered`, `streamed`, `layered`, `concurrent` or `events`. What its tasks do they tell the emulator at `MARKS`.

use std::{env, time::Duration};

use after::tower::AfterLayer;
use after_lambda::{AfterLambdaLayer, OutcomeLayer};
use axum::{
    Router,
    body::Body,
    http::{StatusCode, Uri},
    routing::get,
};
use futures_util::{StreamExt, stream};
use lambda_http::{Adapter, StreamAdapter, streaming_runtime_concurrent};
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};
use tower_layer::Layer;

/// Tells the emulator, and waits until it says to go on.
async fn mark(what: impl AsRef<str>) {
    let (told, _) = oneshot::channel();
    mark_and(what, told).await;
}

async fn mark_and(what: impl AsRef<str>, told: oneshot::Sender<()>) {
    let address = env::var("MARKS").expect("MARKS is set");
    let mut emulator = TcpStream::connect(address)
        .await
        .expect("the emulator is there");
    let line = format!("{}\n", what.as_ref());
    emulator.write_all(line.as_bytes()).await.expect("it reads");
    let _ = told.send(());
    emulator.read_u8().await.expect("it says to go on");
}

/// The same work, whoever runs it.
async fn work(begun: oneshot::Sender<()>) {
    mark_and("wait: begun", begun).await;
    // Longer than the way to the next invocation.
    for step in 0..20 {
        mark(format!("step {step}")).await;
    }
    mark("ended").await;
}

fn audit() {
    after::task("audit").defer(async {
        let outcome = after::outcome().expect("in a task");
        mark(format!("audit: {outcome:?}")).await;
    });
    after::task("alarm")
        .on_failure()
        .defer(async { mark("alarm").await });
    after::task("receipt")
        .on_success()
        .defer(async { mark("receipt").await });
}

fn chunks(last: Result<&'static str, std::io::Error>) -> Body {
    audit();
    let first = stream::once(async { Ok("one ") });
    let second = stream::once(async {
        // On a task of the runtime's own, if the answer is streamed.
        after::task("from the body").defer(async { mark("from the body").await });
        Ok("two ")
    });
    Body::from_stream(first.chain(second).chain(stream::once(async { last })))
}

fn app() -> Router {
    routes().layer(OutcomeLayer::new())
}

fn routes() -> Router {
    Router::new()
        .route(
            "/ok",
            get(|| async {
                audit();
                "the answer"
            }),
        )
        .route(
            "/fail",
            get(|| async {
                audit();
                (StatusCode::INTERNAL_SERVER_ERROR, "it went wrong")
            }),
        )
        .route(
            "/panic",
            get(|| async {
                audit();
                if after::in_scope() {
                    panic!("a handler that panics");
                }
            }),
        )
        .route(
            "/after",
            get(|| async {
                after::defer(work(oneshot::channel().0));
                "the answer"
            }),
        )
        .route(
            "/spawn",
            get(|| async {
                let (begun, has_begun) = oneshot::channel();
                tokio::spawn(work(begun));
                has_begun.await.expect("it tells");
                "the answer"
            }),
        )
        .route(
            "/endless",
            get(|| async {
                after::task("quick").defer(async { mark("quick").await });
                after::task("endless").defer(async {
                    mark("begun").await;
                    std::future::pending::<()>().await;
                });
                "the answer"
            }),
        )
        .route(
            "/until-stopped",
            get(|| async {
                after::task("until stopped").defer(async {
                    mark("begun").await;
                    after::stopping().await;
                    mark("stopped").await;
                });
                "the answer"
            }),
        )
        .route("/stream", get(|| async { chunks(Ok("three")) }))
        .route(
            "/broken",
            get(|| async { chunks(Err(std::io::Error::other("the disk is gone"))) }),
        )
        .fallback(|uri: Uri| async move {
            // The path is what the task tells.
            after::defer(async move { mark(&uri.path()[1..]).await });
            "the answer"
        })
}

async fn event(event: LambdaEvent<Value>) -> Result<&'static str, Error> {
    audit();
    match event.payload["do"].as_str() {
        Some("fail") => Err("it went wrong".into()),
        Some("panic") => panic!("a handler that panics"),
        _ => Ok("the answer"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_runtime::spawn_graceful_shutdown_handler(|| async {
        let report = after::shutdown(Duration::from_millis(400)).await;
        println!("{report}");
    })
    .await;
    let layer = match env::var("MARGIN_MS") {
        Ok(margin) => {
            let margin = margin.parse().expect("a number");
            AfterLambdaLayer::new().margin(Duration::from_millis(margin))
        }
        Err(_) => AfterLambdaLayer::new(),
    };
    match env::var("FUNCTION").as_deref() {
        Ok("buffered") => Runtime::new(Adapter::from(app())).layer(layer).run().await,
        Ok("streamed") => {
            Runtime::new(StreamAdapter::from(app()))
                .layer(layer)
                .run()
                .await
        }
        Ok("concurrent") => {
            streaming_runtime_concurrent(app())
                .layer(layer)
                .run_concurrent()
                .await
        }
        // As it serves elsewhere: with scopes of its own inside the invocation's.
        Ok("layered") => {
            let app = routes().layer(AfterLayer::new());
            Runtime::new(StreamAdapter::from(app))
                .layer(layer)
                .run()
                .await
        }
        Ok("events") => {
            let handler = OutcomeLayer::new().layer(service_fn(event));
            Runtime::new(handler).layer(layer).run().await
        }
        other => panic!("FUNCTION is {other:?}"),
    }
}
