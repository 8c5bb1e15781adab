//! The cases of every framework, on actix-web.

use std::{io, process::ExitCode};

use actix_web::{
    App, HttpResponse, HttpServer, Responder,
    web::{self, Data},
};
use after_actix::After;
use after_suite::{Chunks, Framework, Listening};
use futures_util::{FutureExt as _, TryStreamExt as _, future::LocalBoxFuture};

type Suite = Data<after_suite::App>;

/// The crate's own stream has errors that actix-web takes.
fn streamed(chunks: Chunks) -> HttpResponse {
    HttpResponse::Ok().streaming(chunks.map_err(io::Error::other))
}

async fn json(app: Suite) -> impl Responder {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(app.json())
}

fn serve(suite: after_suite::App, listening: Listening) -> LocalBoxFuture<'static, ()> {
    async move {
        let app = suite.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(app.clone()))
                .route("/ping", web::get().to(async |app: Suite| app.ping()))
                .route("/json", web::get().to(json))
                .route("/json", web::head().to(json))
                .route(
                    "/fail",
                    web::get().to(async |app: Suite| {
                        HttpResponse::InternalServerError().body(app.fail())
                    }),
                )
                .route("/panic", web::get().to(async |app: Suite| app.panics()))
                .route(
                    "/waits",
                    web::get().to(async |app: Suite| app.waits().await),
                )
                .route(
                    "/stream",
                    web::get().to(async |app: Suite| streamed(app.stream())),
                )
                .route(
                    "/endless",
                    web::get().to(async |app: Suite| streamed(app.endless())),
                )
                .route(
                    "/slow",
                    web::get().to(async |app: Suite| streamed(app.slow())),
                )
                .route("/large", web::get().to(async |app: Suite| app.large()))
                .wrap(After::with_runner(app.runner().clone()))
        })
        .workers(1)
        .disable_signals()
        // In seconds: how long the requests in progress hold `stop`.
        .shutdown_timeout(20)
        .bind("127.0.0.1:0")
        .unwrap();
        listening.send(server.addrs()[0]).unwrap();
        let server = server.run();
        let control = server.handle();
        let stops = async {
            suite.stopping().await;
            control.stop(true).await;
        };
        futures_util::future::join(server, stops).await.0.unwrap();
    }
    .boxed_local()
}

fn main() -> ExitCode {
    let actix = Framework::new("actix-web", serve);
    after_suite::main(actix.handler_goes_on().body_goes_on())
}
