//! An axum router on AWS Lambda whose work after the response is done before the process is frozen.
//!
//! Built with `cargo lambda build --example order`, say. It needs the platform: run by itself it says that its address is
//! missing.

use std::time::Duration;

use after_lambda::{AfterLambdaLayer, OutcomeLayer};
use axum::{Router, routing::get};
use lambda_http::Adapter;
use lambda_runtime::{Error, Runtime, spawn_graceful_shutdown_handler};

async fn order() -> &'static str {
    after::task("receipt")
        .on_success()
        .defer(async { println!("the client has its answer") });
    "ordered"
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // The platform sends SIGTERM, and SIGKILL half a second later.
    spawn_graceful_shutdown_handler(|| async {
        println!("{}", after::shutdown(Duration::from_millis(400)).await);
    })
    .await;
    let app = Router::new()
        .route("/order", get(order))
        .layer(OutcomeLayer::new());
    // `StreamAdapter` for answers that are streamed.
    Runtime::new(Adapter::from(app))
        .layer(AfterLambdaLayer::new())
        .run()
        .await
}
