//! The shop's neighbours: a mail server, a CDN, a collector of analytics, a receiver of webhooks.
//!
//! In production they are somebody else's. Here they are on this machine, so that nothing needs installing; they are slow
//! as if they were far away, and they live until the process ends: the shop's last tasks still talk to them.

mod http;
mod smtp;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::TcpListener;

pub use self::http::verify;

/// Where they are, and what they have got. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// Of the mail server.
    pub smtp: SocketAddr,
    /// Of the others, by path: `/cdn`, `/analytics`, `/webhook`.
    pub http: SocketAddr,
    received: Arc<Mutex<Received>>,
    delay: Duration,
}

/// What the neighbours have got, in the order in which it came.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// By the mail server.
    pub mails: Vec<Mail>,
    /// Paths, by the CDN.
    pub purges: Vec<String>,
    /// By the collector.
    pub events: Vec<serde_json::Value>,
    /// By the receiver of webhooks, once it has accepted them.
    pub deliveries: Vec<Delivery>,
    /// How often each delivery was tried, by its id.
    pub attempts: HashMap<String, u32>,
}

/// A mail, as it came.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Whom the envelope names.
    pub to: Vec<String>,
    /// Headers and text.
    pub message: String,
}

/// A webhook.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `webhook-id`: the same in each attempt.
    pub id: String,
    /// `webhook-timestamp`.
    pub timestamp: String,
    /// `webhook-signature`.
    pub signature: String,
    /// What was signed, besides the other two.
    pub body: String,
}

impl Neighbours {
    /// Starts them, each on a port that the system chooses.
    pub async fn start(webhook_secret: &str, delay: Duration) -> io::Result<Neighbours> {
        let smtp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let neighbours = Neighbours {
            smtp: smtp.local_addr()?,
            http: http.local_addr()?,
            received: Arc::default(),
            delay,
        };
        tokio::spawn(smtp::serve(smtp, neighbours.clone()));
        let app = http::router(neighbours.clone(), webhook_secret.into());
        tokio::spawn(async { axum::serve(http, app).await });
        Ok(neighbours)
    }

    /// What they have got until now.
    pub fn received(&self) -> Received {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        let locked = self.received.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_their_time(&self) {
        tokio::time::sleep(self.delay).await;
    }
}
