//! dioxus server functions: dioxus runs them on a pool of its own threads, where the layer's scope is not current, so `defer`
//! panics there. [`AfterLayer::provide_handle`] puts a handle into the request's extensions, and that goes along.

use std::future::Future;

use after::{Handle, tower::AfterLayer};
use axum::{Extension, Router};
use dioxus::{prelude::*, server::FullstackState};
use tokio::net::TcpListener;

/// What the page calls. The handle is a server-side argument: an extractor, which clients know nothing of.
#[post("/api/purchase", handle: Extension<Handle>)]
async fn purchase(item: String) -> Result<String, HttpError> {
    handle
        .task("audit")
        .defer(async { println!("audit: {:?}", after::outcome()) });
    // Functions that know nothing of handles are called in the scope.
    handle.0.sync_scope(receipt);
    match item.as_str() {
        "tea" => Ok(format!("you have bought {item}")),
        _ => HttpError::bad_request("sold out"),
    }
}

fn receipt() {
    after::task("receipt").defer(async { println!("receipt") });
}

/// Serves until `stopping` resolves; the requests in progress are completed.
pub async fn serve(
    listener: TcpListener,
    layer: AfterLayer,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    let routes = Router::new()
        .register_server_functions()
        .with_state(FullstackState::headless());
    crate::serve_axum(routes, listener, layer.provide_handle(), stopping).await;
}
