//! The baseline: axum under `AfterLayer`.

use std::process::ExitCode;

use after::tower::AfterLayer;
use after_suite::{App, Framework, Listening};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use tokio::net::TcpListener;

fn serve(app: App, listening: Listening) -> LocalBoxFuture<'static, ()> {
    async move {
        let routes = Router::new()
            .route("/ping", get(async |State(app): State<App>| app.ping()))
            .route(
                "/json",
                get(async |State(app): State<App>| {
                    ([(CONTENT_TYPE, "application/json")], app.json())
                }),
            )
            .route(
                "/fail",
                get(async |State(app): State<App>| (StatusCode::INTERNAL_SERVER_ERROR, app.fail())),
            )
            .route("/panic", get(async |State(app): State<App>| app.panics()))
            .route(
                "/waits",
                get(async |State(app): State<App>| app.waits().await),
            )
            .route(
                "/stream",
                get(async |State(app): State<App>| Body::from_stream(app.stream())),
            )
            .route(
                "/endless",
                get(async |State(app): State<App>| Body::from_stream(app.endless())),
            )
            .route(
                "/slow",
                get(async |State(app): State<App>| Body::from_stream(app.slow())),
            )
            .route("/large", get(async |State(app): State<App>| app.large()))
            .layer(AfterLayer::with_runner(app.runner().clone()))
            .with_state(app.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listening.send(listener.local_addr().unwrap()).unwrap();
        let server = axum::serve(listener, routes).with_graceful_shutdown(app.stopping());
        server.await.unwrap();
    }
    .boxed_local()
}

fn main() -> ExitCode {
    after_suite::main(Framework::new("axum", serve))
}
