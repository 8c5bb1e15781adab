//! `stop`, and what it resolves: `stopping`, its clones, and the question for loops that don't await.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use after::{Runner, Stopping};
use futures::channel::oneshot;

use crate::common::{self, CountingWaker, balanced, keeping, now_or_never, poll_once};

fn stopping_of(runner: &Runner) -> Stopping {
    // Wrapped: the scope is to resolve at once.
    now_or_never(runner.scope(async { Some(after::stopping()) })).unwrap()
}

every_runtime! {
    /// A task that ends at `stopping` ends by `stop`, which does not wait for one that does not.
    async fn stop_resolves_stopping_and_waits_for_nothing(runner) {
        let (release, released) = oneshot::channel::<()>();
        let (told, hears) = oneshot::channel();
        runner.scope(async {
            after::defer(async {
                after::stopping().await;
                let _ = told.send(());
            });
            after::defer(async { let _ = released.await; });
        }).await;
        runner.stop();
        hears.await.unwrap();
        assert!(runner.stats().pending > 0, "the other one");
        drop(release);
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 2);
    }

    /// A closure can't await; it asks, in its scope, whichever thread it runs on.
    async fn a_closure_asks_whether_it_is_to_stop(runner) {
        let (began, begun) = oneshot::channel();
        runner.scope(async {
            after::defer_blocking(move || {
                let stopping = after::stopping();
                let before = stopping.is_stopping();
                let _ = began.send(before);
                while !stopping.is_stopping() {
                    thread::yield_now();
                }
            });
        }).await;
        assert!(!begun.await.unwrap());
        runner.stop();
        runner.drain().await;
        assert_eq!(balanced(&runner).completed, 1);
    }

    /// Sentence 20: nothing is closed. What is deferred after `stop` is run, and finds itself told to stop.
    async fn what_is_deferred_after_stop_runs_and_is_told(runner) {
        runner.stop();
        runner.scope(async { after::defer(after::stopping()) }).await;
        let report = runner.shutdown(Duration::MAX).await;
        assert!(report.is_clean(), "{report}");
        assert_eq!(balanced(&runner).completed, 1);
    }
}

/// Sentence 20: `shutdown` still waits for what is there, and `stopping` stays resolved through all of it.
#[test]
fn stop_again_and_shutdown_after_it_change_nothing() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async { after::defer(after::stopping()) }));
    let mut early = stopping_of(&runner);
    assert!(poll_once(Pin::new(&mut early)).is_pending());
    assert!(!early.is_stopping());
    for _ in 0..3 {
        runner.stop();
        assert!(early.is_stopping());
        assert!(poll_once(Pin::new(&mut early)).is_ready());
        assert!(poll_once(Pin::new(&mut stopping_of(&runner))).is_ready());
    }
    let mut shutdown = Box::pin(runner.shutdown(Duration::MAX));
    assert!(poll_once(shutdown.as_mut()).is_pending(), "a batch is kept");
    batches.drive(10);
    assert!(now_or_never(shutdown).is_clean());
    assert!(poll_once(Pin::new(&mut early)).is_ready());
    assert_eq!(balanced(&runner).completed, 1);
}

/// Each Runner is told by itself.
#[test]
fn stop_of_one_runner_is_not_that_of_another() {
    let (one, other) = (Runner::builder().build(), Runner::builder().build());
    let mut stopping = stopping_of(&other);
    one.stop();
    assert!(!stopping.is_stopping());
    assert!(poll_once(Pin::new(&mut stopping)).is_pending());
    other.stop();
    assert!(stopping.is_stopping());
}

/// A clone does not take the waker of the one that it was made of, nor goes with it.
#[test]
fn a_clone_is_woken_for_itself() {
    let runner = Runner::builder().build();
    let mut first = stopping_of(&runner);
    let mut second = first.clone();
    let mut third = second.clone();
    let (count, waker) = CountingWaker::new();
    let (other_count, other) = CountingWaker::new();
    assert!(poll(&mut first, &waker).is_pending());
    assert!(poll(&mut second, &waker).is_pending());
    assert!(poll(&mut third, &other).is_pending());
    drop(first);
    // One that was made of a waiting one has not waited yet.
    let fourth = second.clone();
    runner.stop();
    assert_eq!((count.wakes(), other_count.wakes()), (1, 1));
    assert!(poll(&mut second, &waker).is_ready());
    assert!(poll(&mut second.clone(), &waker).is_ready());
    now_or_never(fourth);
}

/// Wakers are the user's code: one that panics hurts nobody, and one that stops the Runner again finds no lock held.
#[test]
fn wakers_may_panic_and_may_stop_again() {
    common::keep_quiet();
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("told to");
        }
    }
    struct Stops(Runner);
    impl Wake for Stops {
        fn wake(self: Arc<Self>) {
            self.0.stop();
            assert!(stopping_of(&self.0).is_stopping());
        }
    }
    let runner = Runner::builder().build();
    let (count, counting) = CountingWaker::new();
    let wakers = [
        Waker::from(Arc::new(Panics)),
        Waker::from(Arc::new(Stops(runner.clone()))),
        counting,
    ];
    let mut waiting: Vec<_> = wakers.iter().map(|_| stopping_of(&runner)).collect();
    for (stopping, waker) in waiting.iter_mut().zip(&wakers) {
        assert!(poll(stopping, waker).is_pending());
    }
    runner.stop();
    assert_eq!(count.wakes(), 1);
}

/// Whoever is told on another thread sees what was done before.
#[test]
fn stop_on_another_thread_is_seen_with_what_came_before_it() {
    let runner = Runner::builder().build();
    let stopping = stopping_of(&runner);
    let (note, noted) = mpsc::channel();
    let stopper = thread::spawn(move || {
        note.send("before").unwrap();
        runner.stop();
    });
    futures::executor::block_on(stopping);
    assert_eq!(noted.try_recv(), Ok("before"));
    stopper.join().unwrap();
}

fn poll(stopping: &mut Stopping, waker: &Waker) -> Poll<()> {
    Pin::new(stopping).poll(&mut Context::from_waker(waker))
}
