//! Frameworks that need no integration: each takes [`AfterLayer`], and how it takes it is what is
//! shown. One module a framework, each with a function that serves until it is told to stop.
//!
//! `cargo run -p frameworks-example -- warp` serves on port 8080, and ends at SIGTERM without losing work. The tests ask each
//! of them over real sockets.

pub mod async_graphql;
pub mod dioxus;
pub mod jsonrpsee;
pub mod leptos;
pub mod loco;
pub mod warp;

use std::future::Future;

use after::tower::AfterLayer;
use axum::Router;
use tokio::net::TcpListener;

/// For those whose routes are a router of axum.
async fn serve_axum(
    routes: Router,
    listener: TcpListener,
    layer: AfterLayer,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    let server = axum::serve(listener, routes.layer(layer)).with_graceful_shutdown(stopping);
    server
        .await
        .expect("it accepts connections until it is told to stop");
}

/// Its program is a test.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/frameworks.md")]
struct Frameworks;
