//! async-graphql on axum: resolvers run in the layer's future and defer. A data loader spawns what it loads, where there is no
//! scope: its spawner takes the handle of the request along.
//!
//! GraphQL always responds with HTTP 200, so the outcome is that of HTTP. A resolver that knows better defers under
//! a condition of its own. Subscriptions are no requests: open a scope an event.

use std::{collections::HashMap, convert::Infallible, future::Future};

use after::tower::AfterLayer;
use async_graphql::{
    Context, EmptyMutation, EmptySubscription, Object, Result, Schema,
    dataloader::{DataLoader, Loader},
};
use async_graphql_axum::GraphQL;
use axum::Router;
use tokio::net::TcpListener;

struct Names;

impl Loader<i32> for Names {
    type Value = String;
    type Error = Infallible;

    async fn load(&self, ids: &[i32]) -> std::result::Result<HashMap<i32, String>, Infallible> {
        // On a task of its own, in the scope of the request that asked first.
        after::task("loaded").defer(async { println!("the names were loaded") });
        Ok(ids.iter().map(|id| (*id, format!("user {id}"))).collect())
    }
}

/// A spawner for data loaders: in the scope of the request that asks, if there is one.
fn spawn_in_scope(future: impl Future<Output = ()> + Send + 'static) {
    match after::try_handle() {
        Some(handle) => tokio::spawn(handle.scope(future)),
        None => tokio::spawn(future),
    };
}

struct Query;

#[Object]
impl Query {
    async fn name(&self, context: &Context<'_>, id: i32) -> Result<Option<String>> {
        after::task("audit").defer(async move { println!("somebody has asked for user {id}") });
        let names = context.data::<DataLoader<Names>>()?;
        Ok(names.load_one(id).await?)
    }
}

/// Serves until `stopping` resolves; the requests in progress are completed.
pub async fn serve(
    listener: TcpListener,
    layer: AfterLayer,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    let schema = Schema::build(Query, EmptyMutation, EmptySubscription)
        .data(DataLoader::new(Names, spawn_in_scope))
        .finish();
    let routes = Router::new().route_service("/", GraphQL::new(schema));
    crate::serve_axum(routes, listener, layer, stopping).await;
}
