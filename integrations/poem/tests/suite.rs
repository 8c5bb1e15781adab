//! The cases of every framework, on poem.

use std::{process::ExitCode, time::Duration};

use after_poem::After;
use after_suite::{App, Framework, Listening};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use poem::{
    Body, EndpointExt as _, IntoResponse, Response, Route, Server, get, handler, http::StatusCode,
    listener::TcpAcceptor, web::Data,
};
use tokio::net::TcpListener;

#[handler]
fn ping(Data(app): Data<&App>) -> &'static str {
    app.ping()
}

#[handler]
fn json(Data(app): Data<&App>) -> impl IntoResponse {
    app.json().with_content_type("application/json")
}

#[handler]
fn fail(Data(app): Data<&App>) -> impl IntoResponse {
    app.fail().with_status(StatusCode::INTERNAL_SERVER_ERROR)
}

#[handler]
fn panics(Data(app): Data<&App>) -> &'static str {
    app.panics()
}

#[handler]
async fn waits(Data(app): Data<&App>) -> &'static str {
    app.waits().await
}

#[handler]
fn stream(Data(app): Data<&App>) -> Response {
    Body::from_bytes_stream(app.stream()).into()
}

#[handler]
fn endless(Data(app): Data<&App>) -> Response {
    Body::from_bytes_stream(app.endless()).into()
}

#[handler]
fn slow(Data(app): Data<&App>) -> Response {
    Body::from_bytes_stream(app.slow()).into()
}

#[handler]
fn large(Data(app): Data<&App>) -> Vec<u8> {
    app.large()
}

fn serve(app: App, listening: Listening) -> LocalBoxFuture<'static, ()> {
    async move {
        let routes = Route::new()
            .at("/ping", get(ping))
            .at("/json", get(json))
            .at("/fail", get(fail))
            .at("/panic", get(panics))
            .at("/waits", get(waits))
            .at("/stream", get(stream))
            .at("/endless", get(endless))
            .at("/slow", get(slow))
            .at("/large", get(large))
            .data(app.clone())
            .with(After::with_runner(app.runner().clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listening.send(listener.local_addr().unwrap()).unwrap();
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap());
        let limit = Some(Duration::from_secs(20));
        server
            .run_with_graceful_shutdown(routes, app.stopping(), limit)
            .await
            .unwrap();
    }
    .boxed_local()
}

fn main() -> ExitCode {
    let poem = Framework::new("poem", serve);
    after_suite::main(poem.handler_goes_on().body_goes_on())
}
