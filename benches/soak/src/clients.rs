//! Clients of seven habits, on a runtime and a thread of their own.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::join_all;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    sync::mpsc::Sender,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    AnyError,
    service::{REQUEST, ROUTES},
    tally::add,
    witness::Row,
};

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// A connection a request.
    Plain,
    /// Many requests on one connection.
    KeptAlive,
    /// Goes before the answer has begun.
    HangsUpInHandler,
    /// Goes when it has read a part.
    HangsUpInBody,
    /// Takes its time between two frames.
    Slow,
    /// Wants the heads only.
    Head,
    /// Several streams at once, some of which it resets.
    Http2,
}

pub(crate) const HABITS: [Habit; 7] = [
    Habit::Plain,
    Habit::KeptAlive,
    Habit::HangsUpInHandler,
    Habit::HangsUpInBody,
    Habit::Slow,
    Habit::Head,
    Habit::Http2,
];

/// How many clients have each habit.
const OF_EACH: u64 = 3;
/// Requests of a connection that is kept.
const KEPT: u32 = 50;
/// Streams of a connection of HTTP/2 at one time.
const STREAMS: usize = 4;
/// How long who hangs up in the handler waits: some answers are faster.
const PATIENCE: Duration = Duration::from_millis(5);

/// What the clients have seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicU64,
    /// Read to the end.
    pub(crate) answered: AtomicU64,
    /// The client has gone first.
    pub(crate) hung_up: AtomicU64,
    /// The server has: its handler has panicked.
    pub(crate) cut: AtomicU64,
    /// No connection at all: none of the load's.
    pub(crate) refused: AtomicU64,
}

/// Runs all clients until then. Blocks: for a thread of its own.
pub(crate) fn run(
    address: SocketAddr,
    until: Instant,
    seen: &Arc<Seen>,
    rows: &Sender<Row>,
) -> Result<(), AnyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let clients = HABITS.iter().flat_map(|&habit| {
        (0..OF_EACH).map(move |number| {
            let client = Client {
                habit,
                address,
                seen: seen.clone(),
                rows: rows.clone(),
            };
            let seed = habit as u64 * OF_EACH + number;
            client.asks_until(until, Rng::with_seed(seed))
        })
    });
    runtime.block_on(join_all(clients));
    Ok(())
}

#[derive(Clone)]
struct Client {
    habit: Habit,
    address: SocketAddr,
    seen: Arc<Seen>,
    rows: Sender<Row>,
}

/// What the client makes of one request.
enum End {
    Answered(Option<u64>),
    HungUp,
    Cut,
}

impl Client {
    async fn asks_until(self, until: Instant, mut rng: Rng) {
        while Instant::now() < until {
            let version = match self.habit {
                Habit::Http2 => Version::HTTP_2,
                _ => Version::HTTP_11,
            };
            let Ok(mut connection) = Connection::open(self.address, version).await else {
                add(&self.seen.refused);
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            let requests = match self.habit {
                Habit::KeptAlive | Habit::Http2 => KEPT,
                _ => 1,
            };
            for _ in 0..requests {
                let streams = match self.habit {
                    Habit::Http2 => STREAMS,
                    _ => 1,
                };
                let asked = (0..streams).map(|stream| {
                    // Every fourth stream goes as those with that habit do.
                    let habit = match stream {
                        0 if self.habit == Habit::Http2 => Habit::HangsUpInHandler,
                        1 if self.habit == Habit::Http2 => Habit::HangsUpInBody,
                        _ => self.habit,
                    };
                    self.ask(connection.send(self.method(), route(&mut rng)), habit)
                });
                let ends = join_all(asked).await;
                if ends.iter().any(|stays| !stays) || Instant::now() >= until {
                    break;
                }
                sleep(Duration::from_millis(rng.u64(1..8))).await;
            }
            drop(connection);
            sleep(Duration::from_millis(rng.u64(1..8))).await;
        }
    }

    fn method(&self) -> Method {
        match self.habit {
            Habit::Head => Method::HEAD,
            _ => Method::GET,
        }
    }

    /// Returns whether the connection can take another one.
    async fn ask(
        &self,
        answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
        habit: Habit,
    ) -> bool {
        add(&self.seen.requests);
        let read = self.read(answer, habit);
        let end = match habit {
            Habit::HangsUpInHandler => timeout(PATIENCE, read).await.unwrap_or(End::HungUp),
            _ => read.await,
        };
        match end {
            End::Answered(request) => {
                add(&self.seen.answered);
                if let Some(request) = request {
                    // The witness outlives the clients.
                    let _ = self.rows.send(Row::Answered { request }).await;
                }
                true
            }
            End::HungUp => {
                add(&self.seen.hung_up);
                // A stream of HTTP/2 goes by itself.
                self.habit == Habit::Http2
            }
            End::Cut => {
                add(&self.seen.cut);
                false
            }
        }
    }

    async fn read(
        &self,
        answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
        habit: Habit,
    ) -> End {
        let Ok(answer) = answer.await else {
            return End::Cut;
        };
        let request = answer.headers().get(REQUEST);
        let request = request.and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            match (frame, habit) {
                (Err(_), _) => return End::Cut,
                (Ok(_), Habit::HangsUpInBody) => return End::HungUp,
                (Ok(_), Habit::Slow) => sleep(Duration::from_millis(2)).await,
                (Ok(_), _) => {}
            }
        }
        End::Answered(request)
    }
}

fn route(rng: &mut Rng) -> &'static str {
    let mut chance = rng.u32(0..100);
    for (route, share) in ROUTES {
        match chance.checked_sub(share) {
            None => return route,
            Some(left) => chance = left,
        }
    }
    ROUTES[0].0
}

/// A connection, closed when it is dropped.
pub(crate) struct Connection {
    sender: Sends,
    driver: JoinHandle<()>,
}

enum Sends {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    pub(crate) async fn open(
        address: SocketAddr,
        version: Version,
    ) -> Result<Connection, AnyError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        // How it ends is seen by whoever waits for an answer.
        Ok(if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            Connection {
                sender: Sends::Http2(sender),
                driver: tokio::spawn(async move { drop(connection.await) }),
            }
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            Connection {
                sender: Sends::Http1(sender),
                driver: tokio::spawn(async move { drop(connection.await) }),
            }
        })
    }

    pub(crate) fn send(
        &mut self,
        method: Method,
        path: &str,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        let host = http::HeaderValue::from_static("localhost");
        match &mut self.sender {
            Sends::Http1(sender) => {
                *request.uri_mut() = path.parse().expect("a path");
                request.headers_mut().insert(http::header::HOST, host);
                futures_util::future::Either::Left(sender.send_request(request))
            }
            Sends::Http2(sender) => {
                let uri = format!("http://localhost{path}");
                *request.uri_mut() = uri.parse().expect("a URI");
                futures_util::future::Either::Right(sender.send_request(request))
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
