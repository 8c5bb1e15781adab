//! A report that is said once in a process, to a subscriber that causes the same report: a program of its own.
#![cfg(all(
    feature = "tracing",
    not(any(
        feature = "tokio",
        feature = "smol",
        feature = "async-std",
        feature = "threads"
    ))
))]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::FutureExt as _;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Defers when it is told of the first event, where there is no runtime either.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl<S: Subscriber> Layer<S> for Alarm {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        if self.0.fetch_add(1, SeqCst) == 0 {
            let request = async { after::defer(async {}) };
            assert!(after::scope(request).now_or_never().is_some());
        }
    }
}

/// Sentence 26: a subscriber may defer while it is told why tasks are lost.
#[test]
fn a_subscriber_may_defer_while_it_is_told_that_there_is_no_runtime() {
    let subscriber = tracing_subscriber::registry().with(Alarm::default());
    tracing::subscriber::with_default(subscriber, || {
        let request = async { after::defer(async {}) };
        assert!(after::scope(request).now_or_never().is_some());
    });
    let stats = after::Runner::global().stats();
    assert_eq!((stats.lost, stats.pending), (2, 0));
}
