//! The cases of every framework, on Rocket.

use std::{process::ExitCode, sync::Mutex};

use after_rocket::After;
use after_suite::{App, Framework, Listening};
use rocket::{
    Config, Shutdown, State,
    config::{LogLevel, Shutdown as ShutdownConfig},
    fairing::AdHoc,
    futures::{FutureExt as _, Stream, StreamExt as _, future::LocalBoxFuture},
    get,
    http::Status,
    response::{content::RawJson, stream::ByteStream},
    routes,
};

#[get("/ping")]
fn ping(app: &State<App>) -> &'static str {
    app.ping()
}

#[get("/json")]
fn json(app: &State<App>) -> RawJson<&'static str> {
    RawJson(app.json())
}

#[get("/fail")]
fn fail(app: &State<App>) -> (Status, &'static str) {
    (Status::InternalServerError, app.fail())
}

#[get("/panic")]
fn panics(app: &State<App>) -> &'static str {
    app.panics()
}

#[get("/waits")]
async fn waits(app: &State<App>) -> &'static str {
    app.waits().await
}

type Bytes = ByteStream<std::pin::Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>>;

fn streamed(chunks: after_suite::Chunks) -> Bytes {
    ByteStream(chunks.map(|chunk| chunk.unwrap().to_vec()).boxed())
}

#[get("/stream")]
fn stream(app: &State<App>) -> Bytes {
    streamed(app.stream())
}

#[get("/endless")]
fn endless(app: &State<App>) -> Bytes {
    streamed(app.endless())
}

#[get("/slow")]
fn slow(app: &State<App>) -> Bytes {
    streamed(app.slow())
}

#[get("/large")]
fn large(app: &State<App>) -> Vec<u8> {
    app.large()
}

fn serve(app: App, listening: Listening) -> LocalBoxFuture<'static, ()> {
    async move {
        let after = After::with_runner(app.runner().clone());
        let routes = routes![
            ping, json, fail, panics, waits, stream, endless, slow, large
        ];
        let listening = Mutex::new(Some(listening));
        let mut shutdown = ShutdownConfig {
            ctrlc: false,
            grace: 20,
            mercy: 5,
            ..Default::default()
        };
        shutdown.signals.clear();
        let config = Config {
            address: [127, 0, 0, 1].into(),
            port: 0,
            log_level: LogLevel::Off,
            shutdown,
            ..Config::debug_default()
        };
        let rocket = rocket::custom(config)
            .mount("/", after.routes(routes))
            .manage(app.clone())
            .attach(AdHoc::on_liftoff("address", move |rocket| {
                let address = (rocket.config().address, rocket.config().port).into();
                let listening = listening.lock().unwrap().take();
                async move { listening.unwrap().send(address).unwrap() }.boxed()
            }))
            .attach(after)
            .ignite()
            .await
            .unwrap();
        let shutdown: Shutdown = rocket.shutdown();
        rocket::tokio::spawn(async move {
            app.stopping().await;
            shutdown.notify();
        });
        rocket.launch().await.unwrap();
    }
    .boxed_local()
}

fn main() -> ExitCode {
    let rocket = Framework::new("Rocket", serve);
    after_suite::main(
        rocket
            .handler_goes_on()
            .handler_survives_a_reset()
            .body_goes_on(),
    )
}
