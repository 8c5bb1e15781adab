//! Wakers that panic when they are woken or dropped, each at every moment at which one of a rich program's is, and wakers
//! that are kept for longer than what they wake.
//!
//! Sentences 13, 18, 18b, 19 and 21. (A waker whose `clone` panics can be written with unsafe code alone.)

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use after::{Batch, Runner};

use crate::common::{self, ByHand, CountingWaker, balanced, now_or_never, poll_once, yields};

/// Counts what is done to wakers, and blows at one such moment.
struct Fuse {
    /// Moments so far.
    count: AtomicUsize,
    blows_at: usize,
    blown: AtomicUsize,
}

impl Fuse {
    fn burn(&self) {
        if self.count.fetch_add(1, SeqCst) == self.blows_at {
            self.blown.fetch_add(1, SeqCst);
            std::panic::panic_any("told to");
        }
    }
}

struct Fragile(Arc<Fuse>);

impl Wake for Fragile {
    fn wake(self: Arc<Self>) {
        self.0.burn();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.burn();
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        // A second panic in a destructor while the first unwinds would be the waker's own fault.
        if !std::thread::panicking() {
            self.0.burn();
        }
    }
}

/// What the tasks have noted, and the wakers that they have left outside.
#[derive(Default)]
struct Notes {
    made: AtomicUsize,
    dropped: AtomicUsize,
    completed: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

struct Life(Arc<Notes>);

impl Life {
    fn new(notes: &Arc<Notes>) -> Life {
        notes.made.fetch_add(1, SeqCst);
        Life(notes.clone())
    }

    fn completes(self) {
        self.0.completed.fetch_add(1, SeqCst);
    }

    async fn steps(self, steps: usize) {
        yields(steps).await;
        self.completes();
    }

    /// Waits until somebody outside wakes it.
    async fn waits(self) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            self.0.wakers.lock().unwrap().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.completes();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, SeqCst);
    }
}

/// Something of everything, and a handle.
fn defers(notes: &Arc<Notes>, tasks: usize) -> after::Handle {
    let life = || Life::new(notes);
    for index in 0..tasks {
        after::defer(life().steps(index % 3));
    }
    after::defer(life().waits());
    let (outer, notes) = (life(), notes.clone());
    after::task("nests").defer(async move {
        let (inner, apart) = (Life::new(&notes), Life::new(&notes));
        after::defer(inner.waits());
        after::task("apart").spawned().defer(apart.steps(1));
        outer.steps(1).await;
    });
    let closure = life();
    after::defer_blocking(move || closure.completes());
    let stuck = life();
    // A sleep whose poll panics, because of a waker too, is replaced by one in real time, which is soon over.
    after::task("stuck")
        .timeout(Duration::from_nanos(1))
        .defer(async move {
            let _stuck = stuck;
            std::future::pending::<()>().await;
        });
    after::task("apart").spawned().defer(life().waits());
    after::handle()
}

/// A request; its batch is held, and it leaves a handle.
fn request(runner: &Runner, notes: &Arc<Notes>, tasks: usize) -> (after::Handle, Batch) {
    now_or_never(runner.scope(async { defers(notes, tasks) }).held())
}

/// A request whose batch is with the spawner, and waits for the last byte: what is to be dropped for it.
#[cfg(feature = "tower")]
fn written(runner: &Runner, notes: &Arc<Notes>, tasks: usize) -> (after::Handle, bytes::Bytes) {
    use after::tower::{AfterLayer, RunAfter};
    use http_body_util::{BodyExt as _, Full};
    use tower::{Layer as _, Service as _};

    let mut handle = None;
    let service = tower::service_fn(|_: http::Request<()>| {
        handle = Some(defers(notes, tasks));
        let body = Full::new(bytes::Bytes::from_static(b"data"));
        std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(body)))
    });
    let layer = AfterLayer::with_runner(runner.clone()).run_after(RunAfter::Written);
    let response = now_or_never(layer.layer(service).call(http::Request::new(())));
    let mut body = response.unwrap().into_body();
    let frame = now_or_never(body.frame()).unwrap().unwrap();
    drop(body);
    (handle.unwrap(), frame.into_data().unwrap())
}

/// What becomes of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Released,
    Awaited,
    /// Awaited, and dropped in this round with all that was split off it.
    Dropped(usize),
    /// Waits for the last byte, which goes in the first of these rounds; dropped in the other, if there is one.
    #[cfg(feature = "tower")]
    Written(usize, Option<usize>),
}

/// A panic that gets out of a call is the executor's.
fn survive(call: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(call)));
}

/// Polls with a fragile waker of its own.
fn poll<F: Future + Unpin>(future: &mut F, fuse: &Arc<Fuse>) -> bool {
    let waker = Waker::from(Arc::new(Fragile(fuse.clone())));
    let mut ready = false;
    survive(|| {
        let polled = Pin::new(future).poll(&mut Context::from_waker(&waker));
        ready = polled.is_ready();
    });
    survive(|| drop(waker));
    ready
}

/// Runs such a request with fragile wakers alone; gives how many moments there were.
fn program(limited: bool, tasks: usize, fate: Fate, blows_at: usize) -> usize {
    let spawner = ByHand::default();
    let builder = Runner::builder().spawner(spawner.clone());
    let runner = match limited {
        true => builder.max_running(3).build(),
        false => builder.build(),
    };
    let fuse = Arc::new(Fuse {
        count: AtomicUsize::new(0),
        blows_at,
        blown: AtomicUsize::new(0),
    });
    let notes = Arc::new(Notes::default());
    #[cfg(feature = "tower")]
    let mut frame = None;
    let (handle, batch) = match fate {
        #[cfg(feature = "tower")]
        Fate::Written(..) => {
            let (handle, data) = written(&runner, &notes, tasks);
            frame = Some(data);
            (handle, spawner.batches.take_one())
        }
        _ => request(&runner, &notes, tasks),
    };
    let mut drain = Box::pin(runner.drain());
    let mut drained = poll(&mut drain, &fuse);
    assert!(!drained);
    let mut batches = Vec::new();
    match fate {
        Fate::Released => batch.release(),
        _ => batches.push(batch),
    }
    let is_dropped = |at: usize| match fate {
        Fate::Dropped(round) => at == round,
        #[cfg(feature = "tower")]
        Fate::Written(_, Some(round)) => at == round,
        _ => false,
    };
    for round in 0..1_000_000 {
        if round >= 60 {
            // Only for the timer that has replaced a sleep.
            if batches.is_empty() && drained {
                break;
            }
            std::thread::yield_now();
        }
        // Neither ever panics: not inside `survive`.
        if is_dropped(round) {
            batches.clear();
        }
        #[cfg(feature = "tower")]
        if matches!(fate, Fate::Written(opens, _) if opens == round) {
            drop(frame.take());
        }
        batches.retain_mut(|batch| !poll(batch, &fuse));
        batches.extend(spawner.batches.take_all());
        if round == 4 {
            handle.defer(Life::new(&notes).steps(1));
        }
        // What comes from outside comes when all that can go on by itself has.
        if round % 5 == 4 {
            for work in std::mem::take(&mut *spawner.blocking.lock().unwrap()) {
                work.run();
            }
            for waker in std::mem::take(&mut *notes.wakers.lock().unwrap()) {
                survive(|| waker.wake());
            }
            for timer in spawner.take_sleeps() {
                // An error: its sleep was given up.
                survive(|| timer.send(()).unwrap_or_default());
            }
        }
        balanced(&runner);
        drained = drained || poll(&mut drain, &fuse);
    }
    let stats = balanced(&runner);
    let moment =
        format!("limited {limited}, {tasks} tasks, {fate:?}, moment {blows_at}: {stats:?}");
    assert_eq!(batches.len(), 0, "{moment}");
    assert_eq!((stats.pending, drained), (0, true), "{moment}");
    let count = |count: &AtomicUsize| count.load(SeqCst) as u64;
    assert_eq!(count(&notes.dropped), count(&notes.made), "{moment}");
    assert_eq!(stats.deferred, count(&notes.made), "{moment}");
    assert_eq!(stats.completed, count(&notes.completed), "{moment}");
    assert!(stats.panicked <= 1, "{moment}");
    if !(0..60).any(is_dropped) {
        let ended = (stats.completed + stats.panicked, stats.timed_out);
        assert_eq!(ended, (stats.deferred - 1, 1), "{moment}");
    }
    assert!(
        now_or_never(runner.shutdown(Duration::ZERO)).is_clean(),
        "{moment}"
    );
    let moments = fuse.count.load(SeqCst);
    assert_eq!(
        count(&fuse.blown),
        u64::from(blows_at < moments),
        "{moment}"
    );
    moments
}

/// One panic of a waker costs the task whose poll it came out of, if it was one, and nothing else, whenever it comes: nothing
/// is lost, runs twice or stays pending.
#[test]
fn a_waker_that_panics_costs_at_most_the_task_that_wakes() {
    common::keep_quiet();
    // Few tasks are polled all; many get wakers of their own.
    let mut fates = vec![Fate::Released, Fate::Awaited];
    fates.extend((1..8).map(Fate::Dropped));
    #[cfg(feature = "tower")]
    for opens in 0..3 {
        let dropped = [None, Some(0), Some(1), Some(3), Some(4), Some(6)];
        fates.extend(dropped.map(|dropped| Fate::Written(opens, dropped)));
    }
    for (limited, tasks) in [(false, 2), (false, 40), (true, 2), (true, 40)] {
        for fate in &fates {
            let moments = program(limited, tasks, *fate, usize::MAX);
            assert!(moments > 5, "{moments}");
            for moment in 0..moments {
                program(limited, tasks, *fate, moment);
            }
        }
    }
}

/// Wakers that tasks have left outside outlive the batch: waking and dropping them wakes nobody and harms nothing, on any
/// thread.
#[test]
fn wakers_may_outlive_their_batch() {
    for tasks in [2, 40] {
        for drop_the_batch in [false, true] {
            let (runner, batches) = common::keeping();
            let notes = Arc::new(Notes::default());
            now_or_never(runner.scope(async {
                for _ in 0..tasks {
                    after::defer(Life::new(&notes).waits());
                }
                after::defer(Life::new(&notes).steps(20));
            }));
            let mut batch = batches.take_one();
            let (counter, waker) = CountingWaker::new();
            let mut cx = Context::from_waker(&waker);
            for _ in 0..8 {
                assert!(Pin::new(&mut batch).poll(&mut cx).is_pending());
            }
            let wakers = std::mem::take(&mut *notes.wakers.lock().unwrap());
            assert_eq!(wakers.len(), tasks);
            let late = wakers.clone();
            if drop_the_batch {
                drop(batch);
            } else {
                wakers.iter().for_each(Waker::wake_by_ref);
                assert!((0..60).any(|_| Pin::new(&mut batch).poll(&mut cx).is_ready()));
                drop(batch);
            }
            let stats = balanced(&runner);
            assert_eq!(stats.pending, 0);
            assert_eq!(stats.lost > 0, drop_the_batch);
            std::thread::spawn(|| late.into_iter().for_each(Waker::wake))
                .join()
                .unwrap();
            drop(wakers);
            drop(waker);
            assert_eq!(balanced(&runner), stats);
            assert_eq!(notes.dropped.load(SeqCst), tasks + 1);
            // Nothing of the batch keeps the executor's waker, and with it its task, alive.
            assert_eq!(Arc::strong_count(&counter), 1, "{tasks} tasks");
        }
    }
}

/// A task may be woken by its siblings' wakers, by itself, and by what has ended, while the batch is polled.
#[test]
fn tasks_may_wake_each_other_and_those_that_have_ended() {
    for tasks in [3, 40] {
        let (runner, batches) = common::keeping();
        let shared: Arc<Mutex<Vec<Waker>>> = Arc::default();
        now_or_never(runner.scope(async {
            for steps in 0..tasks {
                let shared = shared.clone();
                after::defer(async move {
                    for _ in 0..steps % 7 {
                        let mut polled = false;
                        poll_fn(|cx| {
                            let others = {
                                let mut wakers = shared.lock().unwrap();
                                wakers.push(cx.waker().clone());
                                wakers.clone()
                            };
                            others.iter().for_each(Waker::wake_by_ref);
                            match std::mem::replace(&mut polled, true) {
                                true => Poll::Ready(()),
                                false => Poll::Pending,
                            }
                        })
                        .await;
                    }
                });
            }
        }));
        let mut batch = batches.take_one();
        let (counter, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        let mut polls = 0;
        loop {
            let before = counter.wakes();
            polls += 1;
            assert!(polls < 1_000);
            if Pin::new(&mut batch).poll(&mut cx).is_ready() {
                break;
            }
            assert!(counter.wakes() > before, "nobody outside wakes it");
        }
        assert_eq!(balanced(&runner).completed, tasks as u64);
        assert!(poll_once(Pin::new(&mut batch)).is_ready());
    }
}
