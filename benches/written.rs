//! When tasks start with `RunAfter::Body` and `RunAfter::Written`, beside the socket's last write, and what the latter costs:
//! `cargo bench --bench written --features tower`.
//!
//! Prints two tables and asserts nothing. docs/http.md says how to read them.

mod common;

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use after::{
    Batch, Runner, spawner,
    tower::{AfterLayer, RunAfter},
};
use allocation_counter::measure;
use bytes::Bytes;
use common::quick;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn,
    server::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
};
use tower::{Layer, Service, service_fn};

/// Requests of each kind in the first table.
fn requests() -> usize {
    if quick() { 1 } else { 7 }
}

/// Pairs of samples of each kind in the second.
fn pairs() -> usize {
    if quick() { 3 } else { 201 }
}

const MIB: usize = 1 << 20;
/// A frame, where a body has many.
const FRAME: usize = 64 << 10;
/// What a slow reader reads before it pauses for a millisecond.
const PIECE: usize = 128 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// What is answered: so many frames of so many bytes.
#[derive(Clone, Copy)]
struct Shape {
    frames: usize,
    length: usize,
}

impl Shape {
    fn bytes(self) -> usize {
        self.frames * self.length
    }

    fn body(self) -> Frames {
        static BYTES: Mutex<Option<Bytes>> = Mutex::new(None);
        let mut bytes = lock(&BYTES);
        // One allocation for all: what is measured is the layer.
        let bytes = bytes.get_or_insert_with(|| vec![7; 32 * MIB].into());
        Frames {
            frames: self.frames,
            data: bytes.slice(..self.length),
        }
    }
}

/// A body of equal frames. It announces its length, as most do.
struct Frames {
    frames: usize,
    data: Bytes,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.frames == 0 {
            return Poll::Ready(None);
        }
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.data.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.frames * self.data.len()) as u64)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A write to the server's socket.
struct Write {
    began: Instant,
    ended: Instant,
}

/// The server's end of a connection, which notes when something was written to it.
struct Noting {
    socket: TcpStream,
    writes: Arc<Mutex<Vec<Write>>>,
}

impl Noting {
    fn note(
        &mut self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // Locked before: whoever has read what is written here and looks at the list then finds this write there.
        let mut writes = lock(&self.writes);
        let began = Instant::now();
        let written = write(Pin::new(&mut self.socket));
        if let Poll::Ready(Ok(1..)) = written {
            let ended = Instant::now();
            writes.push(Write { began, ended });
        }
        written
    }
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.note(|socket| socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note(|socket| socket.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A server on a thread and a current-thread runtime of its own.
struct Server {
    address: std::net::SocketAddr,
    version: Version,
    writes: Arc<Mutex<Vec<Write>>>,
    started: Receiver<Instant>,
}

impl Server {
    /// Each of its requests defers one task. The server goes when the program does.
    fn start(version: Version, shape: Shape, moment: RunAfter) -> Server {
        let (bound, address) = mpsc::channel();
        let (starts, started) = mpsc::channel();
        let writes = Arc::new(Mutex::new(Vec::new()));
        let noted = writes.clone();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let layer = AfterLayer::new().run_after(moment);
                let service = layer.layer(service_fn(move |_: Request<Incoming>| {
                    let starts = starts.clone();
                    after::defer(async move {
                        let _ = starts.send(Instant::now());
                    });
                    async move { Ok::<_, Infallible>(Response::new(shape.body())) }
                }));
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let _ = bound.send(listener.local_addr().expect("its address"));
                while let Ok((socket, _)) = listener.accept().await {
                    socket.set_nodelay(true).expect("a socket");
                    let writes = noted.clone();
                    let socket = TokioIo::new(Noting { socket, writes });
                    let service = TowerToHyperService::new(service.clone());
                    match version {
                        Version::Http1 => {
                            tokio::spawn(http1::Builder::new().serve_connection(socket, service));
                        }
                        Version::Http2 => {
                            let builder = http2::Builder::new(TokioExecutor::new());
                            tokio::spawn(builder.serve_connection(socket, service));
                        }
                    }
                }
            });
        });
        Server {
            address: address.recv().expect("a server"),
            version,
            writes,
            started,
        }
    }
}

enum Client {
    Http1(conn::http1::SendRequest<Empty<Bytes>>),
    Http2(conn::http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    async fn connect(server: &Server, slow: bool) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        if slow {
            // Or the system would read for it.
            let size = socket.set_recv_buffer_size(FRAME as u32);
            size.expect("a small receive buffer");
        }
        // Small frames of HTTP/2 would else wait for acknowledgements.
        socket.set_nodelay(true).expect("a socket");
        let socket = socket.connect(server.address).await.expect("a connection");
        let socket = TokioIo::new(socket);
        match server.version {
            Version::Http1 => {
                let connected = conn::http1::handshake(socket).await;
                let (sender, connection) = connected.expect("HTTP/1.1");
                tokio::spawn(connection);
                Client::Http1(sender)
            }
            Version::Http2 => {
                let connected = conn::http2::handshake(TokioExecutor::new(), socket).await;
                let (sender, connection) = connected.expect("HTTP/2");
                tokio::spawn(connection);
                Client::Http2(sender)
            }
        }
    }

    /// Reads a whole answer; gives when its last byte was read.
    async fn ask(&mut self, slow: bool) -> Instant {
        let request = Request::get("http://server/").header("host", "server");
        let request = request.body(Empty::new()).expect("a request");
        let answer = match self {
            Client::Http1(sender) => {
                sender.ready().await.expect("a connection");
                sender.send_request(request).await
            }
            Client::Http2(sender) => sender.send_request(request).await,
        };
        let mut body = answer.expect("an answer").into_body();
        let mut ended = Instant::now();
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let data = frame.expect("a frame").into_data().expect("data");
            ended = Instant::now();
            read += data.len();
            if slow && read >= PIECE {
                read = 0;
                // Nothing else is read on this thread meanwhile.
                thread::sleep(Duration::from_millis(1));
            }
        }
        ended
    }
}

/// What was seen of one request.
struct Seen {
    /// From the last write to the task's first poll, in milliseconds; negative if the task came first.
    late: f64,
    /// Whether the client had read the last byte when the task started.
    read_before: bool,
}

fn see(server: &Server, slow: bool) -> Seen {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut client = Client::connect(server, slow).await;
        lock(&server.writes).clear();
        let ended = client.ask(slow).await;
        let started = server.started.recv().expect("a task that starts");
        // What began later is something else of HTTP/2's, which the client did not wait for.
        let writes = lock(&server.writes);
        let mut before = writes.iter().rev().filter(|write| write.began <= ended);
        let last = before.next().expect("what the client has read").ended;
        let late = match started.checked_duration_since(last) {
            Some(after) => after.as_secs_f64(),
            None => -last.duration_since(started).as_secs_f64(),
        };
        Seen {
            late: late * 1e3,
            read_before: ended < started,
        }
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn moments() {
    println!(
        "From the socket's last write to the task's first poll, in milliseconds: median (least to most) of {} requests; \
         and in how many of them the client had read everything by then.\n",
        requests()
    );
    println!("| | body | reader | `Body` | read | `Written` | read |");
    println!("|---|---|---|---|---|---|---|");
    let one = |length| Shape { frames: 1, length };
    let many = |bytes| Shape {
        frames: bytes / FRAME,
        length: FRAME,
    };
    let shapes = [
        ("1 kB", one(1_000)),
        ("8 MiB, one frame", one(8 * MIB)),
        ("8 MiB, frames of 64 kB", many(8 * MIB)),
        ("32 MiB, one frame", one(32 * MIB)),
        ("32 MiB, frames of 64 kB", many(32 * MIB)),
    ];
    for (version, protocol) in [(Version::Http1, "HTTP/1.1"), (Version::Http2, "HTTP/2")] {
        for (name, shape) in shapes {
            let body = Server::start(version, shape, RunAfter::Body);
            let written = Server::start(version, shape, RunAfter::Written);
            for (slow, reader) in [(false, "fast"), (true, "slow")] {
                if slow && shape.bytes() < PIECE {
                    continue;
                }
                let mut seen = [Vec::new(), Vec::new()];
                for _ in 0..requests() {
                    seen[0].push(see(&body, slow));
                    seen[1].push(see(&written, slow));
                }
                let columns = seen.map(|seen| {
                    let late: Vec<f64> = seen.iter().map(|seen| seen.late).collect();
                    let least = late.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = late.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let read = seen.iter().filter(|seen| seen.read_before).count();
                    let middle = median(late);
                    format!("{middle:.3} ({least:.3} to {most:.3}) | {read}")
                });
                let [body, written] = columns;
                println!("| {protocol} | {name} | {reader} | {body} | {written} |");
            }
        }
    }
}

/// Requests that are polled by hand, with nothing but the layer to pay for.
struct ByHand {
    layer: AfterLayer,
    batches: Arc<Mutex<Vec<Batch>>>,
    shape: Shape,
    defers: bool,
}

impl ByHand {
    fn new(moment: RunAfter, shape: Shape, defers: bool) -> ByHand {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let keep = batches.clone();
        let runner = Runner::new(spawner::from_fn(move |batch| lock(&keep).push(batch)));
        ByHand {
            layer: AfterLayer::with_runner(runner).run_after(moment),
            batches,
            shape,
            defers,
        }
    }

    fn request(&self) {
        let (shape, defers) = (self.shape, self.defers);
        let mut service = self.layer.layer(service_fn(move |_: Request<()>| {
            if defers {
                after::defer(async {});
            }
            std::future::ready(Ok::<_, Infallible>(Response::new(shape.body())))
        }));
        let cx = &mut Context::from_waker(Waker::noop());
        let answer = pin!(service.call(Request::new(()))).poll(cx);
        let Poll::Ready(Ok(answer)) = answer else {
            unreachable!("the service answers at once");
        };
        let mut body = pin!(answer.into_body());
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(cx) {
            black_box(frame).expect("a frame");
        }
        let batch = lock(&self.batches).pop();
        if let Some(mut batch) = batch {
            while Pin::new(&mut batch).poll(cx).is_pending() {}
        }
    }
}

/// Nanoseconds of one call.
fn time(calls: u32, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// The median of the ratios of neighbouring samples, and of each side.
fn interleaved(mut body: impl FnMut() -> f64, mut written: impl FnMut() -> f64) -> [f64; 3] {
    let mut samples = Vec::new();
    for round in 0..pairs() {
        // Each goes first in turn.
        let pair = if round.is_multiple_of(2) {
            let body = body();
            (body, written())
        } else {
            let written = written();
            (body(), written)
        };
        samples.push(pair);
    }
    let of = |figure: fn(&(f64, f64)) -> f64| median(samples.iter().map(figure).collect());
    [
        of(|pair| pair.1 / pair.0),
        of(|pair| pair.0),
        of(|pair| pair.1),
    ]
}

fn costs() {
    println!(
        "\nWhat a request costs, with `Body` and with `Written`: allocations; microseconds; the ratio, as the median of \
         {} pairs of samples.\n",
        pairs()
    );
    println!("| | allocations | µs | ratio |");
    println!("|---|---|---|---|");
    let small = Shape {
        frames: 1,
        length: 1_000,
    };
    let frames = Shape {
        frames: 128,
        length: FRAME,
    };
    for (name, shape, defers) in [
        ("by hand, 1 kB, nothing deferred", small, false),
        ("by hand, 1 kB, one task", small, true),
        ("by hand, 128 frames, one task", frames, true),
    ] {
        let body = ByHand::new(RunAfter::Body, shape, defers);
        let written = ByHand::new(RunAfter::Written, shape, defers);
        body.request();
        written.request();
        let allocations = |site: &ByHand| measure(|| site.request()).count_total;
        let counts = [allocations(&body), allocations(&written)];
        let calls = if shape.frames == 1 { 500 } else { 20 };
        let [ratio, before, after] = interleaved(
            || time(calls, || body.request()),
            || time(calls, || written.request()),
        );
        println!(
            "| {name} | {}, {} | {:.2}, {:.2} | {ratio:.2} |",
            counts[0],
            counts[1],
            before / 1e3,
            after / 1e3
        );
    }
    for (version, protocol) in [(Version::Http1, "HTTP/1.1"), (Version::Http2, "HTTP/2")] {
        for (name, shape, calls) in [
            ("1 kB", small, 20),
            (
                "100 kB, one frame",
                Shape {
                    frames: 1,
                    length: 100_000,
                },
                10,
            ),
            ("8 MiB, frames of 64 kB", frames, 4),
        ] {
            let [ratio, before, after] = over_sockets(version, shape, calls);
            println!(
                "| {protocol}, {name} | | {:.0}, {:.0} | {ratio:.2} |",
                before / 1e3,
                after / 1e3
            );
        }
    }
}

/// Requests one after the other, on a connection of each kind. A connection may be a slow one, by what the system has made
/// of its buffers: each sample has a connection of its own.
fn over_sockets(version: Version, shape: Shape, calls: u32) -> [f64; 3] {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let [body, written] =
        [RunAfter::Body, RunAfter::Written].map(|moment| Server::start(version, shape, moment));
    let ask = |server: &Server| {
        let mut client = runtime.block_on(Client::connect(server, false));
        let mut request = || {
            runtime.block_on(client.ask(false));
            let _ = server.started.recv();
        };
        // The first is not like the others.
        request();
        let sample = time(calls, request);
        lock(&server.writes).clear();
        sample
    };
    interleaved(|| ask(&body), || ask(&written))
}

fn main() {
    moments();
    costs();
}
