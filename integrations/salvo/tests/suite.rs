//! The cases of every framework, on salvo.

use std::{process::ExitCode, time::Duration};

use after_salvo::After;
use after_suite::{App, Framework, Listening};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use salvo::{affix_state::inject, conn::tcp::TcpAcceptor, http::ResBody, prelude::*};
use tokio::net::TcpListener;

fn app(depot: &Depot) -> App {
    depot.get_typed::<App>().unwrap().clone()
}

#[handler]
async fn ping(depot: &mut Depot) -> &'static str {
    app(depot).ping()
}

#[handler]
async fn json(depot: &mut Depot, response: &mut Response) {
    response.render(Text::Json(app(depot).json()));
}

#[handler]
async fn fail(depot: &mut Depot, response: &mut Response) {
    response
        .status_code(StatusCode::INTERNAL_SERVER_ERROR)
        .render(app(depot).fail());
}

#[handler]
async fn panics(depot: &mut Depot) -> &'static str {
    app(depot).panics()
}

#[handler]
async fn waits(depot: &mut Depot) -> &'static str {
    let app = app(depot);
    app.waits().await
}

#[handler]
async fn stream(depot: &mut Depot, response: &mut Response) {
    response.body(ResBody::stream(app(depot).stream()));
}

#[handler]
async fn endless(depot: &mut Depot, response: &mut Response) {
    response.body(ResBody::stream(app(depot).endless()));
}

#[handler]
async fn slow(depot: &mut Depot, response: &mut Response) {
    response.body(ResBody::stream(app(depot).slow()));
}

#[handler]
async fn large(depot: &mut Depot, response: &mut Response) {
    response.body(app(depot).large());
}

fn serve(app: App, listening: Listening) -> LocalBoxFuture<'static, ()> {
    async move {
        let router = Router::new()
            .hoop(inject(app.clone()))
            .push(Router::with_path("ping").get(ping))
            .push(Router::with_path("json").get(json).head(json))
            .push(Router::with_path("fail").get(fail))
            .push(Router::with_path("panic").get(panics))
            .push(Router::with_path("waits").get(waits))
            .push(Router::with_path("stream").get(stream))
            .push(Router::with_path("endless").get(endless))
            .push(Router::with_path("slow").get(slow))
            .push(Router::with_path("large").get(large));
        let service = Service::new(router).hoop(After::with_runner(app.runner().clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listening.send(listener.local_addr().unwrap()).unwrap();
        let server = Server::new(TcpAcceptor::try_from(listener).unwrap());
        let handle = server.handle();
        tokio::spawn(async move {
            app.stopping().await;
            handle.stop_graceful(Duration::from_secs(20));
        });
        server.try_serve(service).await.unwrap();
    }
    .boxed_local()
}

fn main() -> ExitCode {
    after_suite::main(Framework::new("salvo", serve))
}
