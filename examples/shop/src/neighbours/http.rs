//! The neighbours that speak HTTP.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    routing::{any, post},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Delivery, Neighbours};

/// The receiver of webhooks is down so many times for each delivery, and then it is not.
const DOWN: u32 = 2;

pub(super) fn router(neighbours: Neighbours, webhook_secret: String) -> Router {
    let receiver = Receiver {
        neighbours: neighbours.clone(),
        secret: webhook_secret.into(),
    };
    Router::new()
        .route("/cdn/{*path}", any(purge))
        .route("/analytics", post(collect))
        .with_state(neighbours)
        .route("/webhook", post(receive).with_state(receiver))
}

/// `PURGE` is no method of HTTP's own, but what CDNs and caches listen to.
async fn purge(State(neighbours): State<Neighbours>, request: Request) -> StatusCode {
    if request.method().as_str() != "PURGE" {
        return StatusCode::METHOD_NOT_ALLOWED;
    }
    neighbours.take_their_time().await;
    let path = request.uri().path();
    let path = path.strip_prefix("/cdn").unwrap_or(path);
    tracing::info!("the CDN has purged {path}");
    neighbours.lock().purges.push(path.into());
    StatusCode::NO_CONTENT
}

async fn collect(
    State(neighbours): State<Neighbours>,
    Json(event): Json<serde_json::Value>,
) -> StatusCode {
    neighbours.take_their_time().await;
    tracing::info!("analytics has got {event}");
    neighbours.lock().events.push(event);
    StatusCode::ACCEPTED
}

#[derive(Clone)]
struct Receiver {
    neighbours: Neighbours,
    secret: Arc<str>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let header = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let delivery = Delivery {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body,
    };
    if !verify(&receiver.secret, &delivery) {
        tracing::warn!("a webhook with a wrong signature");
        return StatusCode::UNAUTHORIZED;
    }
    receiver.neighbours.take_their_time().await;
    let mut received = receiver.neighbours.lock();
    let attempts = received.attempts.entry(delivery.id.clone()).or_default();
    *attempts += 1;
    if *attempts <= DOWN {
        tracing::info!("the receiver of webhooks is down: attempt {attempts}");
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    tracing::info!(
        "the receiver of webhooks has got {}: attempt {attempts}",
        delivery.body
    );
    received.deliveries.push(delivery);
    StatusCode::NO_CONTENT
}

/// Whether a delivery is the shop's: what every receiver has to do. It takes as long for a wrong signature as for the right
/// one. A receiver should refuse an old timestamp too, and know an id that comes twice.
pub fn verify(secret: &str, delivery: &Delivery) -> bool {
    let Some(signature) = delivery.signature.strip_prefix("sha256=").and_then(unhex) else {
        return false;
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    for part in [&delivery.id, ".", &delivery.timestamp, ".", &delivery.body] {
        mac.update(part.as_bytes());
    }
    mac.verify_slice(&signature).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    bytes.collect()
}
