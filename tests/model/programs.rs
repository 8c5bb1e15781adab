//! Random programs against a model: several requests and their batches, polled by hand on one thread, so that each case
//! can be reproduced and shrunk.
//!
//! The model is what the tasks note themselves: each says that it was made, that it started, how it ended and that it was
//! dropped. After every step the account balances (sentence 19); at the end its heads are what the tasks have noted, each
//! task started once at the most, each was dropped exactly once, and those of one request started in their order. Each
//! finds the context of its own request, as it stood at the end.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use after::{Handle, Order, Outcome, Overflow, Runner, spawner::BlockingWork};
use proptest::prelude::*;

use crate::{
    SEEDS,
    common::{self, ByHand, balanced, now_or_never, poll_once, yields},
};

/// How a task ends.
#[derive(Clone, Copy, Debug)]
enum Body {
    Completes,
    Fails,
    Panics,
    Never,
    /// Defers another, which defers another, so many times.
    Defers(u8),
    /// Keeps a guard that defers another when it is dropped.
    DefersOnDrop,
}

/// How it is deferred.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Plain,
    Keyed(u8),
    OnSuccess,
    OnFailure,
    Spawned,
    Blocking,
    ThroughHandle,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Ok,
    Err,
    Panic,
    Drop,
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        order: u8,
        held: bool,
        /// Its destructor defers.
        guarded: bool,
    },
    /// A value of the context, one further on than the last.
    SetContext {
        request: usize,
    },
    Defer {
        request: usize,
        manner: Manner,
        body: Body,
        steps: usize,
    },
    Forget {
        request: usize,
        key: u8,
    },
    TakeHandle {
        request: usize,
    },
    LateDefer {
        handle: usize,
        body: Body,
    },
    Finish {
        request: usize,
        end: End,
    },
    PollBatch {
        batch: usize,
    },
    DropBatch {
        batch: usize,
    },
    ReleaseHeld {
        batch: usize,
    },
    PollHeld {
        batch: usize,
    },
    DropHeld {
        batch: usize,
    },
    RunBlocking,
    DropBlocking,
    FireTimer {
        timer: usize,
    },
    Drain,
    Shutdown,
}

fn bodies() -> impl Strategy<Value = Body> {
    prop_oneof![
        6 => Just(Body::Completes),
        1 => Just(Body::Fails),
        1 => Just(Body::Panics),
        1 => Just(Body::Never),
        2 => (1..4_u8).prop_map(Body::Defers),
        2 => Just(Body::DefersOnDrop),
    ]
}

fn manners() -> impl Strategy<Value = Manner> {
    prop_oneof![
        6 => Just(Manner::Plain),
        2 => (0..3_u8).prop_map(Manner::Keyed),
        1 => Just(Manner::OnSuccess),
        1 => Just(Manner::OnFailure),
        1 => Just(Manner::Spawned),
        1 => Just(Manner::Blocking),
        1 => Just(Manner::ThroughHandle),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let request = 0..4_usize;
    let some = 0..8_usize;
    prop_oneof![
        3 => (0..3_u8, any::<bool>(), any::<bool>())
            .prop_map(|(order, held, guarded)| Step::Open { order, held, guarded }),
        2 => request.clone().prop_map(|request| Step::SetContext { request }),
        12 => (request.clone(), manners(), bodies(), 0..3_usize)
            .prop_map(|(request, manner, body, steps)| Step::Defer { request, manner, body, steps }),
        1 => (request.clone(), 0..3_u8).prop_map(|(request, key)| Step::Forget { request, key }),
        1 => request.clone().prop_map(|request| Step::TakeHandle { request }),
        2 => (some.clone(), bodies()).prop_map(|(handle, body)| Step::LateDefer { handle, body }),
        4 => (request, prop_oneof![3 => Just(End::Ok), 1 => Just(End::Err), 1 => Just(End::Panic), 1 => Just(End::Drop)])
            .prop_map(|(request, end)| Step::Finish { request, end }),
        12 => some.clone().prop_map(|batch| Step::PollBatch { batch }),
        1 => some.clone().prop_map(|batch| Step::DropBatch { batch }),
        1 => some.clone().prop_map(|batch| Step::ReleaseHeld { batch }),
        4 => some.clone().prop_map(|batch| Step::PollHeld { batch }),
        1 => some.prop_map(|batch| Step::DropHeld { batch }),
        2 => Just(Step::RunBlocking),
        1 => Just(Step::DropBlocking),
        2 => (0..8_usize).prop_map(|timer| Step::FireTimer { timer }),
        1 => Just(Step::Drain),
        1 => Just(Step::Shutdown),
    ]
}

/// What the tasks have noted.
#[derive(Default)]
struct Notes {
    made: u64,
    dropped: u64,
    completed: u64,
    failed: u64,
    panicked: u64,
    /// Closures that have returned; those past their limit count as timed out.
    returned: u64,
    /// Of each task, how often it started.
    starts: Vec<u32>,
    /// The request and place of each plain task, in the order of starting.
    order: Vec<(usize, usize)>,
}

type Shared = Arc<Mutex<Notes>>;

/// The type of what `SetContext` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value(u32);

/// What the context of one request holds, for its tasks to compare.
#[derive(Clone, Default)]
struct Holds {
    value: Arc<Mutex<Option<Value>>>,
    /// Of work that comes when the request and its tasks are over: the values may have gone.
    may_be_gone: bool,
}

impl Holds {
    fn is_seen(&self) -> bool {
        let seen: Option<Value> = after::context::get();
        seen == *self.value.lock().unwrap() || self.may_be_gone && seen.is_none()
    }
}

/// Lives as long as its task.
struct Life {
    notes: Shared,
    holds: Holds,
    id: usize,
    defers_on_drop: bool,
}

impl Life {
    fn new(notes: &Shared, holds: &Holds, defers_on_drop: bool) -> Life {
        let mut locked = notes.lock().unwrap();
        locked.made += 1;
        locked.starts.push(0);
        let id = locked.starts.len() - 1;
        drop(locked);
        Life {
            notes: notes.clone(),
            holds: holds.clone(),
            id,
            defers_on_drop,
        }
    }

    /// The context is that of its request, as it stood at the end.
    fn sees_its_context(&self) {
        assert!(self.holds.is_seen(), "{:?}", after::context::get::<Value>());
    }

    fn starts(&self, place: Option<(usize, usize)>) {
        self.sees_its_context();
        assert!(after::outcome().is_some());
        assert!(after::context::try_set(Value(0)).is_err(), "it is frozen");
        let mut notes = self.notes.lock().unwrap();
        notes.starts[self.id] += 1;
        notes.order.extend(place);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.notes.lock().unwrap().dropped += 1;
        if !std::thread::panicking() {
            self.sees_its_context();
        }
        if self.defers_on_drop {
            let life = Life::new(&self.notes, &self.holds, false);
            // In a destructor `try_defer`; it is inside a scope, so it takes the task.
            assert!(after::try_defer(run(life, Body::Completes, 0, None)).is_ok());
        }
    }
}

async fn run(
    life: Life,
    body: Body,
    steps: usize,
    place: Option<(usize, usize)>,
) -> Result<(), &'static str> {
    life.starts(place);
    yields(steps).await;
    let notes = life.notes.clone();
    match body {
        Body::Completes | Body::DefersOnDrop => notes.lock().unwrap().completed += 1,
        Body::Fails => {
            notes.lock().unwrap().failed += 1;
            return Err("told to");
        }
        Body::Panics => {
            notes.lock().unwrap().panicked += 1;
            std::panic::panic_any("told to");
        }
        Body::Never => std::future::pending().await,
        Body::Defers(depth) => {
            let inner = Life::new(&notes, &life.holds, false);
            after::defer(match depth {
                0 | 1 => nested(inner, Body::Completes),
                _ => nested(inner, Body::Defers(depth - 1)),
            });
            yields(1).await;
            notes.lock().unwrap().completed += 1;
        }
    }
    Ok(())
}

/// A task that a task defers.
fn nested(
    life: Life,
    body: Body,
) -> Pin<Box<dyn Future<Output = Result<(), &'static str>> + Send>> {
    Box::pin(run(life, body, 1, None))
}

/// What a request is told to do, inside its scope.
type Command = Box<dyn FnOnce() -> Option<End>>;

#[derive(Clone, Default)]
struct Commands(Rc<RefCell<VecDeque<Command>>>);

struct Request {
    commands: Commands,
    guard: Option<(Shared, Holds)>,
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some((notes, holds)) = &self.guard {
            let life = Life::new(notes, holds, false);
            life.sees_its_context();
            assert!(after::try_defer(run(life, Body::Completes, 0, None)).is_ok());
        }
    }
}

impl Future for Request {
    type Output = Result<(), ()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let command = self.commands.0.borrow_mut().pop_front();
            match command.map(|command| command()) {
                None => return Poll::Pending,
                Some(None) => {}
                Some(Some(End::Panic)) => std::panic::panic_any("told to"),
                Some(Some(End::Err)) => return Poll::Ready(Err(())),
                Some(Some(_)) => return Poll::Ready(Ok(())),
            }
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Option<after::Batch>>>>;

struct Open {
    future: Running,
    commands: Commands,
    holds: Holds,
    /// So many plain tasks so far; `None` where they don't start in order.
    places: Option<usize>,
    id: usize,
    /// Told to end, and not resolved: it waits for room.
    ending: bool,
}

#[derive(Clone, Copy, Debug)]
enum Limits {
    None,
    Running,
    Shed,
    Backpressure,
    TaskTimeout,
    ScopeTimeout,
    AllTogether,
}

struct Machine {
    runner: Runner,
    spawner: ByHand,
    notes: Shared,
    open: Vec<Open>,
    handles: Vec<(Handle, Holds)>,
    batches: Vec<after::Batch>,
    held: Vec<after::Batch>,
    requests: usize,
    limits: Limits,
}

impl Machine {
    fn new(limits: Limits) -> Machine {
        let spawner = ByHand::default();
        let builder = Runner::builder().spawner(spawner.clone());
        let builder = match limits {
            Limits::None => builder,
            Limits::Running => builder.max_running(2),
            Limits::Shed => builder
                .max_running(2)
                .max_waiting(3)
                .overflow(Overflow::Shed),
            Limits::Backpressure => builder.max_running(2).max_waiting(3),
            Limits::TaskTimeout => builder.task_timeout(Duration::from_secs(1)),
            Limits::ScopeTimeout => builder.scope_timeout(Duration::from_secs(1)),
            Limits::AllTogether => builder
                .max_running(2)
                .max_waiting(3)
                .overflow(Overflow::Shed)
                .task_timeout(Duration::from_secs(1))
                .scope_timeout(Duration::from_secs(2)),
        };
        Machine {
            runner: builder.build(),
            spawner,
            notes: Shared::default(),
            open: Vec::new(),
            handles: Vec::new(),
            batches: Vec::new(),
            held: Vec::new(),
            requests: 0,
            limits,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open {
                order,
                held,
                guarded,
            } if self.open.len() < 4 => self.start(order, held, guarded),
            Step::SetContext { request } => {
                let Some(holds) = self.open.get(request).map(|open| open.holds.clone()) else {
                    return;
                };
                self.tell(request, move || {
                    assert!(holds.is_seen());
                    let mut last = holds.value.lock().unwrap();
                    let value = Value(last.map_or(0, |Value(last)| last + 1));
                    after::context::set(value);
                    *last = Some(value);
                    None
                });
            }
            Step::Defer {
                request,
                manner,
                body,
                steps,
            } => self.defer(request, manner, body, steps),
            Step::Forget { request, key } => {
                self.tell(request, move || {
                    after::forget(&key.to_string());
                    None
                });
            }
            Step::TakeHandle { request } => {
                let taken: Rc<RefCell<Option<Handle>>> = Rc::default();
                let inner = taken.clone();
                self.tell(request, move || {
                    *inner.borrow_mut() = Some(after::handle());
                    None
                });
                if let Some(handle) = taken.take() {
                    // The request that gave it has not ended.
                    self.handles
                        .push((handle, self.open[request].holds.clone()));
                }
            }
            Step::LateDefer { handle, body } if handle < self.handles.len() => {
                let (handle, mut holds) = self.handles[handle].clone();
                // The request and each of its tasks have a share. Of those that have ended, a batch that waits for a
                // closure may still be there to be joined, with the values.
                let shares = self.handles.iter();
                let shares = shares.filter(|(_, other)| Arc::ptr_eq(&other.value, &holds.value));
                if Arc::strong_count(&holds.value) == shares.count() + 1 {
                    // What comes now is none of the request's tasks: it has no share.
                    let value = *holds.value.lock().unwrap();
                    holds = Holds {
                        value: Arc::new(Mutex::new(value)),
                        may_be_gone: true,
                    };
                }
                let life = Life::new(&self.notes, &holds, matches!(body, Body::DefersOnDrop));
                handle.defer(run(life, body, 0, None));
            }
            Step::Finish { request, end } => self.finish(request, end),
            Step::PollBatch { batch } => {
                let polled = self.batches.get_mut(batch);
                if polled.is_some_and(|batch| poll_once(Pin::new(batch)).is_ready()) {
                    drop(self.batches.swap_remove(batch));
                }
            }
            Step::DropBatch { batch } if batch < self.batches.len() => {
                drop(self.batches.swap_remove(batch));
            }
            Step::ReleaseHeld { batch } if batch < self.held.len() => {
                self.held.swap_remove(batch).release();
            }
            Step::PollHeld { batch } => {
                let polled = self.held.get_mut(batch);
                if polled.is_some_and(|batch| poll_once(Pin::new(batch)).is_ready()) {
                    drop(self.held.swap_remove(batch));
                }
            }
            Step::DropHeld { batch } if batch < self.held.len() => {
                drop(self.held.swap_remove(batch));
            }
            Step::RunBlocking => {
                let work = self.spawner.blocking.lock().unwrap().pop();
                work.into_iter().for_each(BlockingWork::run);
            }
            Step::FireTimer { timer } => self.spawner.fire_at(timer),
            Step::DropBlocking => drop(self.spawner.blocking.lock().unwrap().pop()),
            Step::Drain => {
                let pending = self.runner.stats().pending;
                let mut drain = Box::pin(self.runner.drain());
                assert_eq!(poll_once(drain.as_mut()).is_ready(), pending == 0);
            }
            Step::Shutdown => {
                let stats = balanced(&self.runner);
                let report = now_or_never(self.runner.shutdown(Duration::ZERO));
                assert_eq!(report.stats(), stats);
                assert_eq!(report.is_clean(), stats.pending == 0);
                // Not named: what is of a request that has not ended, and what the destructors of shed tasks have deferred in
                // a batch without an inbox, until its next turn.
                let unfinished = report.unfinished().len() as u64;
                assert!(unfinished <= stats.pending, "{report}");
                if self.open.is_empty() {
                    let batches = self.batches.iter().chain(&self.held);
                    let joining = batches.map(|batch| batch.len() - batch.names().count());
                    let unnamed = stats.pending - unfinished;
                    assert!(unnamed <= joining.sum::<usize>() as u64, "{report}");
                }
            }
            _ => {}
        }
        self.batches.extend(self.spawner.batches.take_all());
        balanced(&self.runner);
    }

    fn start(&mut self, order: u8, held: bool, guarded: bool) {
        let (commands, holds) = (Commands::default(), Holds::default());
        let request = Request {
            commands: commands.clone(),
            guard: guarded.then(|| (self.notes.clone(), holds.clone())),
        };
        let order = match order {
            0 => Order::Concurrent,
            1 => Order::Sequential,
            _ => Order::Parallel,
        };
        let scope = self
            .runner
            .scope(request)
            .failed_if(Result::is_err)
            .order(order);
        let future: Running = match held {
            true => Box::pin(async move { Some(scope.held().await.1) }),
            false => Box::pin(async move {
                let _ = scope.await;
                None
            }),
        };
        self.requests += 1;
        self.open.push(Open {
            future,
            commands,
            holds,
            places: (order != Order::Parallel).then_some(0),
            id: self.requests,
            ending: false,
        });
    }

    /// Runs a command inside a request; gives whether there is such a request.
    fn tell(&mut self, request: usize, command: impl FnOnce() -> Option<End> + 'static) -> bool {
        let Some(open) = self.open.get_mut(request).filter(|open| !open.ending) else {
            return false;
        };
        open.commands.0.borrow_mut().push_back(Box::new(command));
        self.poll_request(request);
        true
    }

    fn poll_request(&mut self, request: usize) {
        let open = &mut self.open[request];
        let polled = catch_unwind(AssertUnwindSafe(|| poll_once(open.future.as_mut())));
        match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(batch)) => self.held.extend(batch),
            Err(payload) => assert_eq!(payload.downcast_ref(), Some(&"told to")),
        }
        drop(self.open.remove(request));
    }

    fn defer(&mut self, request: usize, manner: Manner, body: Body, steps: usize) {
        let notes = self.notes.clone();
        let Some(open) = self.open.get_mut(request).filter(|open| !open.ending) else {
            return;
        };
        let holds = open.holds.clone();
        // Conditional tasks and those with a key start in order too, if they start.
        let place = match manner {
            Manner::Spawned | Manner::Blocking => None,
            _ => open.places.as_mut().map(|places| {
                *places += 1;
                (open.id, *places)
            }),
        };
        self.tell(request, move || {
            let life = Life::new(&notes, &holds, matches!(body, Body::DefersOnDrop));
            let task = after::task("task");
            match manner {
                Manner::Plain => after::defer(run(life, body, steps, place)),
                Manner::Keyed(key) => {
                    task.key(key.to_string())
                        .defer(run(life, body, steps, place));
                }
                Manner::OnSuccess => task.on_success().defer(run(life, body, steps, place)),
                Manner::OnFailure => task.on_failure().defer(run(life, body, steps, place)),
                Manner::Spawned => task.spawned().defer(run(life, body, steps, None)),
                Manner::ThroughHandle => after::handle().defer(run(life, body, steps, place)),
                Manner::Blocking => task.defer_blocking(move || {
                    life.starts(None);
                    assert!(after::in_scope());
                    life.notes.lock().unwrap().returned += 1;
                }),
            }
            None
        });
    }

    fn finish(&mut self, request: usize, end: End) {
        if request >= self.open.len() {
            return;
        }
        if let End::Drop = end {
            drop(self.open.remove(request));
        } else if self.open[request].ending {
            self.poll_request(request);
        } else {
            let before = self.open.len();
            self.tell(request, move || Some(end));
            if self.open.len() == before {
                assert!(
                    matches!(self.limits, Limits::Backpressure),
                    "only that waits"
                );
                self.open[request].ending = true;
            }
        }
    }

    /// Ends everything, and compares.
    fn end(mut self) {
        // Of what waits for room, the first may have to be dropped for the others to fit.
        while !self.open.is_empty() {
            let before = self.open.len();
            for request in (0..before).rev() {
                self.step(Step::Finish {
                    request,
                    end: End::Ok,
                });
            }
            if self.open.len() == before {
                self.settle();
                for request in (0..self.open.len()).rev() {
                    self.poll_request(request);
                }
                if self.open.len() == before {
                    self.step(Step::Finish {
                        request: 0,
                        end: End::Drop,
                    });
                }
            }
        }
        for batch in std::mem::take(&mut self.held) {
            batch.release();
        }
        self.settle();
        // What never ends is lost.
        while let Some(batch) = self.batches.pop() {
            drop(batch);
            self.batches.extend(self.spawner.batches.take_all());
        }
        drop(self.handles);
        let stats = balanced(&self.runner);
        let notes = self.notes.lock().unwrap();
        assert_eq!(stats.pending, 0, "{stats:?}");
        assert_eq!(stats.deferred, notes.made);
        assert_eq!(
            (stats.failed, stats.panicked),
            (notes.failed, notes.panicked),
            "{stats:?}"
        );
        let completed = stats.completed - notes.completed;
        assert!(completed <= notes.returned, "{stats:?}");
        if !matches!(
            self.limits,
            Limits::TaskTimeout | Limits::ScopeTimeout | Limits::AllTogether
        ) {
            assert_eq!((completed, stats.timed_out), (notes.returned, 0));
        }
        assert_eq!(
            notes.dropped, notes.made,
            "every task is dropped exactly once"
        );
        assert!(
            notes.starts.iter().all(|starts| *starts <= 1),
            "no task runs twice"
        );
        for request in 1..=self.requests {
            let places: Vec<usize> = notes
                .order
                .iter()
                .filter(|(of, _)| *of == request)
                .map(|(_, place)| *place)
                .collect();
            assert!(places.is_sorted(), "request {request} started {places:?}");
        }
    }

    /// Polls and runs until nothing changes.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.batches.extend(self.spawner.batches.take_all());
            while let Some(work) = self.spawner.blocking.lock().unwrap().pop() {
                work.run();
            }
            for batch in (0..self.batches.len()).rev() {
                self.step(Step::PollBatch { batch });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400),
        failure_persistence: Some(Box::new(SEEDS)),
        ..ProptestConfig::default()
    })]

    /// Sentences 2, 6 to 9, 11 to 15, 18 to 21.
    #[test]
    fn random_programs_agree_with_the_model(
        limits in prop_oneof![
            Just(Limits::None),
            Just(Limits::Running),
            Just(Limits::Shed),
            Just(Limits::Backpressure),
            Just(Limits::TaskTimeout),
            Just(Limits::ScopeTimeout),
            Just(Limits::AllTogether),
        ],
        program in prop::collection::vec(steps(), 1..60),
    ) {
        common::keep_quiet();
        let mut machine = Machine::new(limits);
        for step in program {
            machine.step(step);
        }
        machine.end();
    }
}

/// Conditions are decided on the outcome that the model knows: kept out of the random programs, whose outcome varies.
#[test]
fn the_model_knows_its_outcomes() {
    for (end, outcome) in [
        (End::Ok, Outcome::Finished),
        (End::Err, Outcome::Failed),
        (End::Panic, Outcome::Panicked),
        (End::Drop, Outcome::Cancelled),
    ] {
        let mut machine = Machine::new(Limits::None);
        machine.step(open(0, false));
        let seen: Arc<Mutex<Option<Outcome>>> = Arc::default();
        let inner = seen.clone();
        machine.tell(0, move || {
            after::defer(async move { *inner.lock().unwrap() = after::outcome() });
            None
        });
        machine.step(Step::Finish { request: 0, end });
        for _ in 0..3 {
            machine.step(Step::PollBatch { batch: 0 });
        }
        assert_eq!(*seen.lock().unwrap(), Some(outcome));
    }
}

fn open(order: u8, held: bool) -> Step {
    Step::Open {
        order,
        held,
        guarded: false,
    }
}

fn defer(manner: Manner, body: Body) -> Step {
    Step::Defer {
        request: 0,
        manner,
        body,
        steps: 0,
    }
}

/// The smallest programs that have shown a defect, written out: a seed means another program when an operation is added.
#[test]
fn programs_that_have_found_defects_agree_with_the_model() {
    common::keep_quiet();
    let end = || Step::Finish {
        request: 0,
        end: End::Ok,
    };
    let poll = || Step::PollBatch { batch: 0 };
    let plain = || defer(Manner::Plain, Body::Completes);
    let spawned = || defer(Manner::Spawned, Body::Completes);
    let programs = [
        (
            Limits::None,
            vec![open(0, false), open(0, true), end(), plain()],
        ),
        (
            Limits::Shed,
            vec![
                open(2, false),
                open(0, false),
                open(0, false),
                spawned(),
                open(0, false),
                plain(),
                plain(),
                plain(),
                spawned(),
                defer(Manner::Plain, Body::DefersOnDrop),
            ],
        ),
        // `Batch::len` left out what the destructor of a shed task had deferred.
        (
            Limits::AllTogether,
            vec![
                open(0, false),
                plain(),
                plain(),
                plain(),
                plain(),
                plain(),
                defer(Manner::Plain, Body::DefersOnDrop),
                end(),
                Step::Shutdown,
            ],
        ),
        (
            Limits::None,
            vec![
                open(0, false),
                defer(Manner::Blocking, Body::Completes),
                end(),
                poll(),
                poll(),
                Step::RunBlocking,
                Step::DropBatch { batch: 0 },
            ],
        ),
    ];
    for (limits, program) in programs {
        let mut machine = Machine::new(limits);
        for step in program {
            machine.step(step);
        }
        machine.end();
    }
}
