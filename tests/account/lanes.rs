//! Two Runners as lanes, as in `examples/lanes.rs`: what waits for its next try on one keeps nothing on the other from
//! running.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use after::{Overflow, Runner};
use backon::{ConstantBuilder, Retryable as _};
use futures::FutureExt as _;
use tokio::{sync::Semaphore, time::Instant};

use crate::common::balanced;

/// Between two tries. The clock is paused: it passes only when a test says so, or when nothing else is left to do.
const BACKOFF: Duration = Duration::from_secs(3_600);

fn lane(overflow: Overflow) -> Runner {
    Runner::builder()
        .max_running(2)
        .max_waiting(4)
        .overflow(overflow)
        .build()
}

/// A mail whose server is down: tried, and tried again after an hour, until the service stops.
async fn mail(tries: Arc<Semaphore>) -> Result<(), &'static str> {
    let attempt = || {
        tries.add_permits(1);
        async { Err("the mail server does not answer") }
    };
    let backoff = ConstantBuilder::default()
        .with_delay(BACKOFF)
        .without_max_times();
    tokio::select! {
        sent = attempt.retry(backoff) => sent,
        () = after::stopping() => Err("not sent: the service is stopping"),
    }
}

/// A request on `quick` whose mail is on `slow`.
async fn order(slow: &Runner, audits: &Arc<AtomicU32>, tries: &Arc<Semaphore>) {
    let audits = audits.clone();
    after::task("audit").defer(async move {
        audits.fetch_add(1, SeqCst);
    });
    let mail = mail(tries.clone());
    let request = slow.scope(async { after::task("mail").defer(mail) });
    assert!(request.now_or_never().is_some(), "`Shed` holds no answer");
}

/// Sentence 21: retries that sleep hold the permits of their own lane alone. Answers and quick work go on, and no time
/// passes meanwhile; then both lanes end together, also without it.
#[tokio::test(start_paused = true)]
async fn sleeping_retries_hold_no_quick_work() {
    let (quick, slow) = (lane(Overflow::Backpressure), lane(Overflow::Shed));
    let (audits, tries) = (Arc::default(), Arc::new(Semaphore::new(0)));
    let begun = Instant::now();
    for _ in 0..2 {
        quick.scope(order(&slow, &audits, &tries)).await;
    }
    // Both permits of the slow lane are held by mails that sleep.
    let tried = tries.acquire_many(2).await.unwrap();
    tried.forget();
    for _ in 0..20 {
        quick.scope(order(&slow, &audits, &tries)).await;
        quick.drain().await;
    }
    assert_eq!(audits.load(SeqCst), 22);
    let stats = balanced(&slow);
    assert_eq!(
        (stats.deferred, stats.pending),
        (22, 6),
        "two, and four that wait"
    );
    assert_eq!(tries.available_permits(), 0, "nothing was tried again");

    quick.stop();
    slow.stop();
    let limit = Duration::from_secs(60);
    let (quick, slow) = tokio::join!(quick.shutdown(limit), slow.shutdown(limit));
    assert!(quick.is_clean() && slow.is_clean(), "{quick}; {slow}");
    assert_eq!((quick.stats().completed, slow.stats().failed), (22, 6));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// What the second lane is for: on one Runner the mails that sleep hold the audits for an hour, and the answers.
#[tokio::test(start_paused = true)]
async fn on_one_lane_sleeping_retries_hold_quick_work() {
    let runner = lane(Overflow::Backpressure);
    let (audits, tries) = (Arc::<AtomicU32>::default(), Arc::new(Semaphore::new(0)));
    runner
        .scope(async {
            after::task("mail").defer(mail(tries.clone()));
            after::task("mail").defer(mail(tries.clone()));
        })
        .await;
    tries.acquire_many(2).await.unwrap().forget();
    let quick = audits.clone();
    let request = runner.scope(async move {
        after::task("audit").defer(async move {
            quick.fetch_add(1, SeqCst);
        });
    });
    request.await;
    // The second tries come, and the audit has not run.
    tries.acquire_many(2).await.unwrap().forget();
    assert_eq!(audits.load(SeqCst), 0);
    runner.stop();
    runner.drain().await;
    assert_eq!(audits.load(SeqCst), 1);
    assert_eq!(balanced(&runner).failed, 2);
}
