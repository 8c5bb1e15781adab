//! Random programs of requests under the layer, open scopes and plain ones, several at once, polled by hand on one thread,
//! against a small model: under no limit, with only `max_running`, and under small limits that push back or shed.
//!
//! After each step:
//!
//! - The account balances (sentence 19).
//! - No task starts before its request's moment: the head is out, the body has ended, the server has let go of the last
//!   byte (22, 22b). It starts once, with the outcome that the request has ended with.
//! - No more tasks run at once than may (21).
//! - Of what was handed over, no more waits than may: `max_waiting` when what is beyond is shed. When it is pushed back,
//!   twice that and one request more, whose place was lent last; or once that and two that were let in whole, if they are
//!   larger. What an answer has waited for that was read comes on top (21).
//! - What an answer has waited for is not shed, unless its response was given up and there have been so many tasks since
//!   then that together they are more than may be there at once (21).
//! - A request that has deferred nothing never waits, nobody does where nothing pushes back, and nothing is shed where no
//!   number of waiting tasks is set (21).
//!
//! When all that was woken is driven to the end, and responses stay unread, frames kept and batches held:
//!
//! - Every request that was polled has its head: nobody waits for a client (21).
//! - Every batch has ended, but those that are held and those that wait for a frame.
//!
//! At the end:
//!
//! - Nothing is pending, each head of the account is what the tasks have noted, and each task was dropped once (19, 20).
//! - All room is there again: so many tasks are accepted from a dropped scope as in the beginning, and no more (21).

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    mem,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use after::{
    Batch, Handle, OpenScope, Order, Outcome, Overflow, Runner, Stats,
    tower::{AfterBody, AfterFuture, AfterLayer, RunAfter},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use proptest::prelude::*;
use tower::{Layer, Service};

use crate::{
    SEEDS,
    common::{self, Batches, balanced, keeping_with, polls_to_end, yields},
};

/// What did not run, or not to its end: dropped with its batch, or by a limit.
fn dropped(stats: &Stats) -> u64 {
    stats.shed + stats.lost
}

/// So many run, and so many wait.
#[derive(Clone, Copy, Debug)]
enum Limits {
    None,
    Running(usize),
    Shed(usize, usize),
    Backpressure(usize, usize),
}

/// What is deferred at once.
#[derive(Clone, Copy, Debug)]
struct Spec {
    tasks: usize,
    mix: Mix,
    /// How often each task yields.
    steps: usize,
}

#[derive(Clone, Copy, Debug)]
enum Mix {
    Plain,
    /// Every third, or of an even number all, on this condition.
    OnSuccess,
    OnFailure,
    /// Every other one a batch of its own.
    Spawned,
    /// Every fourth defers another.
    Nested,
    /// The last one with a key.
    Keyed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Head,
    Body,
    Written,
    Plain,
    Open,
}

/// What a handler answers, or how an open scope ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Fine,
    Failed,
    Error,
}

#[derive(Clone, Debug)]
enum Step {
    Start {
        kind: Kind,
        order: Order,
        handle: bool,
        spec: Spec,
        /// In the first poll, and whether the body ends with the head.
        answer: Option<(Answer, bool)>,
    },
    Defer {
        request: usize,
        spec: Spec,
    },
    /// The handler answers, and an open scope waits until it is ready.
    Answer {
        request: usize,
        answer: Answer,
        at_once: bool,
    },
    /// An open scope defers more, and waits for that.
    More {
        request: usize,
        spec: Spec,
        at_once: bool,
    },
    Poll {
        request: usize,
    },
    Read {
        request: usize,
        keep: bool,
    },
    DropFrame {
        frame: usize,
    },
    /// Of a body, or of an open scope.
    End {
        request: usize,
        error: bool,
    },
    Drop {
        request: usize,
    },
    /// All that have their head: the clients go at once.
    DropAll,
    /// The wait of an open scope alone.
    DropWait {
        request: usize,
    },
    Hold {
        request: usize,
    },
    /// A scope that is dropped at once: what can't wait.
    Burst {
        tasks: usize,
    },
    Late {
        handle: usize,
        tasks: usize,
        spawned: bool,
    },
    PollBatch {
        batch: usize,
    },
    DropBatch {
        batch: usize,
    },
    Release {
        batch: usize,
    },
    /// All batches that were woken are driven to the end, and nothing else.
    Drive,
    Settle,
}

fn limits() -> impl Strategy<Value = Limits> {
    let (running, waiting) = (1..4_usize, 1..6_usize);
    prop_oneof![
        1 => Just(Limits::None),
        1 => running.clone().prop_map(Limits::Running),
        2 => (running.clone(), waiting.clone()).prop_map(|(running, waiting)| Limits::Shed(running, waiting)),
        6 => (running, waiting).prop_map(|(running, waiting)| Limits::Backpressure(running, waiting)),
    ]
}

fn specs() -> impl Strategy<Value = Spec> {
    let tasks = prop_oneof![1 => Just(0), 6 => 1..5_usize, 1 => 5..=30_usize];
    let mix = prop_oneof![
        4 => Just(Mix::Plain),
        1 => Just(Mix::OnSuccess),
        1 => Just(Mix::OnFailure),
        1 => Just(Mix::Spawned),
        1 => Just(Mix::Nested),
        1 => Just(Mix::Keyed),
    ];
    (tasks, mix, 0..3_usize).prop_map(|(tasks, mix, steps)| Spec { tasks, mix, steps })
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Fine),
        1 => Just(Answer::Failed),
        1 => Just(Answer::Error),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let kinds = prop_oneof![
        1 => Just(Kind::Head),
        3 => Just(Kind::Body),
        3 => Just(Kind::Written),
        1 => Just(Kind::Plain),
        2 => Just(Kind::Open),
    ];
    let orders = prop_oneof![
        4 => Just(Order::Concurrent),
        1 => Just(Order::Sequential),
        1 => Just(Order::Parallel),
    ];
    let answer = prop::option::weighted(0.7, (answers(), any::<bool>()));
    let request = 0..6_usize;
    let some = 0..8_usize;
    prop_oneof![
        8 => (kinds, orders, any::<bool>(), specs(), answer)
            .prop_map(|(kind, order, handle, spec, answer)| Step::Start { kind, order, handle, spec, answer }),
        3 => (request.clone(), specs()).prop_map(|(request, spec)| Step::Defer { request, spec }),
        4 => (request.clone(), answers(), any::<bool>())
            .prop_map(|(request, answer, at_once)| Step::Answer { request, answer, at_once }),
        3 => (request.clone(), specs(), any::<bool>())
            .prop_map(|(request, spec, at_once)| Step::More { request, spec, at_once }),
        4 => request.clone().prop_map(|request| Step::Poll { request }),
        4 => (request.clone(), any::<bool>()).prop_map(|(request, keep)| Step::Read { request, keep }),
        3 => some.clone().prop_map(|frame| Step::DropFrame { frame }),
        3 => (request.clone(), any::<bool>()).prop_map(|(request, error)| Step::End { request, error }),
        2 => request.clone().prop_map(|request| Step::Drop { request }),
        2 => Just(Step::DropAll),
        1 => request.clone().prop_map(|request| Step::DropWait { request }),
        1 => request.prop_map(|request| Step::Hold { request }),
        2 => (1..20_usize).prop_map(|tasks| Step::Burst { tasks }),
        2 => (some.clone(), 1..4_usize, any::<bool>())
            .prop_map(|(handle, tasks, spawned)| Step::Late { handle, tasks, spawned }),
        8 => some.clone().prop_map(|batch| Step::PollBatch { batch }),
        1 => some.clone().prop_map(|batch| Step::DropBatch { batch }),
        1 => some.prop_map(|batch| Step::Release { batch }),
        3 => Just(Step::Drive),
        2 => Just(Step::Settle),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Deferred,
    Running,
    Completed,
    /// Without having completed.
    Gone,
}

/// What is known of a task.
struct Noted {
    request: usize,
    state: State,
    started: bool,
    drops: u32,
    /// On which of the two: finished, or not.
    condition: Option<bool>,
    replaced: bool,
    /// Its request has waited for room for it.
    waited: bool,
    /// It comes when its request has answered.
    late: bool,
}

/// What is known of a request.
struct Known {
    kind: Kind,
    /// A plain scope has answered, and may wait for room.
    collected: bool,
    head: bool,
    over: bool,
    frames: usize,
    outcome: Option<Outcome>,
    /// Its batch is gone: what comes late goes its own way.
    abandoned: bool,
    /// Its tasks stand in line.
    in_line: bool,
    keyed: Option<usize>,
    place: Option<Place>,
}

/// What a request has waited for, and lends until its end.
#[derive(Clone, Copy)]
struct Place {
    /// How many tasks were gone when it was lent, and had no place.
    gone: usize,
}

impl Known {
    fn may_run(&self) -> bool {
        match self.kind {
            _ if self.abandoned => true,
            Kind::Head => self.head || self.over,
            Kind::Written => self.over && self.frames == 0,
            Kind::Body | Kind::Plain | Kind::Open => self.over,
        }
    }

    fn handed_over(&self) -> bool {
        self.over || (self.kind == Kind::Head && self.head)
    }
}

#[derive(Default)]
struct Notes {
    tasks: Vec<Noted>,
    requests: Vec<Known>,
    running: usize,
    most_running: usize,
    /// What tasks have found: a panic of theirs would be caught.
    faults: Vec<String>,
}

type Shared = Arc<Mutex<Notes>>;

/// Lives as long as its task.
struct Life {
    notes: Shared,
    id: usize,
}

impl Life {
    fn new(notes: &Shared, request: usize, condition: Option<bool>, keyed: bool) -> Life {
        let mut locked = notes.lock().unwrap();
        let id = locked.tasks.len();
        let known = &mut locked.requests[request];
        let late = known.handed_over() || known.collected;
        let replaced = match keyed {
            true => known.keyed.replace(id),
            false => None,
        };
        locked.tasks.push(Noted {
            request,
            state: State::Deferred,
            started: false,
            drops: 0,
            condition,
            replaced: false,
            waited: false,
            late,
        });
        if let Some(replaced) = replaced {
            locked.tasks[replaced].replaced = true;
        }
        drop(locked);
        let notes = notes.clone();
        Life { notes, id }
    }

    fn starts(&self) {
        let outcome = after::outcome();
        let mut notes = self.notes.lock().unwrap();
        let notes = &mut *notes;
        notes.running += 1;
        if notes.running > notes.most_running {
            notes.faults.push(format!("{} run", notes.running));
        }
        let task = &mut notes.tasks[self.id];
        if mem::replace(&mut task.started, true) {
            notes.faults.push(format!("task {} starts twice", self.id));
        }
        task.state = State::Running;
        let known = &notes.requests[task.request];
        if !known.may_run() {
            notes.faults.push(format!("task {} runs early", self.id));
        }
        if outcome != known.outcome {
            let expected = known.outcome;
            notes.faults.push(format!(
                "task {} of request {} finds {outcome:?}, not {expected:?}",
                self.id, task.request
            ));
        }
    }

    fn completes(&self) {
        let mut notes = self.notes.lock().unwrap();
        notes.running -= 1;
        notes.tasks[self.id].state = State::Completed;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let mut notes = self.notes.lock().unwrap();
        let task = &mut notes.tasks[self.id];
        task.drops += 1;
        let before = task.state;
        if before != State::Completed {
            task.state = State::Gone;
        }
        if before == State::Running {
            notes.running -= 1;
        }
    }
}

async fn run(life: Life, steps: usize, nested: bool) {
    life.starts();
    yields(steps).await;
    if nested {
        let request = life.notes.lock().unwrap().tasks[life.id].request;
        let inner = Life::new(&life.notes, request, None, false);
        after::defer(async move {
            inner.starts();
            yields(1).await;
            inner.completes();
        });
    }
    life.completes();
}

/// Inside its scope.
fn defers(notes: &Shared, request: usize, spec: Spec) {
    let every = [1, 3][spec.tasks % 2];
    for task in 0..spec.tasks {
        let open = !notes.lock().unwrap().requests[request].handed_over();
        let keyed = open && matches!(spec.mix, Mix::Keyed) && task + 1 == spec.tasks;
        let condition = match spec.mix {
            // Not what may join a batch that is dropped before it has decided.
            Mix::OnSuccess if open && task % every == 0 => Some(true),
            Mix::OnFailure if open && task % every == 0 => Some(false),
            _ => None,
        };
        let nested = matches!(spec.mix, Mix::Nested) && task % 4 == 0;
        let life = Life::new(notes, request, condition, keyed);
        let builder = after::task("task");
        let builder = match (condition, spec.mix) {
            (Some(true), _) => builder.on_success(),
            (Some(false), _) => builder.on_failure(),
            (_, Mix::Spawned) if task % 2 == 0 => builder.spawned(),
            _ if keyed => builder.key("key"),
            _ => builder,
        };
        builder.defer(run(life, spec.steps, nested));
    }
}

/// What somebody is told to do at its next poll.
struct Commands<T>(Rc<RefCell<VecDeque<Command<T>>>>);

type Command<T> = Box<dyn FnOnce() -> T>;

impl<T> Commands<T> {
    fn new() -> Self {
        Commands(Rc::default())
    }

    fn share(&self) -> Self {
        Commands(self.0.clone())
    }

    fn push(&self, command: impl FnOnce() -> T + 'static) {
        self.0.borrow_mut().push_back(Box::new(command));
    }

    fn next(&self) -> Option<Command<T>> {
        self.0.borrow_mut().pop_front()
    }
}

struct Handler {
    commands: Commands<Option<Answer>>,
    body: Commands<Gives>,
}

impl Future for Handler {
    type Output = Result<Response<Streamed>, &'static str>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(command) = self.commands.next() {
            let status = match command() {
                None => continue,
                Some(Answer::Error) => return Poll::Ready(Err("told to")),
                Some(Answer::Failed) => 500,
                Some(Answer::Fine) => 200,
            };
            let mut response = Response::new(Streamed(self.body.share()));
            *response.status_mut() = status.try_into().unwrap();
            return Poll::Ready(Ok(response));
        }
        Poll::Pending
    }
}

/// What a body gives at a poll.
enum Gives {
    Data,
    Nothing,
    End,
    Error,
}

struct Streamed(Commands<Gives>);

impl Body for Streamed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(command) = self.0.next() else {
            return Poll::Pending;
        };
        match command() {
            Gives::Data => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data"))))),
            Gives::Nothing => Poll::Pending,
            Gives::End => Poll::Ready(None),
            Gives::Error => Poll::Ready(Some(Err("told to"))),
        }
    }
}

/// Remembers that it was woken, and wakes the test if that waits.
struct Woken {
    woken: AtomicBool,
    test: Thread,
}

impl Woken {
    fn new() -> Arc<Woken> {
        Arc::new(Woken {
            woken: AtomicBool::new(true),
            test: thread::current(),
        })
    }

    fn is_set(&self) -> bool {
        self.woken.load(SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, SeqCst);
        self.test.unpark();
    }
}

/// How long a test waits for what never comes.
const GUARD: Duration = Duration::from_secs(30);

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
    woken.woken.store(false, SeqCst);
    future.poll(&mut Context::from_waker(&Waker::from(woken.clone())))
}

type Slot = Rc<RefCell<Option<OpenScope>>>;

/// Puts the scope back when its wait is over, or given up.
struct Readying {
    scope: Option<OpenScope>,
    slot: Slot,
}

impl Drop for Readying {
    fn drop(&mut self) {
        *self.slot.borrow_mut() = self.scope.take();
    }
}

async fn is_ready(mut readying: Readying) {
    if let Some(scope) = &mut readying.scope {
        scope.ready().await;
    }
}

enum Stage {
    Handling(Pin<Box<AfterFuture<Handler>>>),
    Reading(Box<AfterBody<Streamed>>),
    Plain(Pin<Box<dyn Future<Output = ()>>>),
    Open(OpenScope),
    Readying(Pin<Box<dyn Future<Output = ()>>>, Slot),
    Over,
}

struct Asked {
    id: usize,
    stage: Stage,
    handler: Commands<Option<Answer>>,
    body: Commands<Gives>,
    woken: Arc<Woken>,
    answer: Option<Answer>,
    /// It ends with its head.
    at_once: bool,
    /// For which it has asked room.
    tasks: Vec<usize>,
}

struct HandedOver {
    batch: Batch,
    request: usize,
    woken: Arc<Woken>,
    /// Waits for a frame.
    gated: bool,
    held: bool,
}

struct Kept {
    #[allow(dead_code)] // only dropped
    data: Bytes,
    request: usize,
}

struct Machine {
    limits: Limits,
    capped: bool,
    runner: Runner,
    spawned: Batches,
    notes: Shared,
    requests: Vec<Asked>,
    handles: Vec<(Handle, usize)>,
    frames: Vec<Kept>,
    batches: Vec<HandedOver>,
    /// The most tasks of one request for which room was asked.
    largest: usize,
}

impl Machine {
    fn new(limits: Limits, capped: bool) -> Machine {
        let (runner, spawned) = keeping_with(|builder| match limits {
            Limits::None => builder,
            Limits::Running(running) => builder.max_running(running),
            Limits::Shed(running, waiting) => builder
                .max_running(running)
                .max_waiting(waiting)
                .overflow(Overflow::Shed),
            Limits::Backpressure(running, waiting) => builder
                .max_running(running)
                .max_waiting(waiting)
                .overflow(Overflow::Backpressure),
        });
        let notes = Notes {
            most_running: match limits {
                Limits::None => usize::MAX,
                Limits::Running(running)
                | Limits::Shed(running, _)
                | Limits::Backpressure(running, _) => running,
            },
            ..Notes::default()
        };
        Machine {
            limits,
            capped,
            runner,
            spawned,
            notes: Arc::new(Mutex::new(notes)),
            requests: Vec::new(),
            handles: Vec::new(),
            frames: Vec::new(),
            batches: Vec::new(),
            largest: 0,
        }
    }

    fn know<R>(&self, request: usize, f: impl FnOnce(&mut Known) -> R) -> R {
        f(&mut self.notes.lock().unwrap().requests[request])
    }

    fn step(&mut self, step: Step) {
        let before = dropped(&self.runner.stats());
        let loses = matches!(step, Step::DropBatch { .. });
        self.does(step);
        let faults = mem::take(&mut self.notes.lock().unwrap().faults);
        assert!(faults.is_empty(), "{faults:?}");
        let stats = balanced(&self.runner);
        if let (Limits::None | Limits::Running(_), false) = (self.limits, loses) {
            assert_eq!(dropped(&stats), before, "nothing can be shed");
        }
        self.few_wait();
    }

    /// In many programs few requests are larger than what may wait: then no more may wait than twice that.
    fn capped(&self, spec: Spec) -> Spec {
        let most = match self.limits {
            Limits::Backpressure(_, waiting) if self.capped => waiting,
            _ => usize::MAX,
        };
        let tasks = spec.tasks.min(most);
        Spec { tasks, ..spec }
    }

    /// Of what was handed over.
    fn few_wait(&self) {
        let most = match self.limits {
            Limits::None | Limits::Running(_) => return,
            Limits::Shed(running, waiting) => running + waiting,
            // Twice what may wait, or one that was let in whole before what could not wait; and the place that was lent last
            // stays, whatever came before it.
            Limits::Backpressure(running, waiting) => {
                running + waiting + waiting.max(self.largest) + self.largest
            }
        };
        let notes = self.notes.lock().unwrap();
        // What an answer has waited for, and was read, comes on top: it is never dropped.
        let waiting = notes.tasks.iter().filter(|task| {
            let request = &notes.requests[task.request];
            let kept = task.waited && request.outcome != Some(Outcome::Cancelled);
            task.state == State::Deferred && !task.late && request.in_line && !kept
        });
        let waiting = waiting.count();
        assert!(waiting <= most, "{waiting} wait, of {most} that may");
    }

    fn does(&mut self, step: Step) {
        match step {
            Step::Start {
                kind,
                order,
                handle,
                spec,
                answer,
            } => self.start(kind, order, handle, self.capped(spec), answer),
            Step::Defer { request, spec } => self.on(request, |machine, asked| {
                machine.defer(asked, machine.capped(spec));
            }),
            Step::Answer {
                request,
                answer,
                at_once,
            } => self.on(request, |machine, asked| {
                machine.answer(asked, answer, at_once);
            }),
            Step::More {
                request,
                spec,
                at_once,
            } => self.on(request, |machine, asked| {
                if let Stage::Open(_) = asked.stage {
                    machine.defer(asked, machine.capped(spec));
                    machine.answer(asked, Answer::Fine, at_once);
                }
            }),
            Step::Poll { request } => self.on(request, Machine::poll),
            Step::Burst { tasks } => self.burst(tasks),
            Step::Read { request, keep } => self.on(request, |machine, asked| {
                machine.read(asked, keep);
            }),
            Step::DropFrame { frame } => {
                if let Some(frame) = take(&mut self.frames, frame) {
                    self.drop_frame(frame);
                }
            }
            Step::End { request, error } => self.on(request, |machine, asked| {
                machine.end(asked, error);
            }),
            Step::Drop { request } => self.on(request, Machine::cancel),
            Step::DropAll => {
                for request in (0..self.requests.len()).rev() {
                    let stage = &self.requests[request].stage;
                    if matches!(stage, Stage::Reading(_) | Stage::Open(_)) {
                        self.on(request, Machine::cancel);
                    }
                }
            }
            Step::DropWait { request } => self.on(request, |_, asked| {
                if let Stage::Readying(..) = &asked.stage {
                    asked.give_up_wait();
                }
            }),
            Step::Hold { request } => self.on(request, Machine::hold),
            Step::Late {
                handle,
                tasks,
                spawned,
            } if !self.handles.is_empty() => {
                let (handle, request) = &self.handles[handle % self.handles.len()];
                for _ in 0..tasks {
                    let life = Life::new(&self.notes, *request, None, false);
                    match spawned {
                        true => handle.task("late").spawned().defer(run(life, 1, false)),
                        false => handle.defer(run(life, 1, false)),
                    }
                }
                self.absorb(*request);
            }
            Step::PollBatch { batch } if !self.batches.is_empty() => {
                self.poll_batch(batch % self.batches.len());
            }
            Step::DropBatch { batch } => {
                if let Some(gone) = take(&mut self.batches, batch) {
                    self.know(gone.request, |known| known.abandoned |= gone.gated);
                    drop(gone.batch);
                }
            }
            Step::Release { batch } if !self.batches.is_empty() => {
                let batch = batch % self.batches.len();
                if self.batches[batch].held {
                    let held = self.batches.swap_remove(batch);
                    held.batch.release();
                    self.absorb(held.request);
                }
            }
            Step::Drive => while self.drive() {},
            Step::Settle => self.settle(),
            _ => {}
        }
    }

    fn on(&mut self, request: usize, f: impl FnOnce(&mut Machine, &mut Asked)) {
        if self.requests.is_empty() {
            return;
        }
        let request = request % self.requests.len();
        let mut asked = self.requests.swap_remove(request);
        f(self, &mut asked);
        self.absorb(asked.id);
        if !matches!(asked.stage, Stage::Over) {
            self.requests.push(asked);
        }
    }

    /// What was handed to the spawner is of this request.
    fn absorb(&mut self, request: usize) {
        for batch in self.spawned.take_all() {
            let gated = self.know(request, |known| {
                assert!(known.handed_over(), "request {request} is not over");
                let gated = !known.may_run();
                known.in_line |= !gated;
                gated
            });
            let woken = Woken::new();
            self.batches.push(HandedOver {
                batch,
                request,
                woken,
                gated,
                held: false,
            });
        }
    }

    fn burst(&mut self, tasks: usize) {
        let spec = Spec {
            tasks,
            mix: Mix::Plain,
            steps: 0,
        };
        let last = self.requests.len();
        self.start(Kind::Open, Order::Concurrent, false, spec, None);
        self.on(last, Machine::cancel);
    }

    fn start(
        &mut self,
        kind: Kind,
        order: Order,
        handle: bool,
        spec: Spec,
        answer: Option<(Answer, bool)>,
    ) {
        let id = {
            let mut notes = self.notes.lock().unwrap();
            notes.requests.push(Known {
                kind,
                collected: false,
                head: false,
                over: false,
                frames: 0,
                outcome: None,
                abandoned: false,
                in_line: false,
                keyed: None,
                place: None,
            });
            notes.requests.len() - 1
        };
        let (handler, body) = (Commands::new(), Commands::new());
        let mut future = Some(Handler {
            commands: handler.share(),
            body: body.share(),
        });
        let mut layered = |moment| {
            let layer = AfterLayer::with_runner(self.runner.clone())
                .order(order)
                .run_after(moment);
            let mut service =
                layer.layer(tower::service_fn(|_: Request<()>| future.take().unwrap()));
            Stage::Handling(Box::pin(service.call(Request::new(()))))
        };
        let stage = match kind {
            Kind::Head => layered(RunAfter::Head),
            Kind::Body => layered(RunAfter::Body),
            Kind::Written => layered(RunAfter::Written),
            Kind::Plain => {
                let scope = self.runner.scope(future.take().unwrap());
                let scope = scope.order(order).failed_if(|answer| match answer {
                    Ok(response) => response.status().as_u16() >= 400,
                    Err(_) => true,
                });
                Stage::Plain(Box::pin(async move { drop(scope.await) }))
            }
            Kind::Open => Stage::Open(self.runner.open().order(order)),
        };
        let mut asked = Asked {
            id,
            stage,
            handler,
            body,
            woken: Woken::new(),
            answer: None,
            at_once: false,
            tasks: Vec::new(),
        };
        if handle {
            let taken: Rc<RefCell<Option<Handle>>> = Rc::default();
            match &mut asked.stage {
                Stage::Open(scope) => *taken.borrow_mut() = Some(scope.handle()),
                _ => {
                    let taken = taken.clone();
                    asked.handler.push(move || {
                        *taken.borrow_mut() = Some(after::handle());
                        None
                    });
                    self.poll(&mut asked);
                }
            }
            self.handles.push((taken.take().unwrap(), id));
        }
        self.defer(&mut asked, spec);
        if let Some((answer, at_once)) = answer {
            self.answer(&mut asked, answer, at_once);
        }
        self.absorb(id);
        if !matches!(asked.stage, Stage::Over) {
            self.requests.push(asked);
        }
    }

    /// In the handler, in the body, or in a piece.
    fn defer(&mut self, asked: &mut Asked, spec: Spec) {
        let (notes, id) = (self.notes.clone(), asked.id);
        match &mut asked.stage {
            Stage::Handling(_) | Stage::Plain(_) if asked.answer.is_none() => {
                asked.handler.push(move || {
                    defers(&notes, id, spec);
                    None
                });
                self.poll(asked);
            }
            Stage::Reading(body) => {
                asked.body.push(move || {
                    defers(&notes, id, spec);
                    Gives::Nothing
                });
                assert!(next_frame(body, &asked.woken).is_pending());
            }
            Stage::Open(scope) => scope.enter(|| defers(&notes, id, spec)),
            _ => {}
        }
    }

    /// For which tasks room is asked: those that are still to be handed over.
    fn asks_for_room(&mut self, request: usize) -> Vec<usize> {
        let notes = self.notes.lock().unwrap();
        let tasks = notes.tasks.iter().enumerate();
        let tasks: Vec<_> = tasks
            .filter(|(_, task)| task.request == request && task.state == State::Deferred)
            .map(|(id, _)| id)
            .collect();
        self.largest = self.largest.max(tasks.len());
        tasks
    }

    fn answer(&mut self, asked: &mut Asked, answer: Answer, at_once: bool) {
        let tasks = match &mut asked.stage {
            Stage::Handling(_) | Stage::Plain(_) if asked.answer.is_none() => {
                asked.handler.push(move || Some(answer));
                self.asks_for_room(asked.id)
            }
            Stage::Open(_) => {
                let Stage::Open(scope) = mem::replace(&mut asked.stage, Stage::Over) else {
                    return;
                };
                let slot = Slot::default();
                let readying = Readying {
                    scope: Some(scope),
                    slot: slot.clone(),
                };
                asked.stage = Stage::Readying(Box::pin(is_ready(readying)), slot);
                self.asks_for_room(asked.id)
            }
            _ => return,
        };
        asked.answer = Some(answer);
        asked.at_once = at_once;
        asked.tasks = tasks;
        self.poll(asked);
        self.know(asked.id, |known| {
            known.collected = known.kind == Kind::Plain;
        });
        let waits = matches!(
            asked.stage,
            Stage::Handling(_) | Stage::Plain(_) | Stage::Readying(..)
        );
        let can_wait = matches!(self.limits, Limits::Backpressure(..)) && !asked.tasks.is_empty();
        assert!(can_wait || !waits, "request {} waits for nothing", asked.id);
    }

    /// The handler, the wait for room, or what a body gives.
    fn poll(&mut self, asked: &mut Asked) {
        match &mut asked.stage {
            Stage::Handling(future) => {
                let Poll::Ready(answer) = poll(future.as_mut(), &asked.woken) else {
                    return;
                };
                match answer {
                    Ok(response) => {
                        asked.stage = Stage::Reading(Box::new(response.into_body()));
                        self.has_head(asked);
                    }
                    Err(_) => {
                        asked.stage = Stage::Over;
                        self.is_over(asked, Outcome::Failed);
                        self.has_waited(asked);
                        self.all_accepted(asked.id);
                    }
                }
            }
            Stage::Plain(future) => {
                if poll(future.as_mut(), &asked.woken).is_ready() {
                    asked.stage = Stage::Over;
                    self.is_over(asked, asked.says());
                    self.has_waited(asked);
                    self.all_accepted(asked.id);
                }
            }
            Stage::Readying(future, slot) => {
                if poll(future.as_mut(), &asked.woken).is_ready() {
                    let scope = slot.borrow_mut().take().unwrap();
                    asked.stage = Stage::Open(scope);
                    self.lends(asked);
                    if asked.at_once {
                        self.end(asked, asked.answer == Some(Answer::Error));
                    }
                }
            }
            Stage::Reading(body) => {
                assert!(next_frame(body, &asked.woken).is_pending());
            }
            Stage::Open(_) | Stage::Over => {}
        }
    }

    fn has_head(&mut self, asked: &mut Asked) {
        let outcome = asked.says();
        let moment = self.know(asked.id, |known| {
            known.head = true;
            if known.kind == Kind::Head {
                known.outcome = Some(outcome);
            }
            known.kind
        });
        match moment {
            Kind::Head => {
                self.has_waited(asked);
                self.all_accepted(asked.id);
            }
            _ => self.lends(asked),
        }
        if asked.at_once {
            self.end(asked, false);
        }
    }

    /// Says whether for any that it had not waited for before.
    fn has_waited(&self, asked: &Asked) -> bool {
        let mut notes = self.notes.lock().unwrap();
        let mut any = false;
        for task in &asked.tasks {
            any |= !mem::replace(&mut notes.tasks[*task].waited, true);
        }
        any
    }

    fn lends(&mut self, asked: &Asked) {
        if !self.has_waited(asked) {
            return;
        }
        let notes = &mut *self.notes.lock().unwrap();
        let gone = notes.tasks.iter().filter(|task| {
            // A task that was replaced leaves its place to its request.
            matches!(task.state, State::Completed | State::Gone)
                && notes.requests[task.request].handed_over()
        });
        let gone = gone.count();
        notes.requests[asked.id].place = Some(Place { gone });
    }

    /// Whether it may have lost the place that it has lent: what runs, what waits and what is lent may at once have been
    /// more than twice what may wait, besides what may run. There were no more than those that were there when it was
    /// lent, and that have come since.
    fn has_lapsed(&self, place: Place) -> bool {
        let most = match self.limits {
            Limits::Backpressure(running, waiting) => running + 2 * waiting,
            _ => usize::MAX,
        };
        self.notes.lock().unwrap().tasks.len() - place.gone > most
    }

    /// At the hand-over of a response that was given up, with the place that it has lent.
    fn has_its_place(&self, request: usize) {
        let place = self.know(request, |known| known.place);
        if place.is_some_and(|place| !self.has_lapsed(place)) {
            self.all_accepted(request);
        }
    }

    /// All tasks that this request has waited for, but those that were not to run.
    fn all_accepted(&self, request: usize) {
        if let Limits::Shed(..) = self.limits {
            return;
        }
        let notes = self.notes.lock().unwrap();
        let outcome = notes.requests[request].outcome;
        for (id, task) in notes.tasks.iter().enumerate() {
            if task.request == request && task.waited && task.state == State::Gone {
                assert!(
                    task.is_discarded(outcome),
                    "task {id} of request {request} was shed, and its answer has waited"
                );
            }
        }
    }

    fn is_over(&mut self, asked: &Asked, outcome: Outcome) {
        self.know(asked.id, |known| {
            known.over = true;
            known.outcome.get_or_insert(outcome);
        });
    }

    fn read(&mut self, asked: &mut Asked, keep: bool) {
        let Stage::Reading(body) = &mut asked.stage else {
            return;
        };
        asked.body.push(|| Gives::Data);
        let Poll::Ready(Some(Ok(frame))) = next_frame(body, &asked.woken) else {
            panic!("no frame");
        };
        let data = frame.into_data().unwrap();
        assert_eq!(data, "data");
        if keep {
            // As hyper does with what it could write in part.
            for data in [data.slice(1..), data] {
                let request = asked.id;
                self.know(request, |known| known.frames += 1);
                self.frames.push(Kept { data, request });
            }
        }
    }

    fn drop_frame(&mut self, frame: Kept) {
        let request = frame.request;
        drop(frame);
        self.know(request, |known| known.frames -= 1);
        assert_eq!(self.spawned.len(), 0, "nothing is handed over there");
    }

    fn end(&mut self, asked: &mut Asked, error: bool) {
        let failed = error || asked.says() == Outcome::Failed;
        let outcome = match failed {
            true => Outcome::Failed,
            false => Outcome::Finished,
        };
        match mem::replace(&mut asked.stage, Stage::Over) {
            Stage::Reading(mut body) => {
                asked.body.push(match error {
                    true => || Gives::Error,
                    false => || Gives::End,
                });
                assert!(next_frame(&mut body, &asked.woken).is_ready());
                assert!(matches!(
                    next_frame(&mut body, &asked.woken),
                    Poll::Ready(None)
                ));
            }
            Stage::Open(scope) => scope.end(outcome),
            other => {
                asked.stage = other;
                return;
            }
        }
        self.is_over(asked, outcome);
        self.absorb(asked.id);
        // However many others have passed since: it was read.
        if self.know(asked.id, |known| known.place.is_some()) {
            self.all_accepted(asked.id);
        }
    }

    fn cancel(&mut self, asked: &mut Asked) {
        let outcome = match asked.stage {
            // It was over, and its answer has waited.
            Stage::Plain(_) if asked.answer.is_some() => asked.says(),
            _ => Outcome::Cancelled,
        };
        self.is_over(asked, outcome);
        if let Stage::Readying(..) = &asked.stage {
            asked.give_up_wait();
        }
        let has_place = matches!(asked.stage, Stage::Reading(_) | Stage::Open(_));
        asked.stage = Stage::Over;
        if has_place {
            self.has_its_place(asked.id);
        }
    }

    fn hold(&mut self, asked: &mut Asked) {
        match mem::replace(&mut asked.stage, Stage::Over) {
            Stage::Open(scope) => {
                let batch = scope.hold(Outcome::Finished);
                self.is_over(asked, Outcome::Finished);
                self.batches.push(HandedOver {
                    batch,
                    request: asked.id,
                    woken: Woken::new(),
                    gated: false,
                    held: true,
                });
            }
            other => asked.stage = other,
        }
    }

    fn poll_batch(&mut self, batch: usize) {
        let (request, gated) = (self.batches[batch].request, self.batches[batch].gated);
        if mem::take(&mut self.batches[batch].held) {
            self.know(request, |known| known.in_line = true);
        }
        let opens = gated && self.know(request, |known| known.may_run());
        let polled = &mut self.batches[batch];
        let ended = poll(Pin::new(&mut polled.batch), &polled.woken).is_ready();
        if opens {
            polled.gated = false;
            self.know(request, |known| known.in_line = true);
            self.has_its_place(request);
        } else if polled.gated {
            assert!(!ended, "request {request}'s gate is shut");
        }
        if ended {
            drop(self.batches.swap_remove(batch));
        }
        self.absorb(request);
    }

    /// Polls the batches that were woken; says whether any was.
    fn drive(&mut self) -> bool {
        let mut any = false;
        for batch in (0..self.batches.len()).rev() {
            let looked_at = &self.batches[batch];
            if looked_at.woken.is_set() && !looked_at.held {
                any = true;
                self.poll_batch(batch);
            }
        }
        any
    }

    /// Drives all that was woken, until nothing is.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it does not settle");
            let mut idle = !self.drive();
            for request in (0..self.requests.len()).rev() {
                let looked_at = &self.requests[request];
                if looked_at.waits() && looked_at.woken.is_set() {
                    idle = false;
                    self.on(request, Machine::poll);
                }
            }
            if !idle {
                continue;
            }
            // A place that was lent is respected for a short time, and a thread comes by when that is over.
            let Some(asked) = self.requests.iter().find(|asked| asked.waits()) else {
                break;
            };
            let began = Instant::now();
            let is_set = |asked: &Asked| asked.waits() && asked.woken.is_set();
            while !self.requests.iter().any(is_set) {
                assert!(
                    began.elapsed() < GUARD,
                    "request {} waits for ever",
                    asked.id
                );
                thread::park_timeout(GUARD);
            }
        }
        for left in &self.batches {
            assert!(
                left.held || (left.gated && !self.know(left.request, |known| known.may_run())),
                "the batch of request {} does not end",
                left.request
            );
        }
    }

    /// Ends everything, and compares.
    fn ends(mut self) {
        self.step(Step::Settle);
        while let Some(asked) = self.requests.last() {
            let last = self.requests.len() - 1;
            let step = match &asked.stage {
                Stage::Handling(_) | Stage::Plain(_) => Step::Answer {
                    request: last,
                    answer: Answer::Fine,
                    at_once: true,
                },
                _ => Step::End {
                    request: last,
                    error: false,
                },
            };
            self.step(step);
            self.step(Step::Settle);
        }
        while !self.frames.is_empty() {
            self.step(Step::DropFrame { frame: 0 });
        }
        for batch in (0..self.batches.len()).rev() {
            self.step(Step::Release { batch });
        }
        self.step(Step::Settle);
        assert_eq!(self.batches.len(), 0);
        drop(mem::take(&mut self.handles));
        self.agrees();
        self.has_all_room();
    }

    fn agrees(&self) {
        let stats = balanced(&self.runner);
        let notes = self.notes.lock().unwrap();
        let (mut completed, mut discarded, mut gone) = (0, 0, 0);
        for task in &notes.tasks {
            assert_eq!(task.drops, 1);
            match task.state {
                State::Completed => completed += 1,
                State::Gone if task.is_discarded(notes.requests[task.request].outcome) => {
                    discarded += 1;
                }
                State::Gone => gone += 1,
                other => panic!("{other:?} at the end"),
            }
        }
        assert_eq!(notes.running, 0);
        assert_eq!(stats.pending, 0, "{stats:?}");
        assert_eq!(stats.deferred, notes.tasks.len() as u64, "{stats:?}");
        assert_eq!(
            (stats.completed, stats.discarded, dropped(&stats)),
            (completed, discarded, gone),
            "{stats:?}"
        );
    }

    fn has_all_room(&self) {
        let (room, most) = match self.limits {
            Limits::None | Limits::Running(_) => return,
            Limits::Shed(running, waiting) => (running + waiting, running + waiting),
            Limits::Backpressure(running, waiting) => (running + waiting, running + 2 * waiting),
        };
        let before = dropped(&self.runner.stats());
        let request = |tasks: usize| {
            let mut scope = self.runner.open();
            scope.enter(|| (0..tasks).for_each(|_| after::defer(async {})));
            scope
        };
        drop(request(most + 3));
        let stats = balanced(&self.runner);
        assert_eq!((dropped(&stats) - before, stats.pending), (3, most as u64));
        polls_to_end(&mut self.spawned.take_one(), 100);
        // Those that wait for room see the same.
        let mut first = request(room);
        let mut second = request(1);
        let woken = Woken::new();
        assert!(poll(pin!(first.ready()), &woken).is_ready());
        first.end(Outcome::Finished);
        if let Limits::Backpressure(..) = self.limits {
            let mut ready = Box::pin(second.ready());
            assert!(poll(ready.as_mut(), &woken).is_pending());
            polls_to_end(&mut self.spawned.take_one(), 100);
            assert!(poll(ready.as_mut(), &woken).is_ready());
        } else {
            polls_to_end(&mut self.spawned.take_one(), 100);
        }
        second.end(Outcome::Finished);
        polls_to_end(&mut self.spawned.take_one(), 100);
        let stats = balanced(&self.runner);
        assert_eq!((dropped(&stats) - before, stats.pending), (3, 0));
    }
}

impl Asked {
    fn says(&self) -> Outcome {
        match self.answer {
            Some(Answer::Failed | Answer::Error) => Outcome::Failed,
            _ => Outcome::Finished,
        }
    }

    fn waits(&self) -> bool {
        self.answer.is_some()
            && matches!(
                self.stage,
                Stage::Handling(_) | Stage::Plain(_) | Stage::Readying(..)
            )
    }

    fn give_up_wait(&mut self) {
        if let Stage::Readying(future, slot) = mem::replace(&mut self.stage, Stage::Over) {
            drop(future);
            let scope = slot.borrow_mut().take().unwrap();
            self.stage = Stage::Open(scope);
        }
    }
}

impl Noted {
    /// It did not run because it was not to.
    fn is_discarded(&self, outcome: Option<Outcome>) -> bool {
        let finished = outcome == Some(Outcome::Finished);
        self.replaced || self.condition.is_some_and(|on| on != finished)
    }
}

fn take<T>(from: &mut Vec<T>, index: usize) -> Option<T> {
    match from.len() {
        0 => None,
        len => Some(from.swap_remove(index % len)),
    }
}

fn next_frame(
    body: &mut AfterBody<Streamed>,
    woken: &Arc<Woken>,
) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
    let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    poll(pin!(next), woken)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400),
        failure_persistence: Some(Box::new(SEEDS)),
        ..ProptestConfig::default()
    })]

    /// Sentences 8, 12, 15, 19 to 22b.
    #[test]
    fn random_programs_of_requests_agree_with_the_model(
        limits in limits(),
        capped in any::<bool>(),
        program in prop::collection::vec(steps(), 1..80),
    ) {
        common::keep_quiet();
        let mut machine = Machine::new(limits, capped);
        for step in program {
            machine.step(step);
        }
        machine.ends();
    }
}
