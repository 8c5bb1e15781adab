//! What a task costs by how many tasks its scope has, on tokio's current-thread runtime, in processor time.
//! `cargo bench --bench size`.
//!
//! All sizes and both ways take turns in one process, so that a size is compared with another under the same conditions.

mod common;

use std::time::Duration;

use common::{
    clock::Clock,
    measure::{Candidate, Plan, report},
    processes, quick,
    results::{Figure, Key, Sheet},
    runtimes::{CurrentThread, Runtime},
    table::{pivot, select, spread, thousands},
    wakes::{Meeting, Mode},
    ways::{Deferred, Requests, Spawned, Way, drive},
};

const SIZE: Sheet = Sheet {
    name: "size",
    value: "median_ns_a_task",
    ratio: "ratio_to_spawn",
};
const FLATNESS: Sheet = Sheet {
    name: "flatness",
    value: "median_ns_a_task",
    ratio: "ratio_to_100_tasks",
};

const SIZES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// The size to which the others are compared: from here on a task costs the same.
const HUNDRED: usize = 2;

fn candidate<'a, W: Way>(
    runtime: &'a CurrentThread,
    meeting: &'static Meeting,
    requests: Requests,
    tasks_a_sample: usize,
) -> Candidate<'a> {
    let bursts = (tasks_a_sample / requests.tasks).max(1) as u32;
    Candidate::once(W::NAME, move || {
        runtime.drive(drive(W::default(), meeting, bursts, requests));
    })
}

fn measure() {
    let (tasks_a_sample, rounds) = if quick() { (1_000, 1) } else { (10_000, 9) };
    let plan = Plan {
        clock: Clock::Thread,
        row: Duration::ZERO,
        fewest_rounds: rounds,
        ..Plan::new(Clock::Thread)
    };
    let runtime = CurrentThread::new();
    let meeting = Meeting::leaked(100_000);
    for (wakes, mode) in [(0, Mode::AtOnce), (1, Mode::AtOnce), (1, Mode::Staggered)] {
        let mut candidates = Vec::new();
        for tasks in SIZES {
            let requests = Requests::one_at_a_time(tasks, wakes, mode);
            let deferred = candidate::<Deferred<CurrentThread>>;
            let spawned = candidate::<Spawned<CurrentThread>>;
            candidates.push(deferred(&runtime, meeting, requests, tasks_a_sample));
            candidates.push(spawned(&runtime, meeting, requests, tasks_a_sample));
        }
        let mut samples = plan.sample(1, &mut candidates);
        for (index, of) in samples.iter_mut().enumerate() {
            let size = SIZES[index / 2];
            let tasks = (tasks_a_sample / size).max(1) * size;
            of.iter_mut().for_each(|time| *time /= tasks as f64);
        }
        let mode = if wakes == 0 { "none" } else { mode.name() };
        for (index, candidate) in candidates.iter().enumerate() {
            let (size, way) = (index / 2, index % 2);
            let key = |sheet| Key::new(sheet, CurrentThread::NAME, SIZES[size] as u64, wakes, mode);
            let (name, of) = (candidate.name, &samples[index]);
            report(&key(SIZE), name, of, &samples[2 * size + 1]);
            report(&key(FLATNESS), name, of, &samples[2 * HUNDRED + way]);
        }
    }
}

fn label(figure: &Figure) -> String {
    let tasks = thousands(figure.key.tasks);
    match (figure.key.wakes, figure.key.mode.as_str()) {
        (0, _) => tasks,
        (_, "at_once") => format!("{tasks}, each woken, all at once"),
        _ => format!("{tasks}, each woken, staggered"),
    }
}

fn tables(figures: &[Figure]) -> String {
    let size = select(figures, SIZE.name, &[], |_| true);
    let flatness = select(figures, FLATNESS.name, &[], |figure| {
        figure.key.tasks >= SIZES[HUNDRED] as u64
    });
    let cost = pivot(&size, "tasks in one scope", label, |figure| {
        match figure.candidate.as_str() {
            "after" => format!("{:.0} ns a task, {}", figure.value, spread(figure)),
            _ => format!("{:.0} ns a task", figure.value),
        }
    });
    let flat = pivot(
        &flatness,
        "a task's cost, to that of 100 tasks",
        label,
        spread,
    );
    format!("{cost}\n{flat}")
}

fn main() {
    processes::run("size", &[SIZE, FLATNESS], measure, tables);
}
