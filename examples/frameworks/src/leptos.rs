//! leptos server functions, on axum: they run in the layer's future, so they defer as any handler does.

// What `#[server]` makes of the arguments is a struct.
#![allow(missing_docs)]

use std::future::Future;

use after::tower::AfterLayer;
use axum::{Router, routing::post};
use leptos::prelude::*;
use tokio::net::TcpListener;

/// What the page calls.
#[server(endpoint = "purchase")]
pub async fn purchase(item: String) -> Result<String, ServerFnError> {
    after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
    after::task("receipt")
        .on_success()
        .defer(async { println!("receipt") });
    match item.as_str() {
        "tea" => Ok(format!("you have bought {item}")),
        _ => Err(ServerFnError::new("sold out")),
    }
}

/// Serves until `stopping` resolves; the requests in progress are completed.
pub async fn serve(
    listener: TcpListener,
    layer: AfterLayer,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    leptos::server_fn::axum::register_explicit::<Purchase>();
    let routes = Router::new().route("/api/{*function}", post(leptos_axum::handle_server_fns));
    crate::serve_axum(routes, listener, layer, stopping).await;
}
