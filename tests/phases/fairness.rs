//! How the tasks of a batch take turns: sentences 9b and 11.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use after::Runner;

use crate::common::{self, CountingWaker, keeping, now_or_never, poll_once};

/// Notes its polls, and is pending until its channel says so.
struct Noted {
    id: usize,
    polls: Arc<Mutex<Vec<usize>>>,
    wakers: Arc<Mutex<Vec<Option<Waker>>>>,
    wakes_left: usize,
}

impl Future for Noted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.polls.lock().unwrap().push(self.id);
        let woken = self.wakers.lock().unwrap()[self.id].is_none();
        if woken {
            if self.wakes_left == 0 {
                return Poll::Ready(());
            }
            self.wakes_left -= 1;
        }
        self.wakers.lock().unwrap()[self.id] = Some(cx.waker().clone());
        Poll::Pending
    }
}

struct Tasks {
    batch: after::Batch,
    polls: Arc<Mutex<Vec<usize>>>,
    wakers: Arc<Mutex<Vec<Option<Waker>>>>,
    counter: Arc<CountingWaker>,
    waker: Waker,
}

impl Tasks {
    /// A batch of tasks that end after `wakes` wake-ups each, after its first poll.
    fn new(count: usize, wakes: usize) -> Tasks {
        let (runner, batches) = keeping();
        let polls = Arc::new(Mutex::new(Vec::new()));
        let wakers: Arc<Mutex<Vec<Option<Waker>>>> = Arc::new(Mutex::new(vec![None; count]));
        now_or_never(runner.scope(async {
            for id in 0..count {
                let polls = polls.clone();
                let wakers = wakers.clone();
                after::defer(Noted {
                    id,
                    polls,
                    wakers,
                    wakes_left: wakes,
                });
            }
        }));
        let (counter, waker) = CountingWaker::new();
        let mut tasks = Tasks {
            batch: batches.take_one(),
            polls,
            wakers,
            counter,
            waker,
        };
        assert!(tasks.poll().is_pending());
        assert!(tasks.turn().is_empty());
        tasks
    }

    fn poll(&mut self) -> Poll<()> {
        Pin::new(&mut self.batch).poll(&mut Context::from_waker(&self.waker))
    }

    /// What was polled since the last look.
    fn turn(&self) -> Vec<usize> {
        std::mem::take(&mut self.polls.lock().unwrap())
    }

    /// Wakes one task, as an event from outside would.
    fn wake(&self, id: usize) {
        let waker = self.wakers.lock().unwrap()[id].take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Polls as long as it is woken.
    fn settle(&mut self, seen: &mut usize) -> Poll<()> {
        while self.counter.wakes() > *seen {
            *seen = self.counter.wakes();
            if self.poll().is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Sentence 11: started in order; each turn then starts one task further on than the last.
#[test]
fn each_turn_starts_one_task_further_on() {
    let mut tasks = Tasks::new(3, 10);
    for expected in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] {
        assert!(tasks.poll().is_pending());
        assert_eq!(tasks.turn(), expected);
    }
}

/// Sentence 11: a turn polls at most 32 times, then wakes itself; the next goes on where it stopped.
#[test]
fn a_turn_polls_at_most_32_times() {
    let mut tasks = Tasks::new(100, 10);
    for (turn, expected) in [0..32, 32..64, 64..96, 96..100].into_iter().enumerate() {
        let woken = tasks.counter.wakes();
        assert!(tasks.poll().is_pending());
        assert_eq!(tasks.turn(), expected.collect::<Vec<_>>());
        assert_eq!(tasks.counter.wakes(), woken + 1, "turn {turn}");
    }
    // From now on each has a waker; they are polled once more, because some may have been woken before they had one.
    let mut seen = tasks.counter.wakes() - 1;
    assert!(tasks.settle(&mut seen).is_pending());
    let mut again = tasks.turn();
    again.sort_unstable();
    assert_eq!(again, (0..100).collect::<Vec<_>>());
    tasks.wake(57);
    assert!(tasks.settle(&mut seen).is_pending());
    assert_eq!(tasks.turn(), [57]);
}

/// Sentence 11: what is left of a round of two turns is polled in the next, all of it.
#[test]
fn what_is_left_of_a_round_of_two_turns_goes_on() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        for _ in 0..30 {
            after::defer(async {});
        }
        for _ in 0..3 {
            after::defer(common::yields(1));
        }
    }));
    let mut batch = batches.take_one();
    let (counter, waker) = CountingWaker::new();
    let mut seen = 0;
    while Pin::new(&mut batch)
        .poll(&mut Context::from_waker(&waker))
        .is_pending()
    {
        assert!(counter.wakes() > seen, "it waits, and nobody will wake it");
        seen = counter.wakes();
    }
}

/// A wake-up that comes between the turns of one round is not lost.
#[test]
fn a_wake_between_the_turns_of_a_round_is_not_lost() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::defer(common::yields(1));
        for _ in 0..32 {
            after::defer(async {});
        }
    }));
    let mut batch = batches.take_one();
    let (counter, waker) = CountingWaker::new();
    let mut cx = Context::from_waker(&waker);
    let mut seen = 0;
    let mut polls = 0;
    while Pin::new(&mut batch).poll(&mut cx).is_pending() {
        assert!(counter.wakes() > seen, "it waits, and nobody will wake it");
        seen = counter.wakes();
        polls += 1;
        assert!(polls < 10);
    }
    assert_eq!(common::balanced(&runner).completed, 33);
}

/// Sentence 11: what is left of tasks that have taken more than one turn is polled when it is woken, and not for ever: on a
/// plain Runner, on one with a limit, and when the task takes a handle.
#[test]
fn the_last_of_many_tasks_is_not_polled_unless_it_is_woken() {
    let limited = || Runner::builder().task_timeout(Duration::from_secs(3_600));
    for (runner, takes_handle) in [
        (Runner::builder().build(), false),
        (Runner::builder().build(), true),
        (limited().build(), false),
    ] {
        let polls = Arc::new(AtomicUsize::new(0));
        let count = polls.clone();
        let ((), batch) = now_or_never(
            runner
                .scope(async {
                    for _ in 0..39 {
                        after::defer(async {});
                    }
                    after::defer(std::future::poll_fn(move |_| {
                        if count.fetch_add(1, Relaxed) == 3 && takes_handle {
                            drop(after::handle());
                        }
                        Poll::<()>::Pending
                    }));
                })
                .held(),
        );
        let mut batch = pin!(batch);
        let (counter, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        for wakes in 1..10 {
            // As one that has been woken, then as long as it wakes itself.
            let mut seen = counter.wakes();
            assert!(batch.as_mut().poll(&mut cx).is_pending());
            while counter.wakes() > seen {
                seen = counter.wakes();
                assert!(seen < 10 * wakes, "it goes on and on");
                assert!(batch.as_mut().poll(&mut cx).is_pending());
            }
        }
        assert!(polls.load(Relaxed) < 20);
    }
}

/// Sentence 11: a nested task that has been polled when it was alone is no new one when another joins it.
#[test]
fn a_task_that_was_alone_takes_turns_with_those_that_come() {
    let (runner, batches) = keeping();
    let log = common::Log::new();
    now_or_never(runner.scope(async {
        let log = log.clone();
        after::defer(async move {
            let mut polls = 0;
            after::defer(std::future::poll_fn(move |_| {
                polls += 1;
                log.add("first");
                if polls == 2 {
                    let log = log.clone();
                    after::defer(std::future::poll_fn(move |_| {
                        log.add("second");
                        Poll::<()>::Pending
                    }));
                }
                Poll::<()>::Pending
            }));
        });
    }));
    let mut batch = batches.take_one();
    let mut cx = Context::from_waker(Waker::noop());
    // The first poll starts nothing, in the second the first of all ends, and the next two are of the task that is alone.
    for _ in 0..6 {
        assert!(Pin::new(&mut batch).poll(&mut cx).is_pending());
    }
    log.assert(&["first", "first", "second", "first", "first", "second"]);
}

/// Sentence 11: nested tasks start in the order of deferral too, with one waker for all and with a waker for each.
#[test]
fn nested_tasks_start_in_order() {
    for idle in [0, 20] {
        let (runner, batches) = keeping();
        let log = common::Log::new();
        now_or_never(runner.scope(async {
            for _ in 0..idle {
                after::defer(std::future::pending::<()>());
            }
            let log = log.clone();
            after::defer(async move {
                common::yields(20).await;
                for name in ["a", "b", "c", "d", "e"] {
                    let log = log.clone();
                    after::defer(async move { log.add(name) });
                }
            });
        }));
        let mut batch = batches.take_one();
        for _ in 0..30 {
            let _ = poll_once(Pin::new(&mut batch));
        }
        log.assert(&["a", "b", "c", "d", "e"]);
    }
}

/// Sentence 11: the same holds for tasks that end at once.
#[test]
fn a_turn_of_quick_tasks_is_bounded_too() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        for _ in 0..100 {
            after::defer(async {});
        }
    }));
    let mut batch = batches.take_one();
    let left: Vec<usize> = std::iter::from_fn(|| {
        let _ = poll_once(Pin::new(&mut batch));
        (!batch.is_empty()).then(|| batch.len())
    })
    .collect();
    assert_eq!(left, [100, 68, 36, 4]);

    let request = runner.scope(async {
        for _ in 0..100 {
            after::defer(async {});
        }
    });
    now_or_never(request.order(after::Order::Sequential));
    let mut batch = batches.take_one();
    assert_eq!(common::polls_to_end(&mut batch, 10), 5);
}

/// Sentence 11, N16: the cost is linear in tasks and wakes: with many tasks woken one by one, nobody else is polled.
#[test]
fn the_cost_is_linear_in_tasks_and_wakes() {
    const TASKS: usize = 300;
    const WAKES: usize = 10;
    let mut tasks = Tasks::new(TASKS, WAKES);
    let mut seen = 0;
    let mut polls = 0;
    assert!(tasks.settle(&mut seen).is_pending());
    for wake in 1..=WAKES {
        for step in 0..TASKS {
            // Not in the order of their places.
            tasks.wake((step * 7 + wake) % TASKS);
            let done = tasks.settle(&mut seen).is_ready();
            polls += tasks.turn().len();
            assert_eq!(done, wake == WAKES && step == TASKS - 1);
        }
    }
    let wakes = TASKS * WAKES;
    // A first round, one more when they get wakers; and one poll a wake.
    assert!(
        polls <= TASKS * 2 + wakes,
        "{polls} polls for {wakes} wakes"
    );
}

/// Work that joins a batch whose tasks have wakers of their own is started and gets one too.
#[test]
fn work_joins_a_batch_with_wakers() {
    let (runner, batches) = keeping();
    let log = common::Log::new();
    let mut handle = None;
    let (tell, told) = futures::channel::oneshot::channel::<()>();
    now_or_never(runner.scope(async {
        handle = Some(after::handle());
        for _ in 0..20 {
            after::defer(common::yields(40));
        }
        let log = log.clone();
        after::defer(async move {
            told.await.unwrap();
            after::defer(async move { log.add("nested") });
        });
    }));
    let mut batch = batches.take_one();
    let (counter, waker) = CountingWaker::new();
    let mut cx = Context::from_waker(&waker);
    let mut seen = 1;
    assert!(Pin::new(&mut batch).poll(&mut cx).is_pending());
    while seen > 0 && counter.wakes() >= seen && batch.len() > 1 {
        seen = counter.wakes();
        assert!(Pin::new(&mut batch).poll(&mut cx).is_pending());
    }
    assert_eq!(batch.len(), 1);
    let seen = counter.wakes();
    let late = log.clone();
    handle.unwrap().defer(async move { late.add("late") });
    assert!(counter.wakes() > seen, "a handle wakes the batch");
    for _ in 0..3 {
        assert!(Pin::new(&mut batch).poll(&mut cx).is_pending());
    }
    log.assert(&["late"]);
    let seen = counter.wakes();
    tell.send(()).unwrap();
    assert!(counter.wakes() > seen, "a task's waker wakes the batch");
    let mut polls = 0;
    while Pin::new(&mut batch).poll(&mut cx).is_pending() {
        polls += 1;
        assert!(polls < 5);
    }
    log.assert(&["late", "nested"]);
    assert_eq!(common::balanced(&runner).completed, 23);
}

/// A batch whose tasks have wakers of their own may be dropped; late wake-ups of what has ended do nothing.
#[test]
fn a_batch_with_wakers_may_be_dropped_in_the_middle() {
    let mut tasks = Tasks::new(40, 1_000);
    let mut seen = 0;
    for step in 0..1_000 {
        tasks.wake(step % 40);
        assert!(tasks.settle(&mut seen).is_pending());
    }
    let wakers: Vec<_> = tasks
        .wakers
        .lock()
        .unwrap()
        .iter()
        .flatten()
        .cloned()
        .collect();
    drop(tasks.batch);
    for waker in wakers {
        waker.wake();
    }
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    };

    use crate::common::Log;
    use after::Runner;

    /// Sentence 11: tokio's budget is shared by all siblings; in a fixed order a busy one starves the others for ever.
    async fn a_busy_sibling_starves_nobody(siblings: usize) {
        let runner = Runner::builder().build();
        let done = Arc::new(AtomicBool::new(false));
        runner
            .scope(async {
                for _ in 0..siblings {
                    let done = done.clone();
                    after::defer(async move {
                        // Bounded, so that a failure is one and not a test that hangs.
                        let started = std::time::Instant::now();
                        while !done.load(SeqCst) {
                            tokio::task::consume_budget().await;
                            assert!(started.elapsed().as_secs() < 60, "the timer is starved");
                        }
                    });
                }
                let done = done.clone();
                after::defer(async move {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    done.store(true, SeqCst);
                });
            })
            .await;
        runner.drain().await;
        assert_eq!(runner.stats().completed, siblings as u64 + 1);
    }

    /// With one waker for all.
    #[tokio::test]
    async fn one_busy_sibling_starves_no_timer() {
        a_busy_sibling_starves_nobody(1).await;
    }

    /// With a waker for each.
    #[tokio::test]
    async fn many_busy_siblings_starve_no_timer() {
        a_busy_sibling_starves_nobody(20).await;
    }

    /// Sentence 9b; N14 on a plain scope: whoever writes the response stands behind the batch in the runtime's queue, and
    /// comes first all the same.
    fn the_response_is_written_before_the_tasks_start(runtime: tokio::runtime::Runtime) {
        let log = Log::new();
        runtime.block_on(async {
            let (respond, mut response) = tokio::sync::mpsc::channel::<()>(1);
            let connection = tokio::spawn({
                let log = log.clone();
                async move {
                    response.recv().await.unwrap();
                    log.add("response");
                }
            });
            // As on HTTP/2: the handler's task hands over, then tells the connection's.
            let log = log.clone();
            let runner = Runner::builder().build();
            let request = runner.scope(async move { after::defer(async move { log.add("task") }) });
            tokio::spawn(async move {
                request.await;
                respond.send(()).await.unwrap();
            })
            .await
            .unwrap();
            connection.await.unwrap();
            runner.drain().await;
        });
        log.assert(&["response", "task"]);
    }

    #[test]
    fn the_response_comes_first_on_a_current_thread_runtime() {
        the_response_is_written_before_the_tasks_start(
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
        );
    }

    #[test]
    fn the_response_comes_first_on_one_worker() {
        the_response_is_written_before_the_tasks_start(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap(),
        );
    }
}

/// Sentence 19: what a batch has done so far is in the `stats` that one of its own tasks reads, and in those that a
/// destructor reads: there, without the task itself, which has not ended yet.
#[test]
fn a_task_sees_what_its_batch_has_done_so_far() {
    struct Reads(Runner, Arc<Mutex<Vec<(u64, u64)>>>);

    impl Reads {
        fn read(&self) {
            let stats = self.0.stats();
            self.1
                .lock()
                .unwrap()
                .push((stats.completed, stats.pending));
        }
    }

    impl Drop for Reads {
        fn drop(&mut self) {
            self.read();
        }
    }

    let (runner, batches) = keeping();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reads = Reads(runner.clone(), seen.clone());
    now_or_never(runner.scope(async move {
        after::defer(async {});
        after::defer(async {});
        after::defer(async move { reads.read() });
        after::defer(async {});
    }));
    common::polls_to_end(&mut batches.take_one(), 5);
    assert_eq!(*seen.lock().unwrap(), [(2, 2), (2, 2)]);
    let stats = runner.stats();
    assert_eq!((stats.completed, stats.pending), (4, 0));
}

/// Sentences 7 and 19: whatever panics in a round, a poll or a destructor, the others run, and each is counted as what it was.
#[test]
fn a_round_goes_on_behind_whatever_panics() {
    struct Task {
        yields: bool,
        panics: bool,
        panics_in_drop: bool,
        ran: Arc<AtomicUsize>,
    }

    impl Future for Task {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if std::mem::take(&mut self.yields) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.ran.fetch_add(1, Relaxed);
            assert!(!self.panics, "in its poll");
            Poll::Ready(())
        }
    }

    impl Drop for Task {
        fn drop(&mut self) {
            assert!(!self.panics_in_drop, "in its destructor");
        }
    }

    common::keep_quiet();
    for place in 0..8 {
        let (runner, batches) = keeping();
        let ran = Arc::new(AtomicUsize::new(0));
        now_or_never(runner.scope(async {
            for id in 0..8 {
                after::defer(Task {
                    // The next poll is in another round, which begins with another task.
                    yields: id % 3 == 0,
                    panics: id == place,
                    panics_in_drop: id == (place + 5) % 8,
                    ran: ran.clone(),
                });
            }
        }));
        common::polls_to_end(&mut batches.take_one(), 10);
        let stats = runner.stats();
        assert_eq!(ran.load(Relaxed), 8);
        assert_eq!(
            (stats.completed, stats.panicked, stats.pending),
            (6, 2, 0),
            "{place}"
        );
    }
}

/// Sentence 11: tasks that wait are not polled for each generation of others that end at once and defer the next.
#[test]
fn tasks_that_wait_are_not_polled_for_every_generation_of_others() {
    fn chain(generations: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if generations > 0 {
                after::defer(chain(generations - 1));
            }
        })
    }
    for slow in [false, true] {
        let (runner, batches) = common::keeping_with(|builder| match slow {
            true => builder.task_timeout(Duration::from_secs(3_600)),
            false => builder,
        });
        let polls = Arc::new(AtomicUsize::new(0));
        now_or_never(runner.scope(async {
            for _ in 0..32 {
                after::defer(chain(50));
            }
            for _ in 0..100 {
                let polls = polls.clone();
                after::defer(std::future::poll_fn(move |_| {
                    polls.fetch_add(1, Relaxed);
                    Poll::<()>::Pending
                }));
            }
        }));
        let mut batch = batches.take_one();
        let (counter, waker) = CountingWaker::new();
        let mut woken = 1;
        while woken > 0 {
            let before = counter.wakes();
            let _ = Pin::new(&mut batch).poll(&mut Context::from_waker(&waker));
            woken = counter.wakes() - before;
        }
        assert_eq!(batch.len(), 100);
        assert!(polls.load(Relaxed) <= 300, "{polls:?}");
    }
}

/// Tasks start in the order of deferral, also those that join a batch whose first round takes more than one turn and leaves
/// nobody.
#[test]
fn what_joins_a_round_of_two_turns_starts_in_order() {
    for first_stays in [false, true] {
        let (runner, batches) = common::keeping();
        let log = common::Log::new();
        now_or_never(runner.scope(async {
            for task in 0..33 {
                let log = log.clone();
                after::defer(async move {
                    if task == 0 {
                        for name in ["a", "b", "c"] {
                            let log = log.clone();
                            after::defer(async move { log.add(name) });
                        }
                        common::yields(usize::from(first_stays)).await;
                    }
                });
            }
        }));
        common::polls_to_end(&mut batches.take_one(), 6);
        log.assert(&["a", "b", "c"]);
    }
}
