//! Two lanes: mails that are tried again have a Runner of their own, so that those that wait for their next try don't keep
//! quick work from running.
//!
//! Run it with `cargo run --example lanes`.
//!
//! A task that sleeps between two tries keeps its permit under `max_running`, and its place. On one Runner a mail server
//! that is down for a minute would hold every audit, and with backpressure every response. Here it fills its own lane: what
//! is too much there is shed, and a durable queue is the place for mails that must not be.

use std::{process, time::Duration};

use after::{Overflow, Runner, ShutdownReport};
use backon::{ExponentialBuilder, Retryable as _};
use tokio::join;

/// For work that may wait for minutes.
fn slow_lane() -> Runner {
    Runner::builder()
        .max_running(2)
        .max_waiting(4)
        // A mail server that is down must not hold back responses.
        .overflow(Overflow::Shed)
        .build()
}

/// For all other work: `after::defer`. Answers wait while there is too much of it.
fn quick_lane() -> Runner {
    Runner::builder()
        .max_running(4)
        .max_waiting(100)
        .overflow(Overflow::Backpressure)
        .build()
}

/// A handler: the request is on the quick lane, and hands its mail to the slow one.
async fn order(slow: &Runner, number: u32) -> String {
    after::task("audit").defer(async move { println!("audit of order {number}") });
    // A scope of its own, which ends at once: this waits for nothing.
    slow.scope(async {
        after::task("mail").defer(mail(number));
    })
    .await;
    format!("order {number}")
}

/// Tried again until it is sent, or until the service stops.
async fn mail(number: u32) -> Result<(), &'static str> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_secs(60))
        .with_jitter()
        .without_max_times();
    tokio::select! {
        sent = (|| send(number)).retry(backoff) => sent,
        // Of the slow lane, on which this task is.
        () = after::stopping() => Err("not sent: the service is stopping"),
    }
}

/// Both lanes end side by side, within one limit.
async fn shutdown(slow: &Runner, limit: Duration) -> [ShutdownReport; 2] {
    // At the signal, before the server ends: whatever awaits `stopping` ends, on both.
    after::stop();
    slow.stop();
    // .. the server ends its last requests ..
    join!(after::shutdown(limit), slow.shutdown(limit)).into()
}

#[tokio::main]
async fn main() {
    quick_lane().install().expect("nothing was deferred before");
    let slow = slow_lane();

    for number in 1..=20 {
        let response = after::scope(order(&slow, number)).await;
        assert_eq!(response, format!("order {number}"));
    }
    // All audits have run, while mails fill their lane: two are being tried, four wait, and the others are shed.
    Runner::global().drain().await;
    let (quick, mails) = (Runner::global().stats(), slow.stats());
    println!("quick lane: {} done; mails: {mails:?}", quick.completed);
    assert_eq!((quick.completed, quick.pending), (20, 0));
    assert_eq!((mails.deferred, mails.pending), (20, 6));

    let [quick, mails] = shutdown(&slow, Duration::from_secs(10)).await;
    println!("quick lane: {quick}\nslow lane: {mails}");
    assert!(quick.is_clean() && mails.is_clean());
    // The six end at `stopping`, and report that their mails were not sent.
    assert_eq!(mails.stats().failed, 6);
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if quick.is_clean() && mails.is_clean() {
        0
    } else {
        2
    })
}

async fn send(_number: u32) -> Result<(), &'static str> {
    Err("the mail server does not respond")
}
