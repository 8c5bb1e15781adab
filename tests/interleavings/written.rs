//! The matrix of batches that wait for the last byte: how the body ends, when the server lets go of its frames, how often
//! the batch is polled before and after, when it is dropped, how its tasks end. Each case is run by hand, and every counter
//! is looked at after every step, as in `matrix.rs`, and besides how often the batch's waker was woken.
//!
//! Sentences 8, 9b, 13, 15, 16, 19, 20 and 22b.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use after::{
    Batch, Handle, Runner, Stats,
    tower::{AfterBody, AfterLayer, RunAfter},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use tower::{Layer, Service};

use crate::{
    cases::{ENDS, End, Seen, account, counting, observed},
    common::{self, Batches, CountingWaker, balanced, keeping, now_or_never, poll_once},
};

/// The batch, from the hand-over on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Poll,
    /// The last frame goes.
    Open,
    /// The batch is dropped.
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settings {
    Plain,
    /// With an observer and a limit that nobody reaches.
    Special,
    /// With a place that was waited for.
    Backpressure,
}

#[derive(Clone, Debug)]
struct Case {
    settings: Settings,
    body: End,
    task: End,
    /// In this of its polls.
    ends_in: usize,
    /// The handler defers through a handle, which brings another task right after the hand-over.
    handle: bool,
    /// All frames are dropped before the body ends: the gate is open from the beginning.
    open: bool,
    acts: Vec<Act>,
    /// All acts are inside a poll of somebody else's scope.
    inside: bool,
}

/// What has happened so far. Asserted as a whole, so that nothing happens twice, early, or unnoticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    body_drops: usize,
    task_polls: usize,
    task_drops: usize,
    /// Calls of `Spawner::spawn`.
    hand_overs: usize,
}

/// Two frames, and its end.
struct Frames {
    end: End,
    polls: usize,
    seen: Arc<Seen<Counts>>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.polls += 1;
        if self.polls <= 2 {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data")))));
        }
        self.end.reached().map(|end| end.err().map(Err))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.seen.count(|counts| counts.body_drops += 1);
    }
}

struct Task {
    end: End,
    ends_in: usize,
    polls: usize,
    seen: Arc<Seen<Counts>>,
}

impl Future for Task {
    type Output = Result<(), &'static str>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        self.seen.count(|counts| counts.task_polls += 1);
        if self.polls < self.ends_in {
            return Poll::Pending;
        }
        self.end.reached()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.seen.task_is_dropped(|counts| counts.task_drops += 1);
    }
}

/// One case, as it goes: what there is, and beside it what is expected.
struct World {
    case: Case,
    runner: Runner,
    batches: Batches,
    outer: (Runner, Batches),
    seen: Arc<Seen<Counts>>,
    /// The batch's.
    wakes: Arc<CountingWaker>,
    waker: Waker,
    frames: Vec<Bytes>,
    expected: Counts,
    expected_wakes: usize,
    deferred: usize,
    ended: usize,
}

impl World {
    fn new(case: Case) -> World {
        let seen = Arc::new(Seen::default());
        let (builder, batches) = counting(&seen, |counts: &mut Counts| counts.hand_overs += 1);
        let builder = match case.settings {
            Settings::Plain => builder,
            Settings::Special => observed(builder.max_running(8), &seen),
            Settings::Backpressure => observed(builder.max_running(8).max_waiting(8), &seen),
        };
        let (wakes, waker) = CountingWaker::new();
        World {
            case,
            runner: builder.build(),
            batches,
            outer: keeping(),
            seen,
            wakes,
            waker,
            frames: Vec::new(),
            expected: Counts::default(),
            expected_wakes: 0,
            deferred: 0,
            ended: 0,
        }
    }

    /// After every step: the counters, the wakes, the account, and that nobody else's scope has noticed anything.
    #[track_caller]
    fn check(&self, step: &str) {
        let case = &self.case;
        let counts = *self.seen.counts.lock().unwrap();
        assert_eq!(counts, self.expected, "{step}: {case:?}");
        assert_eq!(self.wakes.wakes(), self.expected_wakes, "{step}: {case:?}");
        let told = match case.settings {
            Settings::Plain => 0,
            _ => self.ended,
        };
        let expected = [self.deferred, self.deferred - self.ended, told].map(|count| count as u64);
        assert_eq!(
            <[u64; 3]>::from(account(&self.runner, &self.seen, &self.outer)),
            expected,
            "{step}: {case:?}"
        );
    }

    fn task(&self) -> Task {
        Task {
            end: self.case.task,
            ends_in: self.case.ends_in,
            polls: 0,
            seen: self.seen.clone(),
        }
    }

    /// From the call to the hand-over.
    fn request(&mut self) -> Option<Handle> {
        let mut handle = None;
        let mut body = Some(Frames {
            end: self.case.body,
            polls: 0,
            seen: self.seen.clone(),
        });
        let service = tower::service_fn(|_: Request<()>| {
            match self.case.handle {
                true => handle.insert(after::handle()).defer(self.task()),
                false => after::defer(self.task()),
            }
            after::defer(self.task());
            std::future::ready(Ok::<_, Infallible>(Response::new(body.take().unwrap())))
        });
        let layer = AfterLayer::with_runner(self.runner.clone()).run_after(RunAfter::Written);
        let response = now_or_never(layer.layer(service).call(Request::new(())));
        let mut body = response.unwrap().into_body();
        // A scope tells of its first task, and of the others at its end; an inbox tells of each.
        self.deferred = 1 + usize::from(self.case.handle);
        self.check("answered");
        for _ in 0..2 {
            match next_frame(&mut body) {
                Poll::Ready(Some(Ok(frame))) => self.frames.push(frame.into_data().unwrap()),
                _ => panic!("no frame"),
            }
        }
        if self.case.open {
            self.frames.clear();
        }
        self.check("read");
        match self.case.body {
            End::Finish => assert!(matches!(next_frame(&mut body), Poll::Ready(None))),
            End::Fail => assert!(matches!(next_frame(&mut body), Poll::Ready(Some(Err(_))))),
            End::Drop => {}
            End::Panic => {
                let polled = catch_unwind(AssertUnwindSafe(|| next_frame(&mut body)));
                assert_eq!(polled.unwrap_err().downcast_ref(), Some(&"told to"));
            }
        }
        let mut body = Some(body);
        if self.case.body == End::Drop {
            drop(body.take());
        }
        self.deferred = 2;
        self.expected.body_drops = 1;
        self.expected.hand_overs = 1;
        self.check("ended");
        drop(body);
        self.check("ended and dropped");
        handle
    }

    /// From the hand-over to the end of the last task.
    fn acts(&mut self, batch: Batch) {
        let mut batch = Some(batch);
        // Whether a poll has found the gate open, and how often its tasks were polled.
        let (mut watched, mut started, mut turns) = (false, false, 0);
        for act in self.case.acts.clone() {
            match act {
                Act::Poll => {
                    let mut cx = Context::from_waker(&self.waker);
                    let polled = batch.as_mut().unwrap();
                    let ended = Pin::new(polled).poll(&mut cx).is_ready();
                    let runs = started && self.ended < self.deferred;
                    if runs {
                        turns += 1;
                        self.expected.task_polls += self.deferred;
                        if turns == self.case.ends_in && self.case.task != End::Drop {
                            self.expected.task_drops = self.deferred;
                            self.ended = self.deferred;
                        }
                    } else if !self.frames.is_empty() {
                        watched = true;
                    } else if !started {
                        // The first turn starts nothing, and wakes itself.
                        started = true;
                        self.expected_wakes += 1;
                    }
                    assert_eq!(ended, self.ended == self.deferred, "{:?}", self.case);
                    self.check("polled");
                }
                Act::Open => {
                    drop(self.frames.pop());
                    self.check("one frame is left");
                    drop(self.frames.pop());
                    self.expected_wakes += usize::from(watched && batch.is_some());
                    self.check("opened");
                }
                Act::Drop => {
                    drop(batch.take());
                    self.expected.task_drops = self.deferred;
                    self.ended = self.deferred;
                    self.check("dropped");
                    // Nothing of it keeps the executor's waker: ours, and the count itself.
                    assert_eq!(Arc::strong_count(&self.wakes), 2, "{:?}", self.case);
                }
            }
        }
        assert!(batch.is_none());
    }

    fn run(mut self) {
        let handle = self.request();
        if let Some(handle) = &handle {
            handle.defer(self.task());
            self.deferred += 1;
            self.check("brought");
        }
        let batch = self.batches.take_one();
        assert_eq!(batch.len(), self.deferred, "{:?}", self.case);
        match self.case.inside {
            false => self.acts(batch),
            true => {
                let outer = self.outer.0.clone();
                now_or_never(outer.scope(async {
                    self.acts(batch);
                    assert_eq!(after::outcome(), None, "restored");
                }));
            }
        }
        self.agrees();
        // What comes when all is over is a batch of its own, and waits for nothing.
        if let Some(handle) = handle {
            handle.defer(async {});
            self.deferred += 1;
            self.expected.hand_overs += 1;
            self.check("late");
            let mut late = self.batches.take_one();
            assert!(poll_once(Pin::new(&mut late)).is_pending());
            assert!(poll_once(Pin::new(&mut late)).is_ready());
            self.ended += 1;
            self.check("late: over");
        }
        assert_eq!(self.batches.len(), 0);
        now_or_never(self.runner.drain());
        if self.case.settings == Settings::Backpressure {
            self.has_all_room();
        }
    }

    /// Each task is where it belongs, and has seen how the request ended.
    fn agrees(&self) {
        let case = &self.case;
        let stats = balanced(&self.runner);
        let heads = [stats.completed, stats.failed, stats.lost, stats.panicked];
        let mut expected = [0; 4];
        let turns = self.expected.task_polls / self.deferred;
        let as_told = if turns < case.ends_in {
            End::Drop
        } else {
            case.task
        };
        let head = ENDS.iter().position(|end| *end == as_told).unwrap();
        expected[head] = self.deferred as u64;
        assert_eq!(heads, expected, "{case:?}");
        let outcome = case.body.outcome();
        let outcomes = self.seen.outcomes.lock().unwrap();
        assert_eq!(*outcomes, vec![Some(outcome); self.deferred], "{case:?}");
    }

    /// Eight may run and eight may wait, and twice that with what can't wait.
    fn has_all_room(&self) {
        let before = shed(&self.runner.stats());
        let mut scope = self.runner.open();
        scope.enter(|| (0..8 + 2 * 8).for_each(|_| after::defer(async {})));
        drop(scope);
        assert_eq!(shed(&self.runner.stats()), before, "{:?}", self.case);
        drop(self.batches.take_all());
        assert_eq!(balanced(&self.runner).pending, 0);
    }
}

/// What a limit has dropped, on a Runner that loses nothing meanwhile.
fn shed(stats: &Stats) -> u64 {
    stats.shed
}

fn next_frame(body: &mut AfterBody<Frames>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
    poll_once(pin!(std::future::poll_fn(|cx| {
        Pin::new(&mut *body).poll_frame(cx)
    })))
}

/// All orders of some polls, the gate's opening and the batch's drop. The gate may open after the drop.
fn orders(open: bool) -> Vec<Vec<Act>> {
    let polls = |count| std::iter::repeat_n(Act::Poll, count);
    let mut orders = Vec::new();
    if open {
        orders.extend((0..=4).map(|after| polls(after).chain([Act::Drop]).collect()));
        return orders;
    }
    for before in 0..=2 {
        orders.push(polls(before).chain([Act::Drop, Act::Open]).collect());
        for after in 0..=4 {
            let open = polls(before).chain([Act::Open]);
            orders.push(open.chain(polls(after)).chain([Act::Drop]).collect());
        }
    }
    orders
}

/// Runs all cases with these settings.
fn matrix(settings: Settings) {
    common::keep_quiet();
    let mut cases = 0;
    for open in [false, true] {
        for acts in orders(open) {
            for body in ENDS {
                for (task, ends_in) in ENDS.into_iter().flat_map(|task| [(task, 1), (task, 2)]) {
                    for (handle, inside) in
                        [(false, false), (false, true), (true, false), (true, true)]
                    {
                        let case = Case {
                            settings,
                            body,
                            task,
                            ends_in,
                            handle,
                            open,
                            acts: acts.clone(),
                            inside,
                        };
                        World::new(case).run();
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, (18 + 5) * 4 * 8 * 4);
}

#[test]
fn a_batch_that_waits_for_the_last_byte_ends_as_it_should_at_every_moment() {
    matrix(Settings::Plain);
}

#[test]
fn it_does_so_with_a_limit_and_an_observer() {
    matrix(Settings::Special);
}

#[test]
fn it_does_so_with_a_place_that_was_waited_for() {
    matrix(Settings::Backpressure);
}
