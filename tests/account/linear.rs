//! What grows with its input, and no faster: counts for each task or batch, the same however many there are.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use after::{Batch, Order, Runner, RunnerBuilder, Spawner, spawner::Sleep, testing::Recorder};
use futures::task::AtomicWaker;

use crate::common::{Batches, balanced, now_or_never};

const SIZES: [usize; 3] = [100, 1_000, 4_000];

/// Opened once; whoever waits for it is woken then.
#[derive(Default)]
struct Gate {
    is_open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    fn open(&self) {
        self.is_open.store(true, SeqCst);
        self.waker.wake();
    }
}

/// Waits for a gate, and counts its polls.
struct Gated {
    gate: Arc<Gate>,
    polls: Arc<AtomicUsize>,
}

impl Future for Gated {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.polls.fetch_add(1, SeqCst);
        self.gate.waker.register(cx.waker());
        match self.gate.is_open.load(SeqCst) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Gates of one kind, and how often those were polled who wait for them.
#[derive(Clone, Default)]
struct Gates {
    all: Arc<Mutex<Vec<Arc<Gate>>>>,
    polls: Arc<AtomicUsize>,
}

impl Gates {
    /// One more, and who waits for it.
    fn gated(&self) -> Gated {
        let gate = Arc::new(Gate::default());
        self.all.lock().unwrap().push(gate.clone());
        let polls = self.polls.clone();
        Gated { gate, polls }
    }

    fn made(&self) -> usize {
        self.all.lock().unwrap().len()
    }

    fn open(&self, index: usize) {
        let gate = self.all.lock().unwrap()[index].clone();
        gate.open();
    }

    fn polls(&self) -> usize {
        self.polls.load(SeqCst)
    }
}

/// Keeps batches; its sleeps fire when the test says so.
#[derive(Clone, Default)]
struct ByHand {
    batches: Batches,
    sleeps: Gates,
}

impl Spawner for ByHand {
    fn spawn(&self, batch: Batch) {
        self.batches.push(batch);
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Sleep::new(self.sleeps.gated())
    }
}

/// Runs batches by hand, each when it was woken.
#[derive(Default)]
struct Executor {
    batches: Vec<(Option<Batch>, Arc<WakesOne>)>,
    woken: Arc<Mutex<VecDeque<usize>>>,
    polls: usize,
}

struct WakesOne {
    index: usize,
    woken: Arc<Mutex<VecDeque<usize>>>,
    is_woken: AtomicBool,
}

impl Wake for WakesOne {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, SeqCst) {
            self.woken.lock().unwrap().push_back(self.index);
        }
    }
}

impl Executor {
    /// Takes new batches, and runs all until nobody is woken any more.
    fn run(&mut self, new: Vec<Batch>) {
        for batch in new {
            let waker = Arc::new(WakesOne {
                index: self.batches.len(),
                woken: self.woken.clone(),
                is_woken: AtomicBool::new(false),
            });
            waker.clone().wake();
            self.batches.push((Some(batch), waker));
        }
        loop {
            let Some(index) = self.woken.lock().unwrap().pop_front() else {
                return;
            };
            let (batch, waker) = &mut self.batches[index];
            waker.is_woken.store(false, SeqCst);
            if let Some(running) = batch {
                self.polls += 1;
                let waker = Waker::from(waker.clone());
                let polled = Pin::new(running).poll(&mut Context::from_waker(&waker));
                if polled.is_ready() {
                    *batch = None;
                }
            }
        }
    }
}

/// Whose gates are opened, in which order, and whether the batches run after each.
#[derive(Clone, Copy, Debug)]
enum Opening {
    Tasks,
    TasksBackwards,
    TasksAtOnce,
    /// The tasks go on waiting, and their time passes.
    Sleeps,
    SleepsBackwards,
    SleepsAtOnce,
}

const OPENINGS: [Opening; 6] = [
    Opening::Tasks,
    Opening::TasksBackwards,
    Opening::TasksAtOnce,
    Opening::Sleeps,
    Opening::SleepsBackwards,
    Opening::SleepsAtOnce,
];

/// How often tasks, sleeps and batches were polled, for each task.
#[derive(Debug)]
struct Cost {
    tasks: f64,
    sleeps: f64,
    batches: f64,
}

/// Runs one request with so many tasks to its end.
fn cost(
    tasks: usize,
    opening: Opening,
    configure: impl Fn(RunnerBuilder) -> RunnerBuilder,
    defer: impl Fn(usize, Gated),
) -> Cost {
    let spawner = ByHand::default();
    let runner = configure(Runner::builder().spawner(spawner.clone())).build();
    let gates = Gates::default();
    now_or_never(runner.scope(async {
        for task in 0..tasks {
            defer(task, gates.gated());
        }
    }));
    let mut executor = Executor::default();
    executor.run(spawner.batches.take_all());
    let (opened, backwards, at_once) = match opening {
        Opening::Tasks => (&gates, false, false),
        Opening::TasksBackwards => (&gates, true, false),
        Opening::TasksAtOnce => (&gates, false, true),
        Opening::Sleeps => (&spawner.sleeps, false, false),
        Opening::SleepsBackwards => (&spawner.sleeps, true, false),
        Opening::SleepsAtOnce => (&spawner.sleeps, false, true),
    };
    let count = opened.made();
    for gate in 0..count {
        opened.open(if backwards { count - 1 - gate } else { gate });
        if !at_once {
            executor.run(Vec::new());
        }
    }
    executor.run(Vec::new());
    let stats = balanced(&runner);
    let ended = match std::ptr::eq(opened, &gates) {
        true => stats.completed,
        false => stats.timed_out,
    };
    assert_eq!(ended, tasks as u64, "{opening:?}: {stats:?}");
    let of_each = |count: usize| count as f64 / tasks as f64;
    Cost {
        tasks: of_each(gates.polls()),
        sleeps: of_each(spawner.sleeps.polls()),
        batches: of_each(executor.polls),
    }
}

/// As often for each of many tasks as for each of few, and never often.
fn assert_linear(
    name: &str,
    configure: impl Fn(RunnerBuilder) -> RunnerBuilder,
    defer: impl Fn(usize, Gated),
) {
    for opening in OPENINGS {
        for tasks in SIZES {
            let cost = cost(tasks, opening, &configure, &defer);
            println!("{name}, {opening:?}, {tasks} tasks: {cost:?}");
            let most = cost.tasks.max(cost.sleeps).max(cost.batches);
            assert!(most <= 6.0, "{name}, {opening:?}, {tasks} tasks: {cost:?}");
        }
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Sentences 11 and 17: a time limit costs the same for each task however many have one: limits of their own.
#[test]
fn limits_of_their_own_cost_the_same_for_each_of_many_tasks() {
    let limit = |task: usize| seconds(1 + task as u64);
    assert_linear(
        "limits of their own",
        |builder| builder,
        |task, gated| after::task("limited").timeout(limit(task)).defer(gated),
    );
}

/// Sentences 11 and 17: the same for one limit that all tasks have.
#[test]
fn one_limit_costs_the_same_for_each_of_many_tasks() {
    assert_linear(
        "one limit",
        |builder| builder.task_timeout(seconds(9)),
        |_, gated| after::defer(gated),
    );
}

/// Sentences 11 and 17: the same for the limit of a scope, whether its tasks are one batch or many, and leave one by one.
#[test]
fn the_limit_of_a_scope_costs_the_same_for_each_of_many_tasks() {
    let limited = |builder: RunnerBuilder| builder.scope_timeout(seconds(9));
    assert_linear("one batch", limited, |_, gated| after::defer(gated));
    assert_linear(
        "parallel",
        |builder| limited(builder).order(Order::Parallel),
        |_, gated| after::defer(gated),
    );
    assert_linear("half of them spawned", limited, |task, gated| {
        let task = match task % 2 {
            0 => after::task("spawned").spawned(),
            _ => after::task("in the batch"),
        };
        task.defer(gated);
    });
    assert_linear(
        "both limits",
        |builder| limited(builder).order(Order::Parallel),
        |task, gated| {
            let limit = after::task("limited").timeout(seconds(1 + task as u64));
            limit.defer(gated);
        },
    );
}

/// Sentences 11, 14 and 18: tasks with wakers of their own come and go, in any order: each is polled for its own wake-ups
/// alone, also where one that came later has the place of one that has ended.
#[test]
fn tasks_that_come_and_go_are_polled_for_their_own_wakes_alone() {
    for tasks in [50, 300, 5_000, 9_000] {
        let spawner = ByHand::default();
        let runner = Runner::builder().spawner(spawner.clone()).build();
        let gates = Gates::default();
        let deferring = |gates: &Gates, count: usize| {
            let (gates, gated) = (gates.clone(), gates.gated());
            async move {
                gated.await;
                for _ in 0..count {
                    after::defer(gates.gated());
                }
            }
        };
        now_or_never(runner.scope(async {
            for task in 0..tasks {
                after::defer(deferring(&gates, task % 3));
            }
        }));
        let mut executor = Executor::default();
        executor.run(spawner.batches.take_all());
        // 7 has no factor in common with any of these numbers: each once, far from the one before.
        let mut order: Vec<_> = (0..tasks).map(|task| task * 7 % tasks).collect();
        order[..tasks / 2].sort_unstable();
        for gate in order {
            gates.open(gate);
            executor.run(Vec::new());
        }
        let made = gates.made();
        assert!(made >= tasks * 2 - 3, "{made} of {tasks}");
        for gate in (tasks..made).rev() {
            assert!(executor.batches[0].0.is_some());
            gates.open(gate);
            executor.run(Vec::new());
        }
        assert!(executor.batches[0].0.is_none());
        assert_eq!(balanced(&runner).completed, made as u64);
        let polls = gates.polls();
        assert!(polls <= 4 * made, "{polls} polls of {made} tasks");
    }
}

/// P7: to run what was recorded costs the same for each of many batches, also when they are woken one by one, and though
/// each is of a Runner of its own.
#[test]
fn a_recorder_polls_each_of_many_batches_as_often_as_each_of_few() {
    for own_runners in [false, true] {
        for opening in [
            Opening::Tasks,
            Opening::TasksBackwards,
            Opening::TasksAtOnce,
        ] {
            for batches in SIZES {
                let polls = polls_of_a_recorder(batches, opening, own_runners);
                println!("{opening:?}, {batches} batches: {polls:?}");
                assert!(polls.0 <= 2.0 && polls.1 <= 1.1, "{batches}: {polls:?}");
            }
        }
    }
}

/// Polls of tasks and of the recorder, for each batch.
fn polls_of_a_recorder(batches: usize, opening: Opening, own_runners: bool) -> (f64, f64) {
    let recorder = Recorder::new();
    let gates = Gates::default();
    for _ in 0..batches {
        let runner = match own_runners {
            true => Runner::new(recorder.clone()),
            false => recorder.runner(),
        };
        now_or_never(runner.scope(async { after::defer(gates.gated()) }));
    }
    let mut run = Box::pin(recorder.run_within(Duration::MAX));
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    let mut polls = 0;
    let mut ended = None;
    let mut turn = || {
        while ended.is_none() && flag.0.swap(false, SeqCst) {
            polls += 1;
            if let Poll::Ready(stats) = run.as_mut().poll(&mut Context::from_waker(&waker)) {
                ended = Some(stats.unwrap());
            }
        }
        ended.is_some()
    };
    flag.0.store(true, SeqCst);
    assert!(!turn());
    for gate in 0..batches {
        gates.open(match opening {
            Opening::TasksBackwards => batches - 1 - gate,
            _ => gate,
        });
        if !matches!(opening, Opening::TasksAtOnce) {
            turn();
        }
    }
    assert!(turn(), "all have ended");
    assert_eq!(ended.unwrap().completed, batches as u64);
    let of_each = |count: usize| count as f64 / batches as f64;
    (of_each(gates.polls()), of_each(polls))
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}
