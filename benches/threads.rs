//! Several threads that serve requests on one Runner: requests in a second of real time, with 1, 2 and 8 threads, beside
//! `tokio::spawn` with a shared counter, and a shared `TaskTracker`. `cargo bench --bench threads`.
//!
//! In one mode each thread has a current-thread runtime of its own, as in actix-web, so that all they share is the
//! account; in the other they are the workers of one runtime. What a request's tasks meet at is its connection's own.

mod common;

use std::{
    future::Future,
    marker::PhantomData,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use common::{
    clock::Clock,
    measure::report,
    processes, quick,
    results::{Figure, Key, Sheet},
    runtimes::{CurrentThread, Runtime},
    table::{pivot, select, spread, thousands},
    wakes::{Meeting, Mode},
    ways::{Deferred, Requests, Spawned, Way, drive},
};
use tokio::runtime::Builder;
use tokio_util::task::TaskTracker;

const THREADS: Sheet = Sheet {
    name: "threads",
    value: "median_ns",
    ratio: "ratio_to_spawn",
};
const SCALING: Sheet = Sheet {
    name: "scaling",
    value: "requests_a_second",
    ratio: "ratio_to_1_thread",
};

/// Processor time: what threads cost each other is in it, and what other processes take is not.
const PROCESSOR: Sheet = Sheet {
    name: "threads_processor",
    value: "median_processor_ns",
    ratio: "ratio_to_1_thread",
};

const TASKS: usize = 3;
const COUNTS: [usize; 3] = [1, 2, 8];
/// Connections that are served at a time, by however many threads.
const CONNECTIONS: u32 = 16;

/// All samples of a process share one tracker, as all connections of a server do.
struct OneTracker<R> {
    tracker: TaskTracker,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Default for OneTracker<R> {
    fn default() -> Self {
        static TRACKER: std::sync::OnceLock<TaskTracker> = std::sync::OnceLock::new();
        OneTracker {
            tracker: TRACKER.get_or_init(TaskTracker::new).clone(),
            runtime: PhantomData,
        }
    }
}

impl<R: Runtime> Way for OneTracker<R> {
    const NAME: &'static str = "TaskTracker";

    fn request(
        &mut self,
        meeting: &'static Meeting,
        tasks: usize,
        wakes: u32,
    ) -> impl Future<Output = ()> + Send {
        for task in 0..tasks {
            R::spawn(self.tracker.track_future(meeting.task(task, wakes)));
        }
        std::future::ready(())
    }
}

const REQUESTS: Requests = Requests::one_at_a_time(TASKS, 0, Mode::AtOnce);

/// Real time from the first start to the last end, and the processor time of all threads.
struct Times {
    real: Duration,
    processor: Duration,
}

/// Serves so many requests on each connection, with a runtime for each thread.
fn own_runtimes<W: Way>(threads: usize, meetings: &[&'static Meeting], requests: u32) -> Times {
    let barrier = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = meetings
        .chunks(meetings.len() / threads)
        .map(|meetings| {
            let (meetings, barrier) = (meetings.to_vec(), barrier.clone());
            thread::spawn(move || {
                let runtime = CurrentThread::new();
                // The thread's first requests fill what is reused.
                runtime.drive(drive(W::default(), meetings[0], 50, REQUESTS));
                barrier.wait();
                let (start, before) = (Instant::now(), Clock::Thread.now());
                for meeting in meetings {
                    runtime.drive(drive(W::default(), meeting, requests, REQUESTS));
                }
                (start, Instant::now(), Clock::Thread.now() - before)
            })
        })
        .collect();
    let times: Vec<_> = workers
        .into_iter()
        .map(|worker| worker.join().expect("a worker ends"))
        .collect();
    let start = times.iter().map(|(start, ..)| *start).min();
    let end = times.iter().map(|(_, end, _)| *end).max();
    Times {
        real: end.expect("an end") - start.expect("a start"),
        processor: times.iter().map(|(.., processor)| *processor).sum(),
    }
}

/// The same with one runtime of so many workers.
fn one_runtime<W: Way>(threads: usize, meetings: &[&'static Meeting], requests: u32) -> Times {
    let runtime = Builder::new_multi_thread().worker_threads(threads).build();
    let runtime = runtime.expect("a runtime");
    let serve = |requests: u32| {
        let connections: Vec<_> = meetings
            .iter()
            .map(|meeting| runtime.spawn(drive(W::default(), meeting, requests, REQUESTS)))
            .collect();
        runtime.block_on(async {
            for connection in connections {
                connection.await.expect("a connection ends");
            }
        });
    };
    serve(50);
    let (start, before) = (Instant::now(), Clock::Process.now());
    serve(requests);
    Times {
        real: start.elapsed(),
        processor: Clock::Process.now() - before,
    }
}

type Serve = fn(usize, &[&'static Meeting], u32) -> Times;

fn compare(mode: &str, ways: [(&str, Serve); 3], requests: u32, rounds: usize) {
    let meetings: Vec<_> = (0..CONNECTIONS).map(|_| Meeting::leaked(TASKS)).collect();
    let mut samples = vec![Vec::new(); ways.len() * COUNTS.len()];
    let mut processor = samples.clone();
    let in_all = f64::from(requests * CONNECTIONS);
    for round in 0..rounds {
        for index in 0..samples.len() {
            let index = (index + round) % samples.len();
            let (threads, (_, serve)) = (COUNTS[index / ways.len()], ways[index % ways.len()]);
            let times = serve(threads, &meetings, requests);
            samples[index].push(times.real.as_nanos() as f64 / in_all);
            processor[index].push(times.processor.as_nanos() as f64 / in_all);
        }
    }
    let rates = |of: &[f64]| -> Vec<f64> { of.iter().map(|time| 1e9 / time).collect() };
    for (index, of) in samples.iter().enumerate() {
        let (count, way) = (index / ways.len(), index % ways.len());
        let mode = format!("{mode}_{}", COUNTS[count]);
        let key = |sheet| Key::new(sheet, "tokio", TASKS as u64, 0, &mode);
        let spawn = &samples[count * ways.len() + 1];
        report(&key(THREADS), ways[way].0, of, spawn);
        report(
            &key(SCALING),
            ways[way].0,
            &rates(of),
            &rates(&samples[way]),
        );
        report(
            &key(PROCESSOR),
            ways[way].0,
            &processor[index],
            &processor[way],
        );
    }
}

fn measure() {
    let (requests, rounds) = if quick() { (50, 1) } else { (400, 15) };
    type After = Deferred<CurrentThread>;
    type Spawn = Spawned<CurrentThread>;
    type Tracker = OneTracker<CurrentThread>;
    compare(
        "own_runtimes",
        [
            ("after", own_runtimes::<After>),
            ("spawn", own_runtimes::<Spawn>),
            ("TaskTracker", own_runtimes::<Tracker>),
        ],
        requests,
        rounds,
    );
    compare(
        "one_runtime",
        [
            ("after", one_runtime::<After>),
            ("spawn", one_runtime::<Spawn>),
            ("TaskTracker", one_runtime::<Tracker>),
        ],
        requests,
        rounds,
    );
}

fn label(figure: &Figure) -> String {
    let (mode, threads) = figure
        .key
        .mode
        .rsplit_once('_')
        .expect("a mode and threads");
    let threads = if threads == "1" {
        "1 thread"
    } else {
        &format!("{threads} threads")
    };
    match mode {
        "own_runtimes" => format!("{threads}, a runtime each"),
        _ => format!("{threads} of one runtime"),
    }
}

fn tables(figures: &[Figure]) -> String {
    let rates = select(figures, SCALING.name, &[], |_| true);
    let cost = select(figures, THREADS.name, &["spawn"], |_| true);
    let rates = pivot(
        &rates,
        "requests a second, ratio to 1 thread",
        label,
        |figure| format!("{}, {}", thousands(figure.value as u64), spread(figure)),
    );
    let cost = pivot(&cost, "time of a request, ratio to `spawn`", label, spread);
    let processor = select(figures, PROCESSOR.name, &[], |_| true);
    let processor = pivot(
        &processor,
        "processor time of a request, ratio to 1 thread",
        label,
        |figure| format!("{:.0} ns, {}", figure.value, spread(figure)),
    );
    format!("{rates}\n{cost}\n{processor}")
}

fn main() {
    processes::run("threads", &[THREADS, SCALING, PROCESSOR], measure, tables);
}
