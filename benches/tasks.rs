//! What it costs to defer, hand over and run the tasks of a request, beside other ways to run them in the background, on
//! every runtime. `cargo bench --bench tasks --all-features`; without the features, smol and async-std are left out.

mod common;

use common::{
    clock::Clock,
    floor::ByHand,
    measure::{Candidate, Plan},
    processes,
    results::{Figure, Key, Sheet},
    runtimes::{CurrentThread, MultiThread, Pool, Runtime, Threads},
    table::{pivot, ratio, select, spread},
    wakes::{Meeting, Mode},
    ways::{
        Deferred, InJoinSet, JoinAll, JoinMacro, Requests, Spawned, Tracked, Unordered, candidate,
        driver_alone,
    },
};

const TASKS: Sheet = Sheet {
    name: "tasks",
    value: "median_ns",
    ratio: "ratio_to_spawn",
};

const MOST_TASKS: usize = 64;
/// Requests in flight in the rows with the mode `burst`.
const BURST: u32 = 32;

/// The rows of a runtime: tasks, wakes, in which turns they are woken.
fn rows() -> impl Iterator<Item = Requests> {
    let modes = [
        (0, Mode::AtOnce),
        (1, Mode::AtOnce),
        (10, Mode::AtOnce),
        (1, Mode::Staggered),
        (10, Mode::Staggered),
    ];
    modes.into_iter().flat_map(|(wakes, mode)| {
        [1, 3, 8, 16, MOST_TASKS].map(|tasks| Requests {
            tasks,
            wakes,
            mode,
            in_flight: 1,
        })
    })
}

fn key(runtime: &str, requests: Requests) -> Key {
    let mode = match requests {
        Requests {
            in_flight: 1,
            wakes: 0,
            ..
        } => "none",
        Requests {
            in_flight: 1, mode, ..
        } => mode.name(),
        _ => "burst",
    };
    Key::new(TASKS, runtime, requests.tasks as u64, requests.wakes, mode)
}

/// One row: `after` on its runtime against the other ways on theirs, which is another one for `Threads` alone.
fn row<'a, A: Runtime, R: Runtime>(
    own: &'a A,
    runtime: &'a R,
    meeting: &'static Meeting,
    requests: Requests,
    only_here: Vec<Candidate<'a>>,
) {
    let mut candidates = vec![
        candidate::<A, Deferred<A>>(own, meeting, requests),
        candidate::<R, Spawned<R>>(runtime, meeting, requests),
        candidate::<R, Tracked<R>>(runtime, meeting, requests),
        candidate::<R, JoinAll<R>>(runtime, meeting, requests),
        candidate::<R, Unordered<R>>(runtime, meeting, requests),
    ];
    if requests.tasks < MOST_TASKS {
        candidates.push(candidate::<R, JoinMacro<R>>(runtime, meeting, requests));
    }
    if requests.in_flight == 1 {
        candidates.push(driver_alone(runtime, meeting, requests));
    }
    candidates.extend(only_here);
    let mut plan = Plan::new(Clock::Real);
    plan.calls_in_one = requests.in_flight;
    plan.compare(&key(A::NAME, requests), "spawn", candidates);
}

/// Rows with many requests in flight: the driver's own share of the figures is small there.
fn bursts() -> impl Iterator<Item = Requests> {
    let tasks = [1, 3, 8].into_iter();
    tasks.map(|tasks| Requests {
        tasks,
        wakes: 0,
        mode: Mode::AtOnce,
        in_flight: BURST,
    })
}

fn on_tokio<R: Runtime>(
    runtime: &R,
    meeting: &'static Meeting,
    rows: impl Iterator<Item = Requests>,
) {
    for requests in rows {
        let set = candidate::<R, InJoinSet>(runtime, meeting, requests);
        let by_hand = candidate::<R, ByHand<R>>(runtime, meeting, requests);
        row(runtime, runtime, meeting, requests, vec![set, by_hand]);
    }
}

fn elsewhere<A: Runtime, R: Runtime>(own: &A, runtime: &R, meeting: &'static Meeting) {
    for requests in rows().filter(|requests| requests.tasks != 16) {
        row(own, runtime, meeting, requests, Vec::new());
    }
}

fn measure() {
    let meeting = Meeting::leaked(MOST_TASKS);
    on_tokio(&CurrentThread::new(), meeting, rows().chain(bursts()));
    on_tokio(&MultiThread::new(), meeting, rows());
    #[cfg(feature = "smol")]
    elsewhere(&common::runtimes::Smol, &common::runtimes::Smol, meeting);
    #[cfg(feature = "async-std")]
    elsewhere(
        &common::runtimes::AsyncStd,
        &common::runtimes::AsyncStd,
        meeting,
    );
    elsewhere(&Threads, &Pool, meeting);
}

fn label(figure: &Figure) -> String {
    let Key {
        tasks, wakes, mode, ..
    } = &figure.key;
    let each = if *tasks == 1 {
        "1 task"
    } else {
        &format!("{tasks} tasks")
    };
    match mode.as_str() {
        "none" => each.into(),
        "burst" => format!("{each}, {BURST} requests in flight"),
        _ if *wakes == 1 => format!("{each}, 1 wake, {}", mode.replace('_', " ")),
        _ => format!("{each}, {wakes} wakes, {}", mode.replace('_', " ")),
    }
}

fn tables(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut runtimes: Vec<&str> = Vec::new();
    for figure in figures {
        if !runtimes.contains(&figure.key.runtime.as_str()) {
            runtimes.push(&figure.key.runtime);
        }
    }
    for runtime in runtimes {
        let rows = select(figures, TASKS.name, &[], |figure| {
            figure.key.runtime == runtime
        });
        text.push_str(&format!("**{}**\n\n", title(runtime)));
        text.push_str(&pivot(
            &rows,
            "ratio to `spawn`",
            label,
            |figure| match figure.candidate.as_str() {
                "after" => spread(figure),
                "spawn" => format!("{:.0} ns", figure.value),
                _ => ratio(figure),
            },
        ));
        text.push('\n');
    }
    text
}

fn title(runtime: &str) -> &str {
    match runtime {
        "tokio_current_thread" => "tokio, one thread",
        "tokio_multi_thread" => "tokio, a worker for each core",
        "smol" => "smol, one thread",
        "async_std" => "async-std, a thread for each core",
        "threads" => "`Threads`, against the thread pool of `futures`",
        other => other,
    }
}

fn main() {
    processes::run("tasks", &[TASKS], measure, tables);
}
