//! The fourth part: most clients stall. They read the head of a body without an end, nothing more, and hang up later,
//! half of them when all others are done.
//!
//! There are eight of them for each task that may wait: if a request kept its room until its client reads, the others
//! would not be answered. They ask as ever, and each must have its answer. In the end every task is on the account, and
//! the account is what the rows say.

use std::{
    convert::Infallible,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use after::{
    Overflow, Runner, Stats,
    tower::{AfterLayer, RunAfter},
};
use axum::{Router, body::Body, extract::State, routing::get};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::{
    future::{join_all, select},
    stream,
};
use http::{Method, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    sync::{mpsc::Sender, oneshot},
    time::{sleep, timeout},
};

use crate::{
    AnyError,
    clients::Connection,
    kind::Kind,
    table,
    tally::{Tally, add, read},
    witness::{Row, Testimony, Witness},
};

const MAX_RUNNING: usize = 4;
const MAX_WAITING: usize = 4;
const STALLED: usize = 8 * MAX_WAITING;
/// Of them, until all others are done.
const STAYING: usize = STALLED / 2;
const OTHERS: usize = 8;
/// Tasks of each request that stalls.
const TASKS: usize = 2;

/// Where clients stall, and where they read.
const STALLS: [&str; 3] = ["/stalls", "/written/stalls", "/written/stalls"];
const ANSWERS: [&str; 2] = ["/answers", "/written/answers"];

/// How long the others of them stall, at the least and at the most: milliseconds.
const STALL: [u64; 2] = [200, 600];
/// More than any answer takes that comes at all.
const FOR_EVER: Duration = Duration::from_secs(20);

static CHUNK: [u8; 65_536] = [7; 65_536];

/// What handlers and clients have counted.
#[derive(Default)]
struct Seen {
    tasks: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    /// They have the head, and have not read the body.
    stalled: AtomicU64,
}

impl Seen {
    fn unanswered(&self) -> u64 {
        read(&self.asked) - read(&self.answered) - read(&self.stalled)
    }
}

#[derive(Clone)]
struct App {
    rows: Sender<Row>,
    seen: Arc<Seen>,
}

/// Returns what does not hold.
pub(crate) fn run(time: Duration) -> Result<Vec<String>, AnyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let witness = Witness::open()?;
    let tally = Tally::new();
    let runner = Runner::builder()
        .max_running(MAX_RUNNING)
        .max_waiting(MAX_WAITING)
        .overflow(Overflow::Backpressure)
        .observer(tally.clone())
        .build();
    let app = App {
        rows: witness.rows(),
        seen: Arc::default(),
    };
    let seen = app.seen.clone();
    runtime.block_on(async {
        serve(app, &runner, time).await?;
        runner.drain().await;
        witness.flush().await
    })?;
    let stats = runner.stats();
    drop((runner, runtime));
    let testimony = witness.testify()?;
    print(time, &seen, &stats, &testimony);
    Ok(failures(&seen, &stats, &tally, &testimony))
}

/// A server and its clients, from the first request to the last connection.
async fn serve(app: App, runner: &Runner, time: Duration) -> Result<(), AnyError> {
    let layer = AfterLayer::with_runner(runner.clone());
    let routes = Router::new()
        .route("/stalls", get(stalls))
        .route("/answers", get(answers));
    let written = layer.clone().run_after(RunAfter::Written);
    let router = routes.clone().layer(layer);
    let router = router.nest("/written", routes.layer(written));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router.with_state(app.clone()));
    let server = server.with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());
    let (over, when_over) = oneshot::channel();
    let until = Instant::now() + time;
    thread::spawn(move || over.send(clients(address, until, &app.seen)));
    when_over.await??;
    drop(stop);
    server.await??;
    Ok(())
}

impl App {
    fn defer(&self, kind: Kind) {
        let rows = self.rows.clone();
        // Its number is its request's too: what a task says is all that is compared here.
        let task = self.seen.tasks.fetch_add(1, Ordering::Relaxed);
        let builder = match kind {
            Kind::Spawned => after::task(kind.name()).spawned(),
            _ => after::task(kind.name()),
        };
        builder.defer(async move {
            // The witness outlives the load, or has failed and says so at the end.
            let request = task;
            let started = Row::Started {
                task,
                request,
                kind,
            };
            let _ = rows.send(started).await;
            sleep(Duration::from_millis(1)).await;
            let _ = rows.send(Row::Completed { task }).await;
        });
    }
}

/// A body without an end.
async fn stalls(State(app): State<App>) -> Body {
    (0..TASKS).for_each(|_| app.defer(Kind::Audit));
    Body::from_stream(stream::repeat_with(|| {
        Ok::<_, Infallible>(Bytes::from_static(&CHUNK))
    }))
}

async fn answers(State(app): State<App>) -> &'static str {
    app.defer(Kind::Spawned);
    "hello\n"
}

/// Runs all clients until then. Blocks: for a thread of its own.
fn clients(address: SocketAddr, until: Instant, seen: &Seen) -> Result<(), AnyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = |number| async move {
        let mut rng = Rng::with_seed(number as u64);
        while Instant::now() < until {
            add(&seen.asked);
            match number < STALLED {
                true => {
                    let stalled = timeout(FOR_EVER, stall(address, &mut rng));
                    if let Ok(Ok(connection)) = stalled.await {
                        add(&seen.stalled);
                        sleep(Duration::from_millis(rng.u64(STALL[0]..STALL[1]))).await;
                        drop(connection);
                    }
                }
                false => {
                    let answered = timeout(FOR_EVER, ask(address, &mut rng));
                    if let Ok(Ok(())) = answered.await {
                        add(&seen.answered);
                        sleep(Duration::from_millis(rng.u64(1..8))).await;
                    }
                }
            }
        }
    };
    // Goes when all others have.
    let stays = |number| async move {
        add(&seen.asked);
        let stalled = stall(address, &mut Rng::with_seed(number as u64)).await;
        seen.stalled
            .fetch_add(u64::from(stalled.is_ok()), Ordering::Relaxed);
        pending::<()>().await;
        drop(stalled);
    };
    runtime.block_on(async {
        let goes = join_all((STAYING..STALLED + OTHERS).map(client));
        let stay = join_all((0..STAYING).map(stays));
        select(pin!(goes), pin!(stay)).await;
    });
    Ok(())
}

/// Until its client has the head. The body is not read.
async fn stall(
    address: SocketAddr,
    rng: &mut Rng,
) -> Result<(Connection, Response<Incoming>), AnyError> {
    let mut connection = Connection::open(address, version(rng)).await?;
    let path = STALLS[rng.usize(..STALLS.len())];
    let answer = connection.send(Method::GET, path).await?;
    Ok((connection, answer))
}

async fn ask(address: SocketAddr, rng: &mut Rng) -> Result<(), AnyError> {
    let mut connection = Connection::open(address, version(rng)).await?;
    let path = ANSWERS[rng.usize(..ANSWERS.len())];
    let answer = connection.send(Method::GET, path).await?;
    answer.into_body().collect().await?;
    Ok(())
}

fn version(rng: &mut Rng) -> Version {
    match rng.bool() {
        true => Version::HTTP_11,
        false => Version::HTTP_2,
    }
}

/// What a limit has dropped, or the end of the runtime.
fn dropped(stats: &Stats) -> u64 {
    stats.shed + stats.lost
}

fn print(time: Duration, seen: &Seen, stats: &Stats, testimony: &Testimony) {
    println!("\n{STALLED} clients that stall, and {OTHERS} others, {time:.0?}");
    table::numbers("requests sent", &[read(&seen.asked)]);
    table::numbers("  answered in full", &[read(&seen.answered)]);
    table::numbers("  stalled, and hung up", &[read(&seen.stalled)]);
    table::numbers("  not answered", &[seen.unanswered()]);
    table::numbers("tasks accepted", &[read(&seen.tasks)]);
    table::numbers("  completed", &[stats.completed]);
    table::numbers("  shed", &[dropped(stats)]);
    let rows = testimony.rows.iter();
    table::numbers("rows: completed", &[rows.map(|rows| rows.completed).sum()]);
}

/// What should hold and does not.
fn failures(seen: &Seen, stats: &Stats, tally: &Tally, testimony: &Testimony) -> Vec<String> {
    let mut failures = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            failures.push(format!("stalled: {what}"));
        }
    };
    let [answered, stalled] = [&seen.answered, &seen.stalled].map(read);
    let unanswered = seen.unanswered();
    expect(unanswered == 0, format!("{unanswered} not answered"));
    expect(
        answered > 0 && stalled > 0,
        format!("{answered} answered, {stalled} stalled"),
    );
    // The account, to the task and to the row: all that were accepted have run, or were shed and have no row.
    let (tasks, dropped) = (read(&seen.tasks), dropped(stats));
    expect(
        stats.deferred == tasks && tasks == stats.completed + dropped && stats.pending == 0,
        format!("{tasks} tasks accepted, {stats:?}"),
    );
    for kind in [Kind::Audit, Kind::Spawned] {
        let rows = testimony.rows[kind as usize];
        let completed = tally.of(kind).ends[0];
        expect(
            rows.started == completed && rows.completed == completed,
            format!(
                "{}: {completed} completed, rows {}, {}",
                kind.name(),
                rows.started,
                rows.completed
            ),
        );
    }
    let strangers = tally.strangers();
    expect(
        strangers == 0,
        format!("{strangers} events of no known task"),
    );
    failures
}
