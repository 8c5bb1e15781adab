//! A purchase, and the analytics event that the customer need not wait for.

use std::sync::Arc;

use axum::{Form, extract::State};
use rusqlite::OptionalExtension as _;
use serde::Deserialize;
use serde_json::json;

use crate::{
    app::App,
    reply::{Refusal, Reply},
    sessions::user_agent,
    timeline,
};

#[derive(Deserialize)]
pub(crate) struct Purchase {
    item: String,
}

pub(crate) async fn purchase(
    State(app): State<Arc<App>>,
    Form(purchase): Form<Purchase>,
) -> Result<Reply, Refusal> {
    let order = place_order(&app, &purchase).await?;
    after::task("analytics").defer(record(app, order, purchase.item.clone()));
    Ok(bought(order, &purchase))
}

/// The same without `after`: the customer waits for somebody else's server.
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    Form(purchase): Form<Purchase>,
) -> Result<Reply, Refusal> {
    let order = place_order(&app, &purchase).await?;
    let recorded = timeline::inline("analytics", record(app, order, purchase.item.clone()));
    if let Err(error) = recorded.await {
        tracing::error!("not recorded: {error}");
    }
    Ok(bought(order, &purchase))
}

async fn place_order(app: &App, purchase: &Purchase) -> Result<i64, Refusal> {
    let item = purchase.item.clone();
    let order = app.database.call(move |database| {
        let query =
            "INSERT INTO orders (product) SELECT id FROM products WHERE name = ?1 RETURNING id";
        database
            .query_row(query, [item], |row| row.get(0))
            .optional()
    });
    let no_such = || Refusal::NotFound(format!("product called {}", purchase.item));
    order.await?.ok_or_else(no_such)
}

async fn record(app: Arc<App>, order: i64, item: String) -> Result<(), reqwest::Error> {
    // Of a request that is long over: the layer has kept its head.
    let agent = user_agent();
    let event = json!({ "event": "purchase", "order": order, "item": item, "user_agent": agent });
    let answer = app
        .http
        .post(app.analytics.clone())
        .json(&event)
        .send()
        .await?;
    answer.error_for_status().map(drop)
}

fn bought(order: i64, purchase: &Purchase) -> Reply {
    Reply::created(
        order,
        format!("You have bought {}: order {order}.", purchase.item),
    )
}
