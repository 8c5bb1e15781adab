//! What is held: by a scope, by a task that is deferred or that runs, by a million of them, and by a scope nearly all of
//! whose tasks have ended. Bytes that were asked of the allocator, less the tasks' futures themselves; of a million tasks
//! also what the process grew by. `cargo bench --bench memory`.
//!
//! Each figure is taken on a thread of its own with a runtime and a Runner of its own, so that nothing is reused; that
//! of a million tasks in a process of its own.

mod common;

use std::{env, fs, future::Future, mem::size_of_val, process::Command, task::Context, thread};

use after::Runner;
use allocation_counter::{measure as count, opt_out};
use common::{
    processes::{self, emit},
    quick,
    results::{Figure, Key, Sheet},
    table::{pivot, select, thousands},
    wakes::{Meeting, Mode, Woken},
};
use futures::task::noop_waker_ref;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

const SCOPE: Sheet = Sheet {
    name: "scope",
    value: "bytes",
    ratio: "ratio_to_task_local",
};
const MEMORY: Sheet = Sheet {
    name: "memory",
    value: "bytes_a_task",
    ratio: "ratio_to_spawn",
};

tokio::task_local! {
    static LOCAL: u64;
}

/// Who makes the tasks, and how far they get. Each waits for one wake-up.
#[derive(Clone, Copy)]
enum Case {
    /// Deferred by scopes with so many tasks each, which are not over.
    Deferred(usize),
    /// Deferred by scopes with so many tasks each, handed over and polled.
    Running(usize),
    /// All but one of one scope have ended.
    OneLeft,
    Spawned,
    Tracked,
    InJoinSet,
}

impl Case {
    /// Makes `tasks` tasks and leaks them.
    fn make(self, runtime: &Runtime, meeting: &'static Meeting, tasks: usize) {
        let all = 0..tasks;
        runtime.block_on(async {
            meeting.expect(tasks as u64);
            match self {
                Case::Deferred(each) => return scopes(meeting, tasks, each, false),
                Case::Running(each) => scopes(meeting, tasks, each, true),
                Case::OneLeft => scopes(meeting, tasks, tasks, true),
                Case::Spawned => all.for_each(|task| {
                    tokio::spawn(meeting.task(task, 1));
                }),
                Case::Tracked => {
                    let tracker = TaskTracker::new();
                    all.for_each(|task| {
                        tracker.spawn(meeting.task(task, 1));
                    });
                }
                Case::InJoinSet => {
                    let mut set = JoinSet::new();
                    all.for_each(|task| {
                        set.spawn(meeting.task(task, 1));
                    });
                    std::mem::forget(set);
                }
            }
            meeting.all_arrived().await;
            if let Case::OneLeft = self {
                meeting.wake(tasks - 1, 1, Mode::AtOnce).await;
                // The batch publishes and gives back at the end of its turn.
                tokio::task::yield_now().await;
            }
        });
    }

    fn candidate(self) -> &'static str {
        match self {
            Case::Deferred(_) | Case::Running(_) | Case::OneLeft => "after",
            Case::Spawned => "spawn",
            Case::Tracked => "TaskTracker",
            Case::InJoinSet => "JoinSet",
        }
    }

    /// Bytes that are held, less the futures of the tasks that are left.
    fn bytes(self, tasks: usize) -> f64 {
        let left = if let Case::OneLeft = self { 1 } else { tasks };
        let held = apart(
            move |runtime, meeting| count(|| self.make(runtime, meeting, tasks)).bytes_current,
            tasks,
        );
        (held - (left * size_of::<Woken>()) as i64) as f64 / left as f64
    }
}

fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let mut result = None;
    opt_out(|| result = Some(work()));
    result.expect("it was done")
}

/// Requests with `each` tasks, until there are so many tasks.
fn scopes(meeting: &'static Meeting, tasks: usize, each: usize, over: bool) {
    // The Runner is not in the figure, its account and its roster are.
    let runner = uncounted(|| Runner::builder().build());
    let mut task = 0;
    while task < tasks {
        let here = task..task.saturating_add(each).min(tasks);
        task = here.end;
        let request = async move {
            here.for_each(|task| after::defer(meeting.task(task, 1)));
            if !over {
                std::future::pending::<()>().await;
            }
        };
        let mut scope = uncounted(|| Box::pin(runner.scope(request)));
        let _ = scope
            .as_mut()
            .poll(&mut Context::from_waker(noop_waker_ref()));
        if !over {
            std::mem::forget(scope);
        } else {
            opt_out(|| drop(scope));
        }
    }
}

/// On a thread of its own, with a runtime that is not dropped: its tasks would end.
fn apart<T: Send + 'static>(
    work: impl FnOnce(&Runtime, &'static Meeting) -> T + Send + 'static,
    tasks: usize,
) -> T {
    let apart = thread::spawn(move || {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let result = work(&runtime, Meeting::leaked(tasks));
        std::mem::forget(runtime);
        result
    });
    apart.join().expect("the thread ends")
}

fn row(tasks: usize, mode: &str, cases: &[Case]) {
    let spawned = Case::Spawned.bytes(tasks);
    for case in cases {
        let bytes = case.bytes(tasks);
        emit(&key(tasks, mode), case.candidate(), bytes, bytes / spawned);
    }
}

fn key(tasks: usize, mode: &str) -> Key {
    Key::new(MEMORY, "tokio_current_thread", tasks as u64, 1, mode)
}

fn scope(meeting: &'static Meeting) {
    let own = size_of::<Woken>();
    let scope = size_of_val(&after::scope(meeting.task(0, 0))) - own;
    let local = size_of_val(&LOCAL.scope(7, meeting.task(0, 0))) - own;
    let key = Key::new(SCOPE, "any", 0, 0, "beyond_its_future");
    emit(&key, "after", scope as f64, scope as f64 / local as f64);
    emit(&key, "task_local", local as f64, 1.0);
}

/// The cases of a million tasks.
const MILLIONS: [(&str, Case); 6] = [
    ("one_scope", Case::Running(usize::MAX)),
    ("scopes_of_3", Case::Running(3)),
    ("scopes_of_1", Case::Running(1)),
    ("spawned", Case::Spawned),
    ("tracked", Case::Tracked),
    ("join_set", Case::InJoinSet),
];

fn million() -> usize {
    if quick() { 10_000 } else { 1_000_000 }
}

/// In this process: bytes asked for, and what the process has grown by, if the system tells.
fn one_million(case: Case) -> (f64, f64) {
    apart(
        move |runtime, meeting| {
            let before = resident();
            let held = count(|| case.make(runtime, meeting, million())).bytes_current as f64;
            let grown = resident() - before;
            let own = size_of::<Woken>() as f64;
            let tasks = million() as f64;
            (held / tasks - own, grown / tasks - own)
        },
        million(),
    )
}

fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) * 1024.0
}

fn millions() {
    let figures = MILLIONS.map(|(name, case)| {
        let program = env::current_exe().expect("this program has a path");
        let output = Command::new(program)
            .args(["--child", "--million", name])
            .output();
        let output = output.expect("this program runs");
        assert!(output.status.success(), "a process failed: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut figures = text.split_whitespace().map(|figure| figure.parse::<f64>());
        let mut next = || figures.next().expect("a figure").expect("a number");
        (name, case.candidate(), next(), next())
    });
    let spawned = figures.iter().find(|(name, ..)| *name == "spawned");
    let (_, _, spawned, spawned_grown) = *spawned.expect("the spawned ones");
    for (name, candidate, bytes, grown) in figures {
        let mode = if candidate == "after" {
            name
        } else {
            "pending"
        };
        emit(&key(million(), mode), candidate, bytes, bytes / spawned);
        if !grown.is_nan() {
            let mode = format!("{mode}_resident");
            emit(
                &key(million(), &mode),
                candidate,
                grown,
                grown / spawned_grown,
            );
        }
    }
}

fn measure() {
    let mut arguments = env::args().skip_while(|argument| argument != "--million");
    if let Some(name) = arguments.nth(1) {
        let case = MILLIONS.iter().find(|(known, _)| *known == name);
        let (bytes, grown) = one_million(case.expect("a known case").1);
        return println!("{bytes} {grown}");
    }
    scope(Meeting::leaked(1));
    let rivals = [Case::Spawned, Case::Tracked, Case::InJoinSet];
    for tasks in [1, 3, 8, 1_000] {
        row(tasks, "deferred", &[Case::Deferred(tasks)]);
        row(tasks, "running", &[Case::Running(tasks)]);
        row(tasks, "running", &rivals);
    }
    row(1_001, "all_left", &[Case::Running(1_001)]);
    row(1_001, "one_left", &[Case::OneLeft]);
    millions();
}

fn label(figure: &Figure) -> String {
    let tasks = thousands(figure.key.tasks);
    match figure.key.mode.as_str() {
        "deferred" | "running" if figure.key.tasks == 1 => format!("1 task, {}", figure.key.mode),
        "deferred" | "running" => format!("{tasks} tasks of one scope, {}", figure.key.mode),
        "all_left" => format!("{tasks} tasks of one scope"),
        "one_left" => format!(
            "all that one task holds when the other {} have ended",
            thousands(figure.key.tasks - 1)
        ),
        mode => {
            let mode = mode.replace('_', " ");
            format!(
                "{tasks}, {}",
                mode.replace(" resident", ", as the process grew")
            )
        }
    }
}

fn tables(figures: &[Figure]) -> String {
    let scope = select(figures, SCOPE.name, &[], |_| true);
    let scope = pivot(
        &scope,
        "bytes beyond its future",
        |_| "a scope".into(),
        |figure| format!("{:.0}", figure.value),
    );
    let memory = select(figures, MEMORY.name, &[], |_| true);
    let memory = pivot(
        &memory,
        "bytes a task, beyond its future",
        label,
        |figure| format!("{:.0}", figure.value),
    );
    format!("{scope}\n{memory}")
}

fn main() {
    processes::run("memory", &[SCOPE, MEMORY], measure, tables);
}
