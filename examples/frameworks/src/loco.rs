//! loco: its routes are a router of axum, and an initializer puts the layer around all of them.

use std::future::Future;

use after::tower::AfterLayer;
use loco_rs::{
    app::{AppContext, Hooks, Initializer},
    bgworker::Queue,
    boot::{BootResult, StartMode, create_app},
    config::Config,
    controller::{AppRoutes, Routes},
    environment::Environment,
    prelude::{Response, Result, async_trait, format, get},
    task::Tasks,
};
use tokio::net::TcpListener;

async fn hello() -> Result<Response> {
    after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
    format::text("hello\n")
}

async fn refuse() -> Result<Response> {
    after::task("alarm")
        .on_failure()
        .defer(async { println!("alarm: {:?}", after::outcome()) });
    Err(loco_rs::Error::Unauthorized("nobody".into()))
}

/// What makes the requests scopes: in the list of `Hooks::initializers`.
struct AfterInitializer;

#[async_trait]
impl Initializer for AfterInitializer {
    fn name(&self) -> String {
        "after".to_owned()
    }

    async fn after_routes(
        &self,
        router: axum::Router,
        _context: &AppContext,
    ) -> Result<axum::Router> {
        Ok(router.layer(AfterLayer::new()))
    }
}

struct App;

#[async_trait]
impl Hooks for App {
    fn app_name() -> &'static str {
        "after"
    }

    async fn boot(
        mode: StartMode,
        environment: &Environment,
        config: Config,
    ) -> Result<BootResult> {
        create_app::<Self>(mode, environment, config).await
    }

    async fn initializers(_context: &AppContext) -> Result<Vec<Box<dyn Initializer>>> {
        Ok(vec![Box::new(AfterInitializer)])
    }

    fn routes(_context: &AppContext) -> AppRoutes {
        AppRoutes::with_default_routes().add_route(
            Routes::new()
                .add("/hello", get(hello))
                .add("/refuse", get(refuse)),
        )
    }

    async fn connect_workers(_context: &AppContext, _queue: &Queue) -> Result<()> {
        Ok(())
    }

    fn register_tasks(_tasks: &mut Tasks) {}
}

fn config() -> Config {
    serde_json::from_value(serde_json::json!({
        "logger": { "enable": false, "level": "off", "format": "compact" },
        "server": { "port": 0, "host": "http://127.0.0.1" },
        "workers": { "mode": "ForegroundBlocking" },
    }))
    .expect("a configuration")
}

/// Serves until `stopping` resolves; the requests in progress are completed. On the global Runner, as the initializer's layer is.
pub async fn serve(listener: TcpListener, stopping: impl Future<Output = ()> + Send + 'static) {
    let booted = App::boot(StartMode::ServerOnly, &Environment::Test, config()).await;
    let routes = booted.expect("it boots").router.expect("it serves");
    let server = axum::serve(listener, routes).with_graceful_shutdown(stopping);
    server.await.expect("it accepts connections until it stops");
}
