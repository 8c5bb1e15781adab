//! A shipment, and the signed message to somebody else's server. Somebody pays for it, so it must get through whatever
//! becomes of this process: it is a job in the database, enqueued in the shipment's transaction, and tried again until it
//! is done.

use std::{sync::Arc, time::Duration};

use after_apalis::Job;
use axum::{Form, extract::State};
use backon::{ExponentialBuilder, Retryable as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;
use sqlx::SqliteConnection;

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

/// Who is told of which shipment. What is stored outlives this version of the shop.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Webhook {
    shipment: i64,
    order: i64,
}

impl Job for Webhook {
    const NAME: &'static str = "webhook";
}

/// Both are there, or neither: the shipment, and the job to tell of it.
pub(crate) async fn ship(
    State(app): State<Arc<App>>,
    Form(Shipment { order }): Form<Shipment>,
) -> Result<Reply, Refusal> {
    let mut tx = app.pool.begin().await?;
    let shipment = record(&mut tx, order).await?;
    app.jobs
        .enqueue(&mut *tx, Webhook { shipment, order })
        .await?;
    tx.commit().await?;
    Ok(shipped(shipment, order))
}

/// The same without: whoever ships waits for each attempt, and for the pauses between them. If the process dies meanwhile,
/// nobody is ever told.
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    Form(Shipment { order }): Form<Shipment>,
) -> Result<Reply, Refusal> {
    let shipment = record(&mut *app.pool.acquire().await?, order).await?;
    let job = Webhook { shipment, order };
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_times(5)
        .with_jitter();
    let delivery = (|| deliver(&app, &job)).retry(backoff);
    if let Err(error) = timeline::inline("webhook", delivery).await {
        tracing::error!("nobody was told of the shipment of order {order}: {error}");
    }
    Ok(shipped(shipment, order))
}

async fn record(database: &mut SqliteConnection, order: i64) -> Result<i64, Refusal> {
    let query = "INSERT INTO shipments (purchase) SELECT id FROM orders WHERE id = ?1 RETURNING id";
    let recorded = sqlx::query_scalar(query).bind(order);
    let no_such = || Refusal::NotFound(format!("order {order}"));
    recorded.fetch_optional(database).await?.ok_or_else(no_such)
}

/// One attempt: that there are more is the worker's business.
///
/// Names and form of the headers are those of standardwebhooks.com; the signature is in hex.
pub(crate) async fn deliver(app: &App, job: &Webhook) -> Result<(), reqwest::Error> {
    // The same in each attempt: a receiver that got it twice can tell.
    let id = format!("shipment-{}", job.shipment);
    let body = json!({ "event": "shipped", "order": job.order }).to_string();
    // Of each attempt, so that a receiver can refuse what is old.
    let timestamp = unix_time().to_string();
    let signature = sign(&app.webhook_secret, &[&id, ".", &timestamp, ".", &body]);
    let request = app.http.post(app.webhook.clone());
    let answer = request
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body)
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

fn shipped(id: i64, order: i64) -> Reply {
    Reply::created(id, format!("Order {order} is on its way."))
}
