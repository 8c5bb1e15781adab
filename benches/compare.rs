//! What `after` costs beside what it replaces, on tokio's current-thread runtime: `cargo bench --bench compare`.
//!
//! Prints ratios and asserts nothing. All candidates of a row are interleaved in one process, in short samples; a ratio
//! is taken between samples that stand side by side, and the median of them is the process's figure. One process is no
//! measurement, because the layout of its heap moves a row by a tenth and more: the program runs itself several times,
//! and shows the median and the range over the processes.

use std::{
    cell::RefCell,
    env,
    future::Future,
    hint::black_box,
    pin::pin,
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use after::Runner;

use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinSet, yield_now},
};
use tokio_util::task::TaskTracker;

const PROCESSES: usize = 7;
const SAMPLES: usize = 301;
/// Requests in one call of a row with deferred tasks.
const REQUESTS: u64 = 32;

tokio::task_local! {
    static LOCAL: u64;
}

/// What each task does.
static DONE: AtomicU64 = AtomicU64::new(0);
/// What a careful user keeps beside `tokio::spawn`, to know when all is done.
static RUNNING: AtomicU64 = AtomicU64::new(0);

async fn work() {
    DONE.fetch_add(1, Relaxed);
}

/// Lets the runtime run until `tasks` more have been done.
async fn until(done: u64) {
    while DONE.load(Relaxed) < done {
        yield_now().await;
    }
}

type Candidate<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Nanoseconds of one call, over `calls` calls.
fn sample(candidate: &mut dyn FnMut(), calls: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        candidate();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// Prints a line for each pair: row, numerator, denominator, median ratio, median nanoseconds of the numerator.
fn compare(row: &str, calls: u32, mut candidates: Vec<Candidate<'_>>) {
    let mut samples = vec![Vec::with_capacity(SAMPLES); candidates.len()];
    for round in 0..SAMPLES + 20 {
        for index in 0..candidates.len() {
            // Each round begins with another candidate, so that none always runs in the wake of the same neighbour.
            let index = (index + round) % candidates.len();
            let time = sample(&mut candidates[index].1, calls);
            if round >= 20 {
                samples[index].push(time);
            }
        }
    }
    for rival in 1..candidates.len() {
        let ratios = samples[0].iter().zip(&samples[rival]).map(|(a, b)| a / b);
        let ratio = median(ratios.collect());
        let ours = median(samples[0].clone());
        let theirs = median(samples[rival].clone());
        println!("{row}\t{}\t{ratio}\t{ours}\t{theirs}", candidates[rival].0);
        // The last candidate of an idle row is the bare future: what is above it is a wrapper's own cost.
        if row.contains("poll") || row.contains("nothing") {
            let bare = samples.last().expect("a candidate");
            if rival + 1 < candidates.len() {
                let own = |of: usize| -> Vec<f64> {
                    samples[of].iter().zip(bare).map(|(a, b)| a - b).collect()
                };
                let (ours, theirs) = (own(0), own(rival));
                let ratios = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
                println!(
                    "{row}, own cost\t{}\t{}\t{}\t{}",
                    candidates[rival].0,
                    median(ratios),
                    median(ours),
                    median(theirs)
                );
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A future that is pending for the given number of polls.
struct PendingFor(u32);

impl Future for PendingFor {
    type Output = u32;

    fn poll(mut self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
        if self.0 == 0 {
            return Poll::Ready(black_box(1));
        }
        self.0 = black_box(self.0) - 1;
        Poll::Pending
    }
}

fn poll_to_end(future: impl Future<Output = u32>) -> u32 {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
}

fn idle() {
    for (row, polls) in [("nothing deferred", 0), ("64 pending polls", 64)] {
        let bare = || {
            black_box(poll_to_end(PendingFor(black_box(polls))));
        };
        let scope = || {
            black_box(poll_to_end(after::scope(PendingFor(black_box(polls)))));
        };
        let local = || {
            black_box(poll_to_end(LOCAL.scope(7, PendingFor(black_box(polls)))));
        };
        compare(
            row,
            2_000,
            vec![
                ("", Box::new(scope)),
                ("task_local", Box::new(local)),
                ("the bare future", Box::new(bare)),
            ],
        );
    }
}

macro_rules! joined {
    (1) => {
        work()
    };
    (3) => {
        async {
            tokio::join!(work(), work(), work());
        }
    };
    (8) => {
        async {
            tokio::join!(
                work(),
                work(),
                work(),
                work(),
                work(),
                work(),
                work(),
                work()
            );
        }
    };
}

/// Runs `REQUESTS` requests, `$flight` at a time, each batch of them until its `$tasks` tasks a request are done.
macro_rules! drive {
    ($runtime:expr, $flight:expr, $tasks:expr, $request:expr) => {
        Box::new(|| {
            $runtime.block_on(async {
                let mut done = DONE.load(Relaxed);
                for _ in 0..REQUESTS / $flight {
                    for _ in 0..$flight {
                        $request;
                    }
                    done += $flight * $tasks;
                    until(done).await;
                }
            });
        })
    };
}

macro_rules! tasks {
    ($runtime:expr, $flight:expr, $n:tt) => {{
        let runtime: &Runtime = $runtime;
        let tracker = TaskTracker::new();
        let set = RefCell::new(JoinSet::new());
        compare(
            &format!("{} deferred, {} in flight", $n, $flight),
            4,
            vec![
                (
                    "",
                    drive!(runtime, $flight, $n, {
                        after::scope(async {
                            for _ in 0..$n {
                                after::defer(work());
                            }
                        })
                        .await
                    }),
                ),
                (
                    "tokio::spawn with a counter",
                    drive!(runtime, $flight, $n, {
                        for _ in 0..$n {
                            RUNNING.fetch_add(1, Relaxed);
                            tokio::spawn(async {
                                work().await;
                                RUNNING.fetch_sub(1, Relaxed);
                            });
                        }
                    }),
                ),
                (
                    "TaskTracker",
                    drive!(runtime, $flight, $n, {
                        for _ in 0..$n {
                            tracker.spawn(work());
                        }
                    }),
                ),
                (
                    "JoinSet",
                    drive!(runtime, $flight, $n, {
                        let mut set = set.borrow_mut();
                        for _ in 0..$n {
                            set.spawn(work());
                        }
                        while set.try_join_next().is_some() {}
                    }),
                ),
                (
                    "join! in one spawn",
                    drive!(runtime, $flight, $n, {
                        tokio::spawn(joined!($n));
                    }),
                ),
            ],
        );
    }};
}

/// What each feature costs that is turned on: three tasks a request with it, against three plain ones.
fn features(runtime: &Runtime) {
    struct Watches;
    impl after::Observer for Watches {}

    let timeouts = Runner::builder().task_timeout(HOUR).build();
    let scope_timeouts = Runner::builder().scope_timeout(HOUR).build();
    let limits = Runner::builder().max_running(1_000).build();
    let observed = Runner::builder().observer(Watches).build();
    let hooked = Runner::builder().on_defer(|task| task).build();
    let given = Runner::builder().build();

    macro_rules! with {
        ($feature:expr, $scope:expr, $defer:expr) => {
            compare(
                concat!("3 tasks with ", $feature),
                4,
                vec![
                    (
                        "",
                        drive!(runtime, 1, 3, {
                            $scope(async {
                                for _ in 0..3 {
                                    $defer;
                                }
                            })
                            .await
                        }),
                    ),
                    (
                        "three plain tasks",
                        drive!(runtime, 1, 3, {
                            after::scope(async {
                                for _ in 0..3 {
                                    after::defer(work());
                                }
                            })
                            .await
                        }),
                    ),
                ],
            );
        };
    }

    with!("a name", after::scope, after::task("named").defer(work()));
    with!(
        "a condition",
        after::scope,
        after::task("named").on_success().defer(work())
    );
    with!("a key (one kept)", after::scope, {
        after::task("named").key("key").defer(async {});
        after::forget("key");
        after::defer(work())
    });
    with!(
        "a time limit",
        after::scope,
        after::task("named").timeout(HOUR).defer(work())
    );
    with!(
        "`spawned`",
        after::scope,
        after::task("named").spawned().defer(work())
    );
    with!("a context value", after::scope, {
        after::context::set(7_u64);
        after::defer(work())
    });
    with!("a handle", after::scope, after::handle().defer(work()));
    with!(
        "a Runner given",
        |request| given.scope(request),
        after::defer(work())
    );
    with!(
        "task_timeout",
        |request| timeouts.scope(request),
        after::defer(work())
    );
    with!(
        "scope_timeout",
        |request| scope_timeouts.scope(request),
        after::defer(work())
    );
    with!(
        "max_running",
        |request| limits.scope(request),
        after::defer(work())
    );
    with!(
        "an observer",
        |request| observed.scope(request),
        after::defer(work())
    );
    with!(
        "on_defer",
        |request| hooked.scope(request),
        after::defer(work())
    );
}

const HOUR: Duration = Duration::from_secs(3_600);

fn child() {
    idle();
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    for flight in [1, 32] {
        tasks!(&runtime, flight, 1);
        tasks!(&runtime, flight, 3);
        tasks!(&runtime, flight, 8);
    }
    // Time limits need a timer, which costs every turn of the runtime: the rows above are without.
    let runtime = Builder::new_current_thread().enable_time().build();
    features(&runtime.expect("a runtime"));
}

fn main() {
    if env::args().any(|argument| argument == "--child") {
        return child();
    }
    let program = env::current_exe().expect("this program has a path");
    let mut rows: Vec<(String, Vec<[f64; 3]>)> = Vec::new();
    for process in 1..=PROCESSES {
        eprint!("\rprocess {process} of {PROCESSES}");
        let output = Command::new(&program).arg("--child").output();
        let output = output.expect("this program runs");
        assert!(output.status.success(), "a child failed: {output:?}");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let figures = [2, 3, 4].map(|field| fields[field].parse().expect("a figure"));
            let name = format!("{:<30} {:<28}", fields[0], fields[1]);
            match rows.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => all.push(figures),
                None => rows.push((name, vec![figures])),
            }
        }
    }
    eprintln!();
    println!(
        "ratio of `after` to its rival, median of {PROCESSES} processes (least to most); nanoseconds a call"
    );
    println!(
        "of a row with deferred tasks: {REQUESTS} requests with so many tasks each, from the request to their end"
    );
    println!(
        "{:<30} {:<28} {:>6}  {:^13}  {:>9} {:>9}",
        "", "against", "ratio", "range", "after", "rival"
    );
    for (name, figures) in rows {
        let column = |index: usize| figures.iter().map(|row| row[index]).collect::<Vec<_>>();
        let ratios = column(0);
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        println!(
            "{name} {:>6.2}  {least:>5.2} to {most:<5.2}  {:>9.1} {:>9.1}",
            median(ratios),
            median(column(1)),
            median(column(2))
        );
    }
}
