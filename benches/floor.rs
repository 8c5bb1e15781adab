//! The promises against the floor: what a hand-over costs beside one that is written by hand, and promises nothing else.
//! On tokio's current-thread runtime. `cargo bench --bench floor`.

mod common;

use common::{
    clock::Clock,
    floor::{self, ByHand},
    measure::{Candidate, Plan},
    processes,
    results::{Figure, Key, Sheet},
    runtimes::{CurrentThread, Runtime},
    table::{pivot, ratio, spread},
    wakes::{Meeting, Mode},
    ways::{Deferred, JoinMacro, Requests, Spawned, Way, candidate, drive},
};

const FLOOR: Sheet = Sheet {
    name: "floor",
    value: "median_ns",
    ratio: "ratio_to_by_hand",
};

const IN_FLIGHT: u32 = 32;
const TASKS: [usize; 3] = [1, 3, 8];

fn compare(requests: Requests, mode: &str, candidates: Vec<Candidate<'_>>) {
    let mut plan = Plan::new(Clock::Real);
    plan.calls_in_one = requests.in_flight;
    let name = CurrentThread::NAME;
    let key = Key::new(FLOOR, name, requests.tasks as u64, requests.wakes, mode);
    plan.compare(&key, "by hand", candidates);
}

/// Many requests before the driver waits for their tasks: its own share of the figures is small.
fn in_flight(runtime: &CurrentThread, meeting: &'static Meeting, requests: Requests) {
    type Here = CurrentThread;
    let candidates = vec![
        candidate::<Here, Deferred<Here>>(runtime, meeting, requests),
        candidate::<Here, ByHand<Here>>(runtime, meeting, requests),
        candidate::<Here, Spawned<Here>>(runtime, meeting, requests),
        candidate::<Here, JoinMacro<Here>>(runtime, meeting, requests),
    ];
    compare(requests, "in_flight", candidates);
}

/// One request at a time, and nothing pending before the next.
fn drained(runtime: &CurrentThread, meeting: &'static Meeting, requests: Requests) {
    let Requests { tasks, .. } = requests;
    let after = Candidate::new(Deferred::<CurrentThread>::NAME, move |requests| {
        runtime.drive(async move {
            let mut way = Deferred::<CurrentThread>::default();
            for _ in 0..requests {
                way.request(meeting, tasks, 0).await;
                after::Runner::global().drain().await;
            }
        });
    });
    let by_hand = Candidate::new(ByHand::<CurrentThread>::NAME, move |requests| {
        runtime.drive(async move {
            let mut way = ByHand::<CurrentThread>::default();
            for _ in 0..requests {
                way.request(meeting, tasks, 0).await;
                floor::drained().await;
            }
        });
    });
    compare(requests, "drained", vec![after, by_hand]);
}

fn measure() {
    let runtime = CurrentThread::new();
    let ready = Meeting::leaked(0);
    let yielding = Meeting::of_yielding();
    for (wakes, meeting) in [(0, ready), (1, yielding)] {
        for tasks in TASKS {
            let requests = Requests {
                tasks,
                wakes,
                mode: Mode::Itself,
                in_flight: IN_FLIGHT,
            };
            in_flight(&runtime, meeting, requests);
        }
    }
    for tasks in TASKS {
        drained(
            &runtime,
            ready,
            Requests::one_at_a_time(tasks, 0, Mode::Itself),
        );
    }
}

fn label(figure: &Figure) -> String {
    let Key {
        tasks, wakes, mode, ..
    } = &figure.key;
    let tasks = match tasks {
        1 => "1 task".into(),
        tasks => format!("{tasks} tasks"),
    };
    match (mode.as_str(), wakes) {
        ("drained", _) => format!("{tasks}, one request at a time, `drain` after each"),
        (_, 0) => format!("{tasks}, {IN_FLIGHT} requests in flight"),
        _ => format!("{tasks}, each yields once, {IN_FLIGHT} requests in flight"),
    }
}

fn tables(figures: &[Figure]) -> String {
    pivot(
        figures,
        "ratio to the hand-over by hand",
        label,
        |figure| match figure.candidate.as_str() {
            "after" => spread(figure),
            "by hand" => format!("{:.0} ns", figure.value),
            _ => ratio(figure),
        },
    )
}

/// `floor --profile WAY TASKS YIELDS BURSTS`: one row's work and nothing else, to be run under a profiler.
fn profile(arguments: &[String]) -> bool {
    let [flag, way, tasks, yields, bursts] = arguments else {
        return false;
    };
    if flag != "--profile" {
        return false;
    }
    let number = |text: &String| text.parse::<u32>().expect("a number");
    let runtime = CurrentThread::new();
    let meeting = match number(yields) {
        0 => Meeting::leaked(0),
        _ => Meeting::of_yielding(),
    };
    let requests = Requests {
        tasks: number(tasks) as usize,
        wakes: number(yields),
        mode: Mode::Itself,
        in_flight: IN_FLIGHT,
    };
    type Here = CurrentThread;
    let bursts = number(bursts);
    match way.as_str() {
        "after" => {
            let way = Deferred::<Here>::default();
            runtime.drive(drive(way, meeting, bursts, requests));
        }
        _ => runtime.drive(drive(ByHand::<Here>::default(), meeting, bursts, requests)),
    }
    true
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if profile(&arguments) {
        return;
    }
    processes::run("floor", &[FLOOR], measure, tables);
}
