//! A shipment, and the signed message to somebody else's server, which is tried again until it gets through.

use std::{fmt, sync::Arc, time::Duration};

use axum::{Form, extract::State};
use backon::{ExponentialBuilder, Retryable as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rusqlite::OptionalExtension as _;
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use crate::{
    app::App,
    reply::{Refusal, Reply},
    sessions::hex,
    timeline,
};

#[derive(Deserialize)]
pub(crate) struct Shipment {
    order: i64,
}

pub(crate) async fn ship(
    State(app): State<Arc<App>>,
    Form(Shipment { order }): Form<Shipment>,
) -> Result<Reply, Refusal> {
    let id = record(&app, order).await?;
    after::task("webhook").defer(deliver(app, id, order));
    Ok(shipped(id, order))
}

/// The same without `after`: whoever ships waits for each attempt, and for the pauses between them.
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    Form(Shipment { order }): Form<Shipment>,
) -> Result<Reply, Refusal> {
    let id = record(&app, order).await?;
    if let Err(error) = timeline::inline("webhook", deliver(app, id, order)).await {
        tracing::error!("{error}");
    }
    Ok(shipped(id, order))
}

async fn record(app: &App, order: i64) -> Result<i64, Refusal> {
    let recorded = app.database.call(move |database| {
        let query =
            "INSERT INTO shipments (purchase) SELECT id FROM orders WHERE id = ?1 RETURNING id";
        database
            .query_row(query, [order], |row| row.get(0))
            .optional()
    });
    let no_such = || Refusal::NotFound(format!("order {order}"));
    recorded.await?.ok_or_else(no_such)
}

async fn deliver(app: Arc<App>, id: i64, order: i64) -> Result<(), NotDelivered> {
    // The same in each attempt: a receiver that got it twice can tell.
    let id = format!("shipment-{id}");
    let body = json!({ "event": "shipped", "order": order }).to_string();
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_times(5)
        .with_jitter();
    let delivery = (|| attempt(&app, &id, &body)).retry(backoff);
    tokio::select! {
        delivered = delivery => delivered.map_err(|cause| NotDelivered::Refused { order, cause }),
        // A shutdown does not wait for the pauses. What must get through belongs in a durable queue.
        () = after::stopping() => Err(NotDelivered::Stopping { order }),
    }
}

/// Names and form of the headers are those of standardwebhooks.com; the signature is in hex.
async fn attempt(app: &App, id: &str, body: &str) -> Result<(), reqwest::Error> {
    // Of each attempt, so that a receiver can refuse what is old.
    let timestamp = unix_time().to_string();
    let signature = sign(&app.webhook_secret, &[id, ".", &timestamp, ".", body]);
    let request = app.http.post(app.webhook.clone());
    let answer = request
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body.to_owned())
        .send();
    answer.await?.error_for_status().map(drop)
}

fn sign(secret: &str, parts: &[&str]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    for part in parts {
        mac.update(part.as_bytes());
    }
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

fn unix_time() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[derive(Debug)]
enum NotDelivered {
    Refused { order: i64, cause: reqwest::Error },
    Stopping { order: i64 },
}

impl fmt::Display for NotDelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotDelivered::Refused { order, cause } => {
                write!(
                    f,
                    "nobody was told of the shipment of order {order}: {cause}"
                )
            }
            NotDelivered::Stopping { order } => {
                write!(
                    f,
                    "nobody was told of the shipment of order {order}: the shop is stopping"
                )
            }
        }
    }
}

impl std::error::Error for NotDelivered {}

fn shipped(id: i64, order: i64) -> Reply {
    Reply::created(id, format!("Order {order} is on its way."))
}
