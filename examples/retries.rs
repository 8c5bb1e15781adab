//! Retries, with the `backon` crate, in a deferred task: a webhook that succeeds in the end, and one that never would.
//!
//! Run it with `cargo run --example retries`.
//!
//! How often and how long to retry is for a crate of its own to say. What matters here is the end: a deploy must not
//! wait for a back-off of minutes, so the retries stop when the shutdown begins, and say so.
//!
//! The sleep between two tries is part of the task: its time limit counts it, and under `max_running` it keeps its permit
//! meanwhile, so that a receiver that is away holds other work. `examples/lanes.rs` gives such work a Runner of its own.

use std::{fmt, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable as _};
use tokio::sync::watch;

/// Delivers an event: tried again until it is, or until the service stops.
async fn deliver(webhook: Arc<Webhook>) -> Result<(), Undelivered> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_secs(60))
        .with_jitter()
        .without_max_times();
    let delivery = (|| webhook.send()).retry(backoff);
    tokio::select! {
        delivered = delivery => delivered,
        // Resolves when the shutdown begins. An attempt in progress is dropped then, so the receiver should know an
        // event that comes twice. The error is reported; what must never be lost goes into a durable queue here.
        () = after::stopping() => Err(Undelivered("the service is stopping")),
    }
}

#[tokio::main]
async fn main() {
    let slow = Webhook::new("slow", 2);
    let broken = Webhook::new("broken", u32::MAX);
    after::scope(async {
        after::task("slow webhook").defer(deliver(slow.clone()));
        after::task("broken webhook").defer(deliver(broken.clone()));
        assert_eq!((slow.tries(), broken.tries()), (0, 0));
    })
    .await;

    slow.tried(3).await;
    // The other one would go on forever, after ever longer waits. The shutdown may take ten seconds, and takes none.
    broken.tried(3).await;
    let report = after::shutdown(Duration::from_secs(10)).await;
    println!("{report}");

    assert_eq!(slow.tries(), 3);
    assert!(broken.tries() >= 3);
    assert!(report.is_clean());
    let stats = report.stats();
    assert_eq!((stats.completed, stats.failed, stats.deferred), (1, 1, 2));
}

/// Somebody else's server. It fails so many times, and then succeeds.
struct Webhook {
    name: &'static str,
    failures: u32,
    tries: watch::Sender<u32>,
}

impl Webhook {
    fn new(name: &'static str, failures: u32) -> Arc<Self> {
        Arc::new(Webhook {
            name,
            failures,
            tries: watch::Sender::new(0),
        })
    }

    async fn send(&self) -> Result<(), Undelivered> {
        self.tries.send_modify(|tries| *tries += 1);
        let (name, tries) = (self.name, self.tries());
        if tries > self.failures {
            println!("{name}: attempt {tries} has delivered it");
            Ok(())
        } else {
            println!("{name}: attempt {tries} has failed");
            Err(Undelivered("the receiver returns 503"))
        }
    }

    fn tries(&self) -> u32 {
        *self.tries.borrow()
    }

    async fn tried(&self, times: u32) {
        let mut tries = self.tries.subscribe();
        // The sender is in `self`: it is there.
        let _ = tries.wait_for(|tries| *tries >= times).await;
    }
}

#[derive(Debug)]
struct Undelivered(&'static str);

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not delivered: {}", self.0)
    }
}

impl std::error::Error for Undelivered {}
