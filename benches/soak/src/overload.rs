//! The second and third part: five times as many clients as there is room for tasks.
//!
//! What the limits allow is [`MAX_RUNNING`] tasks of [`TASK`] at once and [`MAX_WAITING`] more. There is a client for each
//! of these places, five times over, and each asks ten times a second if it is answered: with `Shed` that is five times
//! the tasks that can run in that time, and what does not fit is shed; with `Backpressure` the answers wait, and the
//! clients with them. The clients are a process of their own, so that the memory that is watched is the server's.

use std::{
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use after::{Overflow, Runner, Stats, tower::AfterLayer};
use axum::{Router, extract::State, routing::get};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    AnyError,
    crowd::{self, Seen},
    live_bytes, table,
    tally::{add, read},
};

const MAX_RUNNING: usize = 16;
const MAX_WAITING: usize = 64;
const TASK: Duration = Duration::from_millis(20);
/// What a task keeps alive: one that is held although it should be gone is seen.
const PAYLOAD: usize = 4 * 1_024;

const CLIENTS: usize = 5 * (MAX_RUNNING + MAX_WAITING);

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(20);

/// How much higher the highest figure of the second half may be than that of the first: a quarter of what tasks of all
/// clients would hold. What varies is in the buffers of connections; some kB have been seen. Without `max_waiting` it
/// grows by megabytes a second.
const TOLERANCE: usize = CLIENTS * PAYLOAD / 4;

/// The most that may be pending: those that run; twice those that may wait, because who can't wait is accepted up to that;
/// and one for each request that is being answered, or was given up and is not yet known to be.
const MOST_PENDING: u64 = (MAX_RUNNING + 2 * MAX_WAITING + 2 * CLIENTS) as u64;

/// Returns what does not hold.
pub(crate) fn run(
    time: Duration,
    overflow: Overflow,
    unlimited: bool,
) -> Result<Vec<String>, AnyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let limited = Runner::builder()
        .max_running(MAX_RUNNING)
        .overflow(overflow);
    let runner = match unlimited {
        true => limited,
        false => limited.max_waiting(MAX_WAITING),
    }
    .build();
    let accepted = Arc::new(AtomicU64::new(0));
    let router = Router::new()
        .route("/", get(handler))
        .layer(AfterLayer::with_runner(runner.clone()))
        .with_state(accepted.clone());

    // Once for the caches, so that what is alive at rest can be compared.
    let warm_up = Duration::from_millis(500);
    let (warming, _) = runtime.block_on(load(&router, &runner, warm_up))?;
    let before = live_bytes();
    let (seen, peaks) = runtime.block_on(load(&router, &runner, time))?;
    let after = live_bytes();

    let run = Run {
        name: format!("{overflow:?}"),
        stats: runner.stats(),
        accepted: read(&accepted),
        seen: warming + seen,
        peaks,
        at_rest: [before, after],
        waits: overflow == Overflow::Backpressure,
    };
    run.print(time);
    Ok(run.failures())
}

async fn handler(State(accepted): State<Arc<AtomicU64>>) -> &'static str {
    add(&accepted);
    let payload = vec![7_u8; PAYLOAD];
    after::task("load").defer(async move {
        sleep(TASK).await;
        drop(payload);
    });
    "hello\n"
}

/// The highest live bytes up to a tenth, up to half, and up to the end; the most tasks that were pending.
#[derive(Clone, Copy, Debug, Default)]
struct Peaks {
    bytes: [usize; 3],
    pending: u64,
}

/// A server and its clients, from the first request until nothing is pending.
async fn load(router: &Router, runner: &Runner, time: Duration) -> Result<(Seen, Peaks), AnyError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router.clone()).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    let began = Instant::now();
    let mut clients = pin!(crowd::run(address, CLIENTS, time));
    let mut peaks = Peaks::default();
    let seen = loop {
        if let Ok(seen) = timeout(SAMPLE, &mut clients).await {
            break seen?;
        }
        let part = match began.elapsed().as_secs_f64() / time.as_secs_f64() {
            ..0.1 => 0,
            0.1..0.5 => 1,
            _ => 2,
        };
        peaks.bytes[part] = peaks.bytes[part].max(live_bytes());
        peaks.pending = peaks.pending.max(runner.stats().pending);
    };
    drop(stop);
    server.await??;
    runner.drain().await;
    Ok((seen, peaks))
}

/// What there is to see when all is over.
struct Run {
    name: String,
    stats: Stats,
    accepted: u64,
    seen: Seen,
    peaks: Peaks,
    at_rest: [usize; 2],
    waits: bool,
}

impl Run {
    fn print(&self, time: Duration) {
        println!(
            "\n{} at five times what the limits allow, {time:.0?}",
            self.name
        );
        let seen = self.seen;
        table::numbers("requests sent", &[seen.requests]);
        table::numbers("  answered in full", &[seen.answered]);
        table::numbers("  client hung up", &[seen.hung_up]);
        table::numbers("tasks accepted", &[self.accepted]);
        table::numbers("  completed", &[self.stats.completed]);
        table::numbers("  shed", &[self.stats.shed]);
        table::numbers("  lost", &[self.stats.lost]);
        table::numbers("  pending in the end", &[self.stats.pending]);
        table::numbers("  pending at the most", &[self.peaks.pending]);
        let [tenth, half, end] = self.peaks.bytes;
        table::numbers("live bytes to a tenth", &[tenth as u64]);
        table::numbers("live bytes to half", &[half as u64]);
        table::numbers("live bytes to the end", &[end as u64]);
        let [before, after] = self.at_rest;
        table::numbers("at rest, before", &[before as u64]);
        table::numbers("at rest, after", &[after as u64]);
    }

    /// What should hold and does not.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                failures.push(format!("{}: {what}", self.name));
            }
        };
        let Stats {
            deferred,
            completed,
            shed,
            lost,
            pending,
            ..
        } = self.stats;
        expect(
            self.accepted == deferred && deferred == completed + shed + lost && pending == 0,
            format!("accepted {}, account {:?}", self.accepted, self.stats),
        );
        let broken = self.seen.broken;
        expect(broken == 0, format!("{broken} requests broken"));
        let hung_up = self.seen.hung_up;
        if self.waits {
            // Whoever has waited for its answer has its task.
            expect(
                shed <= hung_up,
                format!("{shed} shed, of {hung_up} requests that did not wait"),
            );
            expect(hung_up > 0, "nobody has hung up".into());
        } else {
            expect(shed > 0, "nothing was shed, so this was no overload".into());
        }
        expect(
            self.peaks.pending <= MOST_PENDING,
            format!("{} pending, at most {MOST_PENDING}", self.peaks.pending),
        );
        let [tenth, half, end] = self.peaks.bytes;
        let first = tenth.max(half);
        expect(
            end <= first + TOLERANCE,
            format!("live bytes grew from {first} in the first half to {end} in the second"),
        );
        let [before, after] = self.at_rest;
        expect(
            after <= before + TOLERANCE,
            format!("live bytes at rest grew from {before} to {after}"),
        );
        failures
    }
}
