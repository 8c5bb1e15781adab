//! The cases of every framework, on warp.

use std::process::ExitCode;

use after::tower::AfterLayer;
use after_suite::{App, Framework, Listening};
use frameworks_example::warp::serve as serve_routes;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use tokio::net::TcpListener;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::StatusCode,
    path,
    reply::{stream, with_header, with_status},
};

fn routes(app: &App) -> BoxedFilter<(impl Reply + use<>,)> {
    let app = app.clone();
    let with = |name: &'static str| {
        let app = app.clone();
        path(name).and(path::end()).map(move || app.clone())
    };
    with("ping")
        .map(|app: App| app.ping())
        .or(with("json")
            .map(|app: App| with_header(app.json(), "content-type", "application/json")))
        .or(with("fail").map(|app: App| with_status(app.fail(), StatusCode::INTERNAL_SERVER_ERROR)))
        .or(with("panic").map(|app: App| app.panics()))
        .or(with("waits").then(async |app: App| app.waits().await))
        .or(with("stream").map(|app: App| stream(app.stream())))
        .or(with("endless").map(|app: App| stream(app.endless())))
        .or(with("slow").map(|app: App| stream(app.slow())))
        .or(with("large").map(|app: App| app.large()))
        .boxed()
}

fn serve(app: App, listening: Listening) -> LocalBoxFuture<'static, ()> {
    async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listening.send(listener.local_addr().unwrap()).unwrap();
        let layer = AfterLayer::with_runner(app.runner().clone());
        serve_routes(routes(&app), listener, layer, app.stopping()).await;
    }
    .boxed_local()
}

fn main() -> ExitCode {
    after_suite::main(Framework::new("warp", serve))
}
