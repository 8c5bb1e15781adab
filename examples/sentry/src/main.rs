//! Failures of deferred tasks in Sentry: each event has the tags of its request.
//!
//! Run it with `cargo run -p sentry-example`. Its events are kept and looked at instead of being sent.
//!
//! A hub is bound to a future while that is polled, as a span is. The hook binds the one that is current at the call of
//! `defer` to the task. `after` reports a failure as a `tracing` event, from inside of the future that the hook has made,
//! and `sentry-tracing` makes of it an event of the hub that is current there.

use std::{sync::Arc, time::Duration};

use after::{Runner, TaskFuture};
use sentry_core::{
    Client, ClientOptions, Hub, Scope, SentryFutureExt as _, protocol::Event, test::TestTransport,
};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn runner() -> Runner {
    Runner::builder()
        .on_defer(|_, task| TaskFuture::new(task.bind_hub(Hub::current())))
        .build()
}

/// A handler. Its tasks fail in each of the ways that are reported.
async fn order(number: u32) {
    after::task("receipt").defer(async { Err::<(), _>("the mail server refuses") });
    after::task("statistics").defer(async { panic!("a defect") });
    let webhook = after::task("webhook").timeout(Duration::from_millis(10));
    webhook.defer(std::future::pending::<()>());
    after::task("invoice").defer_blocking(move || match number {
        0 => Ok(()),
        _ => Err("the disk is full"),
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let transport = TestTransport::new();
    let options = ClientOptions {
        dsn: Some("https://key@localhost/1".parse()?),
        transport: Some(Arc::new(transport.clone())),
        ..ClientOptions::default()
    };
    Hub::current().bind_client(Some(Arc::new(Client::from(options))));
    tracing_subscriber::registry()
        .with(sentry_tracing::layer())
        .init();

    // Two requests in turn, each with a hub of its own, as the layer of `sentry-tower` gives it.
    let runner = runner();
    for number in [7, 8] {
        let hub = Arc::new(Hub::new_from_top(Hub::current()));
        hub.configure_scope(|scope: &mut Scope| scope.set_tag("order", number));
        runner.scope(order(number)).bind_hub(hub).await;
    }
    let report = runner.shutdown(Duration::from_secs(10)).await;
    let stats = report.stats();
    assert_eq!((stats.failed, stats.panicked, stats.timed_out), (4, 2, 2));

    let mut seen: Vec<_> = transport
        .fetch_and_clear_events()
        .iter()
        .map(line)
        .collect();
    seen.sort();
    for line in &seen {
        println!("{line}");
    }
    assert_eq!(
        seen,
        [
            "order 7: deferred task failed: the disk is full",
            "order 7: deferred task failed: the mail server refuses",
            "order 7: deferred task panicked: a defect",
            "order 7: deferred task timed out after 10ms",
            "order 8: deferred task failed: the disk is full",
            "order 8: deferred task failed: the mail server refuses",
            "order 8: deferred task panicked: a defect",
            "order 8: deferred task timed out after 10ms",
        ]
    );
    Ok(())
}

fn line(event: &Event<'_>) -> String {
    let order = event.tags.get("order").map_or("none", String::as_str);
    let message = event.message.as_deref().unwrap_or_default();
    format!("order {order}: {message}")
}
