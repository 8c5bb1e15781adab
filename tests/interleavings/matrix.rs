//! The matrix: how a request ends and when, who gets its tasks, how the tasks end and when. Each of its 1,152 cases is run
//! by hand, and every counter is looked at after every step, as async-task's tests do: polls, drops, hand-overs, ends that
//! observers were told of, and the account.
//!
//! Sentences 2, 3, 8, 9b, 12, 13, 15, 16, 18b, 19 and 20.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use after::{Batch, Handle, Runner};

use crate::{
    cases::{ENDS, End, Seen, account, counting, observed},
    common::{self, Batches, balanced, keeping, now_or_never, poll_once},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// In the first poll; for a drop, without any.
    Before,
    /// After a poll that was pending, and all of it, that poll too, during a poll of somebody else's scope. (Nobody can drop
    /// a future during its own poll.)
    During,
    /// After a poll that was pending.
    After,
}

const MOMENTS: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    /// The caller awaits the batch.
    Held,
    /// The caller releases it.
    Released,
    /// The request defers through a handle, which defers once more when the batch is over.
    Handle,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    manner: Manner,
    /// On a Runner with a limit and an observer: its batches don't take the short way.
    special: bool,
    request: (End, Moment),
    task: (End, Moment),
}

/// What has happened so far. Asserted as a whole, so that nothing happens twice, early, or unnoticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    request_polls: usize,
    request_drops: usize,
    task_polls: usize,
    task_drops: usize,
    /// Calls of `Spawner::spawn`.
    hand_overs: usize,
}

/// What everything inside the request's scope finds in its context.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own(u64);

/// A request that defers one task in its first poll and one in its destructor.
struct Request {
    case: Case,
    seen: Arc<Seen<Counts>>,
    handle: Arc<Mutex<Option<Handle>>>,
    polls: usize,
}

impl Request {
    fn task(&self) -> Task {
        Task {
            ends: self.case.task,
            seen: self.seen.clone(),
            polls: 0,
        }
    }
}

impl Future for Request {
    type Output = Result<(), &'static str>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        self.seen.count(|counts| counts.request_polls += 1);
        let (end, moment) = self.case.request;
        if self.polls == 1 {
            assert_eq!(after::context::get::<Own>(), None, "starts empty");
            after::context::set(Own(7));
            if self.case.manner == Manner::Handle {
                let handle = after::handle();
                handle.task("of the request").defer(self.task());
                *self.handle.lock().unwrap() = Some(handle);
            } else {
                after::task("of the request").defer(self.task());
            }
            if moment != Moment::Before {
                return Poll::Pending;
            }
        }
        assert_eq!(after::context::get(), Some(Own(7)));
        end.reached()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.seen.count(|counts| counts.request_drops += 1);
        let task = after::task("of the destructor");
        assert!(task.try_defer(self.task()).is_ok());
    }
}

struct Task {
    ends: (End, Moment),
    seen: Arc<Seen<Counts>>,
    polls: usize,
}

impl Future for Task {
    type Output = Result<(), &'static str>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        self.seen.count(|counts| counts.task_polls += 1);
        let (end, moment) = self.ends;
        if self.polls == 1 && moment != Moment::Before {
            return Poll::Pending;
        }
        end.reached()
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
    /// Which the request has left behind.
    handle: Arc<Mutex<Option<Handle>>>,
    expected: Counts,
    deferred: u64,
    ended: u64,
}

impl World {
    fn new(case: Case) -> World {
        let seen = Arc::new(Seen::default());
        let (builder, batches) = counting(&seen, |counts: &mut Counts| counts.hand_overs += 1);
        let builder = match case.special {
            false => builder,
            true => observed(builder.max_running(8), &seen),
        };
        World {
            case,
            runner: builder.build(),
            batches,
            outer: keeping(),
            seen,
            handle: Arc::default(),
            expected: Counts::default(),
            deferred: 0,
            ended: 0,
        }
    }

    /// After every step: the counters, the account, and that nobody else's scope has noticed anything.
    #[track_caller]
    fn check(&self, step: &str) {
        let case = self.case;
        let counts = *self.seen.counts.lock().unwrap();
        assert_eq!(counts, self.expected, "{step}: {case:?}");
        let told = if case.special { self.ended } else { 0 };
        assert_eq!(
            account(&self.runner, &self.seen, &self.outer),
            (self.deferred, self.deferred - self.ended, told),
            "{step}: {case:?}"
        );
    }

    /// Does the steps of one phase, for `Moment::During` inside a poll of a scope of somebody else's.
    fn phase<R>(&mut self, moment: Moment, steps: impl FnOnce(&mut World) -> R) -> R {
        if moment != Moment::During {
            assert!(!after::in_scope());
            let result = steps(self);
            assert!(!after::in_scope());
            return result;
        }
        let outer = self.outer.0.clone();
        now_or_never(outer.scope(async {
            after::context::set(Own(1));
            let result = steps(self);
            assert_eq!(after::context::get(), Some(Own(1)), "restored");
            assert_eq!(after::outcome(), None, "restored");
            result
        }))
    }

    /// From the first poll of the request to its end; gives the batch, if the caller got it.
    fn request(&mut self) -> Option<Batch> {
        let case = self.case;
        let (end, moment) = case.request;
        let request = Request {
            case,
            seen: self.seen.clone(),
            handle: self.handle.clone(),
            polls: 0,
        };
        let scope = self.runner.scope(request).failed_if(Result::is_err);
        let mut future: Pin<Box<dyn Future<Output = Option<Batch>>>> = match case.manner {
            Manner::Plain | Manner::Handle => Box::pin(async {
                let _ = scope.await;
                None
            }),
            Manner::Held | Manner::Released => Box::pin(async { Some(scope.held().await.1) }),
        };
        self.check("opened");
        if moment != Moment::Before {
            assert!(poll_once(future.as_mut()).is_pending());
            self.expected.request_polls = 1;
            self.deferred = 1;
            self.check("pending");
        }
        let mut batch = None;
        if end == End::Drop {
            drop(future);
        } else {
            let polled = catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut())));
            match (polled, end) {
                (Ok(Poll::Ready(held)), End::Finish | End::Fail) => batch = held,
                (Err(payload), End::Panic) => {
                    assert_eq!(payload.downcast_ref(), Some(&"told to"));
                }
                (polled, _) => panic!("{:?}: {case:?}", polled.is_ok()),
            }
            self.expected.request_polls += 1;
            self.deferred = 1;
        }
        self.deferred += 1;
        self.expected.request_drops = 1;
        self.expected.hand_overs = usize::from(batch.is_none());
        self.check("ended");
        batch
    }

    /// From the hand-over to the end of the last task.
    fn batch(&mut self, mut batch: Batch) {
        let (end, moment) = self.case.task;
        let tasks = self.deferred as usize;
        assert_eq!(batch.len(), tasks);
        let names = ["of the request", "of the destructor"];
        assert!(batch.names().eq(names.into_iter().skip(2 - tasks)));
        self.check("got the batch");
        if (end, moment) != (End::Drop, Moment::Before) {
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
            self.check("the first poll starts nothing");
            let polls = if moment == Moment::Before { 1 } else { 2 };
            for poll in 1..=polls {
                let last = poll == polls && end != End::Drop;
                self.expected.task_polls += tasks;
                if last {
                    self.expected.task_drops += tasks;
                    self.ended += tasks as u64;
                }
                assert_eq!(
                    poll_once(Pin::new(&mut batch)).is_ready(),
                    last,
                    "{:?}",
                    self.case
                );
                self.check("polled");
            }
            assert_eq!(batch.is_empty(), end != End::Drop);
        }
        drop(batch);
        if end == End::Drop {
            self.expected.task_drops += tasks;
            self.ended += tasks as u64;
        }
        self.check("the batch is over");
    }

    /// The batch is over, and the handle is not: what it brings is a batch of its own.
    fn late(&mut self, handle: Handle) {
        let seen = self.seen.clone();
        handle.defer(Task {
            ends: (End::Finish, Moment::Before),
            seen,
            polls: 0,
        });
        self.deferred += 1;
        self.expected.hand_overs += 1;
        self.check("late");
        let mut late = self.batches.take_one();
        assert!(poll_once(Pin::new(&mut late)).is_pending());
        self.check("late: the first poll starts nothing");
        assert!(poll_once(Pin::new(&mut late)).is_ready());
        self.expected.task_polls += 1;
        self.expected.task_drops += 1;
        self.ended += 1;
        self.check("late: over");
    }

    fn run(mut self) {
        let case = self.case;
        let held = self.phase(case.request.1, World::request);
        let batch = match (held, case.manner) {
            (Some(batch), Manner::Held) => batch,
            (held, _) => {
                if let Some(batch) = held {
                    batch.release();
                    self.expected.hand_overs += 1;
                    self.check("released");
                }
                self.batches.take_one()
            }
        };
        self.phase(case.task.1, |world| world.batch(batch));
        let (heads, mut expected) = self.heads();
        assert_eq!(heads, expected, "{case:?}");
        let handle = self.handle.lock().unwrap().take();
        assert_eq!(
            handle.is_some(),
            case.manner == Manner::Handle && case.request != (End::Drop, Moment::Before)
        );
        if let Some(handle) = handle {
            self.late(handle);
            expected[0] += 1;
            assert_eq!(self.heads().0, expected, "{case:?}");
        }
        let outcome = case.request.0.outcome();
        let outcomes = self.seen.outcomes.lock().unwrap();
        assert_eq!(
            *outcomes,
            vec![Some(outcome); self.deferred as usize],
            "{case:?}"
        );
        assert_eq!(self.batches.len(), 0);
        now_or_never(self.runner.drain());
    }

    /// Completed, failed, panicked, lost and all others: as they are, and as they should be if all tasks ended alike.
    fn heads(&self) -> ([u64; 5], [u64; 5]) {
        let stats = balanced(&self.runner);
        let others = stats.timed_out + stats.discarded + stats.pending;
        let heads = [
            stats.completed,
            stats.failed,
            stats.panicked,
            stats.lost,
            others,
        ];
        let mut expected = [0; 5];
        expected[match self.case.task.0 {
            End::Finish => 0,
            End::Fail => 1,
            End::Panic => 2,
            End::Drop => 3,
        }] = self.deferred;
        (heads, expected)
    }
}

/// Runs all cases of one manner.
fn matrix(manner: Manner) {
    common::keep_quiet();
    let mut cases = 0;
    for special in [false, true] {
        for request in ENDS
            .into_iter()
            .flat_map(|end| MOMENTS.map(|moment| (end, moment)))
        {
            for task in ENDS
                .into_iter()
                .flat_map(|end| MOMENTS.map(|moment| (end, moment)))
            {
                let case = Case {
                    manner,
                    special,
                    request,
                    task,
                };
                World::new(case).run();
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * 12 * 12);
}

#[test]
fn tasks_of_a_plain_scope_end_as_they_should_at_every_moment() {
    matrix(Manner::Plain);
}

#[test]
fn tasks_of_an_awaited_batch_end_as_they_should_at_every_moment() {
    matrix(Manner::Held);
}

#[test]
fn tasks_of_a_released_batch_end_as_they_should_at_every_moment() {
    matrix(Manner::Released);
}

#[test]
fn tasks_deferred_through_a_handle_end_as_they_should_at_every_moment() {
    matrix(Manner::Handle);
}
