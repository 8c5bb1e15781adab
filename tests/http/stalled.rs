//! Backpressure on real sockets: no client's reading, or not reading, holds another's answer, and what an answer can wait
//! for is never dropped.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use after::{
    Overflow, Runner, spawner,
    tower::{AfterLayer, RunAfter},
};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    common::{Log, balanced, keep_quiet, poll_once, yields},
    servers::{
        Client, Script, Stack, Step, Version, dropped_by_limit, listener_with_small_buffers,
        request, until,
    },
};

const MOMENTS: [RunAfter; 3] = [RunAfter::Head, RunAfter::Body, RunAfter::Written];

/// How many may run, and how many may wait.
type Limits = (usize, usize);

fn runner((running, waiting): Limits) -> Runner {
    Runner::builder()
        .spawner(spawner::Tokio::current())
        .max_running(running)
        .max_waiting(waiting)
        .overflow(Overflow::Backpressure)
        .build()
}

/// A service with limits, on connections that keep next to nothing of what was not sent.
struct Site {
    stack: Stack,
    runner: Runner,
    address: SocketAddr,
    /// Closed, it lets the tasks of "/gated" end.
    gate: Arc<Semaphore>,
    /// Requests that have deferred what they do.
    begun: Arc<AtomicUsize>,
}

impl Site {
    /// Each request defers two tasks, but for "/one/..", which defers one.
    fn new(stack: Stack, limits: Limits, moment: RunAfter) -> Site {
        let runner = runner(limits);
        let gate = Arc::new(Semaphore::new(0));
        let layer = AfterLayer::with_runner(runner.clone()).run_after(moment);
        let listener = listener_with_small_buffers();
        let address = listener.local_addr().unwrap();
        let (gated, begun) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
        let beginning = begun.clone();
        stack.serve_on(listener, layer, move |request| {
            let path = request.uri().path();
            for _ in 0..if path.starts_with("/one") { 1 } else { 2 } {
                let gate = path.contains("gated").then(|| gated.clone());
                after::defer(async {
                    if let Some(gate) = gate {
                        assert!(gate.acquire_owned().await.is_err(), "it is closed");
                    }
                });
            }
            beginning.fetch_add(1, SeqCst);
            let body = match path.ends_with("/small") {
                true if path.contains("turn") => Body::from_stream(stream::once(async {
                    yields(1).await;
                    Ok::<_, Infallible>("small")
                })),
                true => Body::from("small"),
                false => streamed(stack, path),
            };
            async { Response::new(body) }
        });
        Site {
            stack,
            runner,
            address,
            gate,
            begun,
        }
    }

    async fn client(&self) -> Client {
        self.stack.connect(self.address).await
    }

    /// Answers whose heads were read, and whose bodies are not.
    async fn stall(&self, stalled: &mut Stalled, path: &str) {
        if self.stack.version == Version::Http1 || stalled.answers.len().is_multiple_of(20) {
            let client = self.stack.connect_to_stall(self.address).await;
            stalled.clients.push(client);
        }
        let client = stalled.clients.last_mut().unwrap();
        stalled.answers.push(client.get(path).await);
    }

    /// Another client is answered, and its tasks run.
    async fn answers(&self, client: &mut Client) {
        for _ in 0..3 {
            small(client.get("/small").await).await;
        }
    }
}

#[derive(Default)]
struct Stalled {
    clients: Vec<Client>,
    answers: Vec<Response<Incoming>>,
}

impl Stalled {
    fn hang_up(self) {
        self.clients.into_iter().for_each(Client::hang_up);
    }
}

async fn small(answer: Response<Incoming>) {
    assert_eq!(answer.collect().await.unwrap().to_bytes(), "small");
}

/// Longer than all that the two ends keep of it.
fn streamed(stack: Stack, path: &str) -> Body {
    let (frames, length) = match (stack.version, path.ends_with("/short")) {
        (Version::Http1, _) => (200, 8 << 10),
        (Version::Http2, false) => (20, 8 << 10),
        (Version::Http2, true) => (3, 50),
    };
    let frames = (0..frames).map(move |_| Ok::<_, Infallible>(vec![7; length]));
    Body::from_stream(stream::iter(frames))
}

every_stack_apart! {
    /// 21: with six times as many tasks as may wait in requests whose clients read the head, and no further.
    async fn clients_that_do_not_read_hold_no_other(stack) {
        keep_quiet();
        for limits in [(4, 20), (1, 2)] {
            for moment in MOMENTS {
                let site = Site::new(stack, limits, moment);
                let mut other = site.client().await;
                let mut stalled = Stalled::default();
                let requests = 3 * limits.1 as u64;
                for _ in 0..requests {
                    site.stall(&mut stalled, "/").await;
                    site.answers(&mut other).await;
                }
                // Another that comes now.
                let mut another = site.client().await;
                site.answers(&mut another).await;
                let runner = site.runner.clone();
                let (done, all) = match moment {
                    RunAfter::Head => (8 * requests + 6, 8 * requests + 6),
                    _ => (6 * requests + 6, 8 * requests + 6),
                };
                until(|| runner.stats().completed >= done).await;
                let stats = balanced(&runner);
                assert_eq!((stats.completed, stats.pending > 0), (done, done < all));
                drop(stalled);
                runner.drain().await;
                let stats = balanced(&runner);
                assert_eq!(stats.completed + dropped_by_limit(&stats), all);
                all_room_is_there(&runner, limits).await;
            }
        }
    }

    /// 21: those who did not read go all at once: what they have left is bounded, and the rest is counted.
    async fn what_clients_that_hang_up_leave_is_bounded(stack) {
        keep_quiet();
        for limits in [(4, 20), (1, 2)] {
            for moment in [RunAfter::Body, RunAfter::Written] {
                let site = Site::new(stack, limits, moment);
                let runner = site.runner.clone();
                let mut stalled = Stalled::default();
                let requests = 3 * limits.1;
                for _ in 0..requests {
                    site.stall(&mut stalled, "/gated").await;
                }
                let all = 2 * requests as u64;
                assert!(runner.stats().pending >= requests as u64);
                stalled.hang_up();
                // As many as may run, and twice as many as may wait.
                let most = (limits.0 + 2 * limits.1) as u64;
                until(|| {
                    let stats = runner.stats();
                    stats.deferred == all && stats.pending <= most
                })
                .await;
                let stats = balanced(&runner);
                assert_eq!((stats.pending, dropped_by_limit(&stats)), (most, all - most));
                // Those who come now wait for room, and no longer.
                let mut other = site.client().await;
                let answer = other.start(request("GET", "/small")).await;
                let begun = site.begun.clone();
                until(|| begun.load(SeqCst) == requests + 1).await;
                site.gate.close();
                small(answer.await).await;
                site.answers(&mut other).await;
                runner.drain().await;
                let stats = balanced(&runner);
                assert_eq!(stats.completed, most + 8);
                assert_eq!(dropped_by_limit(&stats), all - most);
                all_room_is_there(&runner, limits).await;
            }
        }
    }

    /// 21: one connection over HTTP/2, and more answers on it than there is room for.
    async fn answers_that_are_read_later_are_all_given_out(stack) {
        for moment in MOMENTS {
            let site = Site::new(stack, (1, 2), moment);
            let mut stalled = Stalled::default();
            for _ in 0..4 {
                site.stall(&mut stalled, "/one/short").await;
            }
            for answer in std::mem::take(&mut stalled.answers) {
                assert!(!answer.collect().await.unwrap().to_bytes().is_empty());
            }
            site.runner.drain().await;
            let stats = balanced(&site.runner);
            assert_eq!((stats.completed, stats.deferred), (4, 4), "{moment:?}");
        }
    }

    /// 21: two hundred answers wait for room together, and have it one after the other: nothing is dropped.
    async fn what_answers_have_waited_for_is_not_dropped(stack) {
        for moment in [RunAfter::Head, RunAfter::Body] {
            all_wait_and_none_is_dropped(stack, moment, "/gated/small").await;
        }
    }

    /// 21: more tasks of one request than ever have room, on an idle Runner.
    async fn a_request_with_more_tasks_than_ever_have_room_loses_none(stack) {
        for moment in MOMENTS {
            let runner = runner((2, 10));
            let layer = AfterLayer::with_runner(runner.clone()).run_after(moment);
            let address = stack.serve(layer, async |_: Request<Body>| {
                for _ in 0..100 {
                    after::defer(async {});
                }
                Response::new(Body::from("small"))
            }).await;
            small(stack.connect(address).await.get("/").await).await;
            runner.drain().await;
            let stats = balanced(&runner);
            assert_eq!((stats.completed, stats.deferred), (100, 100), "{moment:?}");
        }
    }

    /// 21, 22: streams without an end whose own layer hands over at the head, under a layer for all routes below which
    /// something is deferred: each subscriber has a task that waits for the end of its stream.
    async fn subscribers_hold_no_other_client(stack) {
        keep_quiet();
        let runner = runner((4, 20));
        let layer = AfterLayer::with_runner(runner.clone());
        let inner = layer.clone().run_after(RunAfter::Head).layer(service_fn(stream_of_events));
        let address = stack.serve(layer, move |request| {
            after::task("audit").defer(async {});
            let answer = inner.clone().oneshot(request);
            async { answer.await.unwrap().map(Body::new) }
        }).await;
        let mut other = stack.connect(address).await;
        let mut subscribers = Vec::new();
        for _ in 0..100 {
            if stack.version == Version::Http1 || subscribers.len() % 20 == 0 {
                subscribers.push((stack.connect(address).await, Vec::new()));
            }
            let (client, streams) = subscribers.last_mut().unwrap();
            let mut events = client.get("/events").await.into_body();
            assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), "event");
            streams.push(events);
            small(other.get("/").await).await;
        }
        until(|| runner.stats().completed == 300).await;
        let stats = balanced(&runner);
        assert_eq!((stats.pending, stats.deferred), (100, 400));
        drop(subscribers);
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!(stats.completed + dropped_by_limit(&stats), 400);
    }
}

async fn stream_of_events(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    after::defer(async {});
    Ok(Response::new(match request.uri().path() {
        "/events" => {
            let event = Bytes::from_static(b"event");
            Script::new(&Log::new())
                .data(event)
                .step(Step::Stall)
                .body()
        }
        _ => Body::from("small"),
    }))
}

/// Nothing is counted as waiting, or lent, that is not: of what can't wait as much is accepted as ever.
async fn all_room_is_there(runner: &Runner, (running, waiting): Limits) {
    let before = balanced(runner);
    assert_eq!(before.pending, 0);
    let (gate, most) = (Arc::new(Semaphore::new(0)), running + 2 * waiting);
    let mut dropped = Box::pin(runner.scope(async {
        for _ in 0..=most {
            let gate = gate.clone();
            after::defer(async { drop(gate.acquire_owned().await) });
        }
        std::future::pending::<()>().await;
    }));
    assert!(poll_once(dropped.as_mut()).is_pending());
    drop(dropped);
    let stats = balanced(runner);
    assert_eq!(dropped_by_limit(&stats), dropped_by_limit(&before) + 1);
    assert_eq!(stats.pending, most as u64);
    gate.close();
    runner.drain().await;
}

/// Two hundred requests at once, that wait for room while the tasks are held; when these end, all are answered.
async fn all_wait_and_none_is_dropped(stack: Stack, moment: RunAfter, path: &str) {
    keep_quiet();
    let site = Site::new(stack, (4, 20), moment);
    let mut answers = JoinSet::new();
    let mut clients = Vec::new();
    for number in 0..200 {
        if stack.version == Version::Http1 || number % 50 == 0 {
            clients.push(site.client().await);
        }
        let client = clients.last_mut().unwrap();
        let answer = client.start(request("GET", path)).await;
        answers.spawn(async { small(answer.await).await });
    }
    until(|| site.begun.load(SeqCst) == 200).await;
    site.gate.close();
    while let Some(answered) = answers.join_next().await {
        answered.unwrap();
    }
    site.runner.drain().await;
    let stats = balanced(&site.runner);
    assert_eq!(
        (stats.completed, stats.deferred),
        (400, 400),
        "{moment:?} {stats:?}"
    );
}

every_stack_apart! {
    /// 21, 22b: the same when they are over with their last byte, which the connection writes when it has its turn.
    async fn what_answers_have_waited_for_is_not_dropped_when_they_are_written(stack) {
        all_wait_and_none_is_dropped(stack, RunAfter::Written, "/gated/small").await;
    }

    /// 21: the same when the body, small as it is, comes in two turns, as that of a proxy does.
    async fn what_answers_have_waited_for_is_not_dropped_when_bodies_take_a_turn(stack) {
        all_wait_and_none_is_dropped(stack, RunAfter::Body, "/gated/turn/small").await;
    }
}
