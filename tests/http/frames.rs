//! `RunAfter::Written` on real sockets: nothing of the user's runs where the server drops a frame, which may be under a
//! lock of the server's. h2 has one for all streams of a connection, and the body of a request wants it when it is dropped.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use after::{
    Batch, Observer, Outcome, Runner, RunnerBuilder, TaskFinished, TaskFuture, spawner,
    tower::{AfterLayer, RunAfter},
};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::runtime::Runtime;

use crate::{
    common::{Log, balanced, keep_quiet, yields},
    servers::{
        self, GUARD, STACKS, Script, Stack, Threads, Version, apart, dropped_by_limit, guarded,
        until,
    },
};

/// Of the answer, and of what is uploaded.
const LENGTH: usize = 10_000;

fn layer(runner: &Runner) -> AfterLayer {
    AfterLayer::with_runner(runner.clone()).run_after(RunAfter::Written)
}

fn runner() -> RunnerBuilder {
    Runner::builder().spawner(spawner::Tokio::current())
}

fn upload() -> Request<Body> {
    upload_to("/")
}

fn upload_to(path: &str) -> Request<Body> {
    let mut request = servers::request("POST", path);
    *request.body_mut() = Body::from(vec![7; LENGTH]);
    request
}

fn answer() -> Response<Body> {
    Response::new(Body::from(vec![7; LENGTH]))
}

/// Uploads, one after the other, all of which are answered. Returns how many: over HTTP/2 most of them share a connection,
/// over HTTP/1.1 a body that was not read ends it.
async fn uploads(stack: Stack, address: std::net::SocketAddr) -> u64 {
    let (connections, requests) = match stack.version {
        Version::Http1 => (6, 1),
        Version::Http2 => (2, 3),
    };
    for _ in 0..connections {
        let mut client = stack.connect(address).await;
        for _ in 0..requests {
            let answer = client.send(upload()).await;
            assert_eq!(answer.collect().await.unwrap().to_bytes().len(), LENGTH);
        }
    }
    connections * requests
}

/// A condition that uses the connection, and does not hold.
fn asks(_: Outcome) -> bool {
    after::context::with(Bodies::ask).expect("the bodies");
    false
}

every_stack_apart! {
    /// 12, 22b: a task that is not to run, and owns the rest of its request.
    async fn a_discarded_task_may_own_the_body_of_its_request(stack) {
        let runner = runner().build();
        let address = stack.serve(layer(&runner), async |request| {
            let body = request.into_body();
            after::task("archive").on_failure().defer(async move { drop(body.collect().await) });
            answer()
        }).await;
        let answered = uploads(stack, address).await;
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.discarded), (answered, answered));
    }

    /// 21, 22b: a task that a limit drops.
    async fn a_task_that_is_shed_may_own_the_body_of_its_request(stack) {
        keep_quiet();
        let runner = runner().max_running(1).max_waiting(1).overflow(after::Overflow::Shed).build();
        let (end, ends) = tokio::sync::watch::channel(());
        let address = stack.serve(layer(&runner), move |request| {
            let mut ends = ends.clone();
            after::defer(async move {
                let _body = request.into_body();
                let _ = ends.changed().await;
            });
            async { answer() }
        }).await;
        let answered = uploads(stack, address).await;
        let limited = runner.clone();
        until(|| dropped_by_limit(&limited.stats()) == answered - 2).await;
        drop(end);
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.completed, dropped_by_limit(&stats)), (2, answered - 2));
    }

    /// 10, 22b: a spawner that drops what it is given, and one that panics.
    async fn a_spawner_may_drop_what_owns_the_body_of_its_request(stack) {
        keep_quiet();
        fn drops(batch: Batch) {
            drop(batch);
        }
        fn panics(_: Batch) {
            std::panic::panic_any("told to");
        }
        for spawn in [drops, panics] {
            let runner = Runner::new(spawner::from_fn(spawn));
            let address = stack.serve(layer(&runner), async |request| {
                after::defer(async move { drop(request) });
                answer()
            }).await;
            let answered = uploads(stack, address).await;
            runner.drain().await;
            assert_eq!(balanced(&runner).lost, answered);
        }
    }

    /// 12, 22b: a condition, and the observer's methods, may use the connection: here they ask the body, which wants the
    /// lock that the connection has, and drop it.
    async fn a_condition_and_an_observer_may_use_the_connection(stack) {
        let bodies = Bodies::default();
        let runner = runner().observer(bodies.clone()).build();
        let kept = bodies.clone();
        let address = stack.serve(layer(&runner), move |request| {
            kept.put(request.into_body());
            after::context::set(kept.clone());
            after::task("archive").when(asks).defer(async {});
            after::defer(async {});
            async { answer() }
        }).await;
        let answered = uploads(stack, address).await;
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.discarded, stats.completed), (answered, answered));
        assert_eq!(bodies.finished.load(SeqCst) as u64, 2 * answered);
    }

    /// 22b, 27: what a hook of the Runner puts around a task that is not to run.
    async fn a_hook_may_use_the_connection(stack) {
        let bodies = Bodies::default();
        let kept = bodies.clone();
        let runner = runner().on_defer(move |_, future| {
            let on_drop = TakesOnDrop { bodies: kept.clone() };
            TaskFuture::new(async move {
                let _on_drop = on_drop;
                future.await
            })
        }).build();
        let kept = bodies.clone();
        let address = stack.serve(layer(&runner), move |request| {
            kept.put(request.into_body());
            after::task("archive").on_failure().defer(async {});
            async { answer() }
        }).await;
        let answered = uploads(stack, address).await;
        runner.drain().await;
        assert_eq!(balanced(&runner).discarded, answered);
    }

    /// 22b, 26: an error that is reported, and asks the connection what to say.
    async fn the_text_of_an_error_may_use_the_connection(stack) {
        keep_quiet();
        let runner = runner().build();
        let address = stack.serve(layer(&runner), async |request| {
            let error = Broken { body: Mutex::new(request.into_body()) };
            after::defer(async { Err::<(), _>(error) });
            answer()
        }).await;
        let answered = uploads(stack, address).await;
        runner.drain().await;
        assert_eq!(balanced(&runner).failed, answered);
    }

    /// 22b, N3: the client goes, and what was not written is dropped with the connection, here in one frame and in many.
    async fn a_client_may_hang_up_while_its_answer_is_unwritten(stack) {
        let (runner, log) = (runner().build(), Log::new());
        let noting = log.clone();
        let address = stack.serve(layer(&runner), move |request| {
            let answer = unwritten(stack, &request, &noting);
            after::task("archive").when(|_| false).defer(async move { drop(request) });
            async { answer }
        }).await;
        for path in ["/one", "/many"] {
            for _ in 0..3 {
                let mut client = stack.connect_to_stall(address).await;
                let _answer = client.send(upload_to(path)).await;
                if path == "/one" {
                    taken(&log).await;
                }
                client.hang_up();
                runner.drain().await;
            }
        }
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.discarded), (6, 6));
    }
}

/// More than all buffers on the way hold, for a client that does not read: in one frame that the server takes at once, or
/// in many.
fn unwritten(stack: Stack, request: &Request<Body>, log: &Log) -> Response<Body> {
    let length = match stack.version {
        Version::Http1 => 16 << 20,
        Version::Http2 => LENGTH,
    };
    let script = Script::new(log).says_end().says_length();
    Response::new(match request.uri().path() {
        "/one" => script.data(vec![7; length]).body(),
        _ => {
            let frames = (0..length / 1_000).map(|_| Ok::<_, Infallible>(vec![7; 1_000]));
            Body::from_stream(stream::iter(frames))
        }
    })
}

/// The server has taken the only frame of the next answer, and dropped its body.
async fn taken(log: &Log) {
    until(|| !log.entries().is_empty()).await;
    log.clear();
}

/// 10, 22b: the runtime goes while answers are unwritten: with it go the connections, the frames, and the batches.
fn the_runtime_goes_with_unwritten_answers(end: fn(Runtime)) {
    keep_quiet();
    for stack in STACKS {
        for threads in [Threads::One, Threads::Two] {
            println!("{stack:?} on {threads:?}");
            apart(move || unwritten_answers_go_with_their_runtime(stack, threads, end));
        }
    }
}

fn unwritten_answers_go_with_their_runtime(stack: Stack, threads: Threads, end: fn(Runtime)) {
    let runtime = threads.runtime();
    let spawner = spawner::Tokio::from(runtime.handle().clone());
    let (runner, log) = (Runner::new(spawner), Log::new());
    let (layer, noting) = (layer(&runner), log.clone());
    let clients = runtime.block_on(guarded(async {
        let address = stack.serve(layer, move |request| {
            let answer = unwritten(stack, &request, &noting);
            let (body, other) = (request.into_body(), Bytes::new());
            after::task("archive")
                .when(|_| false)
                .defer(async move { drop(other) });
            after::defer(async move { drop(body) });
            async { answer }
        });
        let address = address.await;
        let mut clients = Vec::new();
        for path in ["/one", "/many"] {
            let mut client = stack.connect_to_stall(address).await;
            let answer = client.send(upload_to(path)).await;
            if path == "/one" {
                taken(&log).await;
            }
            clients.push((client, answer));
        }
        clients
    }));
    end(runtime);
    drop(clients);
    // What a dead executor drops may be finished by a thread of ours.
    futures::executor::block_on(runner.drain());
    let stats = balanced(&runner);
    assert_eq!((stats.discarded, stats.lost), (2, 2));
}

/// 10, 22b.
#[test]
fn a_runtime_is_dropped_while_answers_are_unwritten() {
    the_runtime_goes_with_unwritten_answers(drop);
}

/// 10, 22b.
#[test]
fn a_runtime_is_shut_down_while_answers_are_unwritten() {
    the_runtime_goes_with_unwritten_answers(|runtime| runtime.shutdown_timeout(GUARD));
    the_runtime_goes_with_unwritten_answers(Runtime::shutdown_background);
}

/// Polls or drops its batch where it is woken, as no runtime does that is fit for servers.
struct OnTheSpot {
    batch: Mutex<Option<Batch>>,
    drops: bool,
    woken: AtomicBool,
}

impl OnTheSpot {
    fn spawn(batch: Batch, drops: bool) {
        let here = Arc::new(OnTheSpot {
            batch: Mutex::new(Some(batch)),
            drops,
            woken: AtomicBool::new(false),
        });
        tokio::spawn(async move { here.poll() });
    }

    fn poll(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        while self.woken.swap(false, SeqCst) {
            // Woken while it is polled, it is polled again by whoever polls it.
            let taken = self.batch.lock().unwrap().take();
            let Some(mut batch) = taken else {
                self.woken.store(true, SeqCst);
                match *self.batch.lock().unwrap() {
                    None => return,
                    // It was given back meanwhile.
                    Some(_) => continue,
                }
            };
            let waker = Waker::from(self.clone());
            let polled = Pin::new(&mut batch).poll(&mut Context::from_waker(&waker));
            if polled.is_pending() {
                *self.batch.lock().unwrap() = Some(batch);
            }
        }
    }
}

impl Wake for OnTheSpot {
    fn wake(self: Arc<Self>) {
        if !self.drops {
            return self.poll();
        }
        let batch = self.batch.lock().unwrap().take();
        drop(batch);
    }
}

every_stack_apart! {
    /// 10, 22b: an executor that drops what it has where it is woken, and one that polls it there. Whatever of the user's runs
    /// then runs elsewhere.
    async fn an_executor_may_drop_or_poll_where_it_is_woken(stack) {
        keep_quiet();
        for drops in [true, false] {
            let runner = Runner::new(spawner::from_fn(move |batch| OnTheSpot::spawn(batch, drops)));
            let log = Log::new();
            let noting = log.clone();
            let address = stack.serve(layer(&runner), move |request| {
                let answer = unwritten(stack, &request, &noting);
                after::defer(async { drop(request) });
                async { answer }
            }).await;
            for _ in 0..3 {
                let mut client = stack.connect_to_stall(address).await;
                let _answer = client.send(upload_to("/one")).await;
                taken(&log).await;
                yields(100).await;
                client.hang_up();
                runner.drain().await;
            }
            let stats = balanced(&runner);
            let ended = if drops { stats.lost } else { stats.completed };
            assert_eq!((stats.deferred, ended), (3, 3));
        }
    }
}

/// Notes its polls.
struct NotesPolls {
    batch: Batch,
    log: Log,
}

impl Future for NotesPolls {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.log.add("polled");
        Pin::new(&mut self.batch).poll(cx)
    }
}

/// Notes when the server lets go of it.
struct Memory(Log);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        b"all of it"
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.add("let go");
    }
}

every_stack! {
    /// 9b, 22b: the first turn after the last byte was let go of starts nothing, as ever, and the second starts the tasks.
    async fn tasks_start_in_the_second_turn_after_the_last_byte_was_let_go(stack) {
        let log = Log::new();
        let noting = log.clone();
        let runner = Runner::new(spawner::from_fn(move |batch| {
            let log = noting.clone();
            tokio::spawn(NotesPolls { batch, log });
        }));
        let noting = log.clone();
        let address = stack.serve(layer(&runner), move |_| {
            let log = noting.clone();
            let memory = Bytes::from_owner(Memory(log.clone()));
            after::defer(async move { log.add("task") });
            async { Response::new(Body::from(memory)) }
        }).await;
        let answer = stack.connect(address).await.get("/").await;
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "all of it");
        runner.drain().await;
        let entries = log.entries();
        let let_go = entries.iter().position(|entry| entry == "let go").unwrap();
        assert_eq!(entries[let_go + 1..], ["polled", "polled", "task"]);
    }
}

/// The bodies of requests, for code that is given none.
#[derive(Clone, Default)]
struct Bodies {
    kept: Arc<Mutex<Vec<Body>>>,
    finished: Arc<AtomicUsize>,
}

impl Bodies {
    fn put(&self, body: Body) {
        self.kept.lock().unwrap().push(body);
    }

    /// Over HTTP/2 this takes the lock of the connection.
    fn ask(&self) {
        for body in &*self.kept.lock().unwrap() {
            assert!(!body.is_end_stream());
        }
    }

    /// And this.
    fn take(&self) {
        let bodies = std::mem::take(&mut *self.kept.lock().unwrap());
        drop(bodies);
    }
}

impl Observer for Bodies {
    fn finished(&self, _: &TaskFinished<'_>) {
        self.take();
        self.finished.fetch_add(1, SeqCst);
    }
}

struct TakesOnDrop {
    bodies: Bodies,
}

impl Drop for TakesOnDrop {
    fn drop(&mut self) {
        self.bodies.take();
    }
}

#[derive(Debug)]
struct Broken {
    body: Mutex<Body>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at the end: {}",
            self.body.lock().unwrap().is_end_stream()
        )
    }
}

impl std::error::Error for Broken {}
