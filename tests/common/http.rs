//! Real servers and clients on loopback sockets.
#![allow(dead_code, unreachable_pub, unused_imports)] // no test file uses all of it

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin, time::Duration};

use after::tower::AfterLayer;
use axum::{Router, body::Body};
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn,
    server::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, Service, service_fn};

#[path = "script.rs"]
mod script;
pub use script::{Ends, Script, Step, Teller, watched};

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `axum::serve`: the layer is around the routes, and axum's own boxes around the layer's body.
    Axum,
    /// hyper's builders for one version, and the layer next to hyper.
    Hyper,
    /// The builder of hyper-util that finds the version out.
    Auto,
}

/// Which version the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// One row of the table on which behaviour is tested: a server, and the version that is spoken with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    pub server: Server,
    pub version: Version,
}

/// On every server, with every version that it speaks.
#[macro_export]
macro_rules! every_stack {
    ($( $(#[$meta:meta])* async fn $name:ident($stack:ident) $body:block )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn test($stack: $crate::servers::Stack) $body

            $crate::stack_test!(on_axum_with_http1, Axum, Http1);
            $crate::stack_test!(on_axum_with_http2, Axum, Http2);
            $crate::stack_test!(on_hyper_with_http1, Hyper, Http1);
            $crate::stack_test!(on_hyper_with_http2, Hyper, Http2);
            $crate::stack_test!(on_hyper_auto_with_http1, Auto, Http1);
            $crate::stack_test!(on_hyper_auto_with_http2, Auto, Http2);
        }
    )*};
}

/// On every server, with HTTP/1.1.
#[macro_export]
macro_rules! every_http1_stack {
    ($( $(#[$meta:meta])* async fn $name:ident($stack:ident) $body:block )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn test($stack: $crate::servers::Stack) $body

            $crate::stack_test!(on_axum, Axum, Http1);
            $crate::stack_test!(on_hyper, Hyper, Http1);
            $crate::stack_test!(on_hyper_auto, Auto, Http1);
        }
    )*};
}

/// One test of a table.
#[macro_export]
macro_rules! stack_test {
    ($name:ident, $server:ident, $version:ident) => {
        #[test]
        fn $name() {
            $crate::servers::run(test($crate::servers::Stack {
                server: $crate::servers::Server::$server,
                version: $crate::servers::Version::$version,
            }));
        }
    };
}

/// The table: what `every_stack!` makes tests for.
pub const STACKS: [Stack; 6] = {
    const fn on(server: Server, version: Version) -> Stack {
        Stack { server, version }
    }
    [
        on(Server::Axum, Version::Http1),
        on(Server::Axum, Version::Http2),
        on(Server::Hyper, Version::Http1),
        on(Server::Hyper, Version::Http2),
        on(Server::Auto, Version::Http1),
        on(Server::Auto, Version::Http2),
    ]
};

/// How long a test may take before it counts as hanging. Nothing waits for this to pass.
pub const GUARD: Duration = Duration::from_secs(60);

/// Runs a test on a current-thread runtime.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(guarded(test))
}

/// A test that waits for what never comes fails.
pub async fn guarded<T>(test: impl Future<Output = T>) -> T {
    let finished = tokio::time::timeout(GUARD, test).await;
    finished.expect("the test hangs: something that it waits for does not come")
}

impl Stack {
    /// Serves on a port of its own until the runtime ends.
    pub async fn serve<H, F>(self, layer: AfterLayer, handler: H) -> SocketAddr
    where
        H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve_on(listener, layer, handler);
        address
    }

    /// As `serve`, on a socket of the test's.
    pub fn serve_on<H, F>(self, listener: TcpListener, layer: AfterLayer, handler: H)
    where
        H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        if self.server == Server::Axum {
            let app = Router::new().fallback(handler).layer(layer);
            tokio::spawn(axum::serve(listener, app).into_future());
        } else {
            let handler = as_service(handler);
            self.serve_service(listener, layer.layer(handler));
        }
    }

    /// As `serve_on`, with no layer.
    pub fn serve_without_layer<H, F>(self, listener: TcpListener, handler: H)
    where
        H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        if self.server == Server::Axum {
            let app = Router::new().fallback(handler);
            tokio::spawn(axum::serve(listener, app).into_future());
        } else {
            self.serve_service(listener, as_service(handler));
        }
    }

    /// hyper, and a service of its kind.
    fn serve_service<S, B>(self, listener: TcpListener, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let socket = TokioIo::new(socket);
                let service = TowerToHyperService::new(service.clone());
                // What becomes of a connection is the test's to see, at the client's end and in the tasks.
                match (self.server, self.version) {
                    (Server::Auto, _) => {
                        let builder = auto::Builder::new(TokioExecutor::new());
                        tokio::spawn(async move {
                            let connection =
                                builder.serve_connection_with_upgrades(socket, service);
                            let _ = connection.await;
                        });
                    }
                    (_, Version::Http1) => {
                        let builder = http1::Builder::new();
                        tokio::spawn(builder.serve_connection(socket, service).with_upgrades());
                    }
                    (_, Version::Http2) => {
                        let builder = http2::Builder::new(TokioExecutor::new());
                        tokio::spawn(builder.serve_connection(socket, service));
                    }
                }
            }
        });
    }

    /// One connection.
    pub async fn connect(self, address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).await.unwrap();
        Client::over(socket, self.version).await
    }
}

fn as_service<H, F>(
    handler: H,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
> + Clone
+ Send
+ 'static
where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    service_fn(move |request: Request<Incoming>| {
        let answer = handler(request.map(Body::new));
        async move { Ok(answer.await) }
    })
}

/// hyper's client on one connection, which stays open as long as this, and is closed with it.
pub struct Client {
    sender: Sender,
    /// The same socket once more: hyper's own tasks have the other.
    socket: std::net::TcpStream,
}

enum Sender {
    Http1(conn::http1::SendRequest<Body>),
    Http2(conn::http2::SendRequest<Body>),
}

impl Client {
    pub async fn over(socket: TcpStream, version: Version) -> Client {
        let builder = conn::http2::Builder::new(TokioExecutor::new());
        if version == Version::Http2 {
            return Client::over_http2(socket, &builder).await;
        }
        let (socket, same) = twice(socket);
        let (sender, connection) = conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client {
            sender: Sender::Http1(sender),
            socket: same,
        }
    }

    /// With windows of the test's.
    pub async fn over_http2(
        socket: TcpStream,
        builder: &conn::http2::Builder<TokioExecutor>,
    ) -> Client {
        let (socket, same) = twice(socket);
        let (sender, connection) = builder.handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Client {
            sender: Sender::Http2(sender),
            socket: same,
        }
    }

    pub async fn try_send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Sends, and leaves it to others to wait: over HTTP/2 the next may be sent meanwhile.
    pub async fn start(
        &mut self,
        request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Response<Incoming>> + Send>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request);
                Box::pin(async { answer.await.unwrap() })
            }
            Sender::Http2(sender) => {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request);
                Box::pin(async { answer.await.unwrap() })
            }
        }
    }

    pub async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.try_send(request).await.unwrap()
    }

    pub async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.send(request("GET", path)).await
    }

    /// Closes the socket, whatever is in progress.
    pub fn hang_up(self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

fn twice(socket: TcpStream) -> (TcpStream, std::net::TcpStream) {
    let socket = socket.into_std().unwrap();
    let same = socket.try_clone().unwrap();
    (TcpStream::from_std(socket).unwrap(), same)
}

/// A request with nothing in it, which both versions can send.
pub fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("http://test{path}"))
        .header("host", "test")
        .body(Body::empty())
        .unwrap()
}

/// A client of HTTP/1.1 that knows nothing but bytes.
pub struct Raw {
    socket: TcpStream,
    read: BytesMut,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        Raw::over(TcpStream::connect(address).await.unwrap())
    }

    pub fn over(socket: TcpStream) -> Raw {
        Raw {
            socket,
            read: BytesMut::new(),
        }
    }

    pub async fn send(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads up to the next `end`, and that.
    pub async fn read_to(&mut self, end: &str) -> String {
        loop {
            let found = self
                .read
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let text = self.read.split_to(at + end.len());
                return String::from_utf8(text.to_vec()).unwrap();
            }
            let read = self.socket.read_buf(&mut self.read).await.unwrap();
            assert!(read > 0, "the server has closed: {:?}", self.read);
        }
    }

    /// The head of a response.
    pub async fn head(&mut self) -> String {
        self.read_to("\r\n\r\n").await
    }

    pub async fn bytes(&mut self, count: usize) -> Bytes {
        while self.read.len() < count {
            let read = self.socket.read_buf(&mut self.read).await.unwrap();
            assert!(read > 0, "the server has closed");
        }
        self.read.split_to(count).freeze()
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> String {
        let mut rest = self.read.split().to_vec();
        self.socket.read_to_end(&mut rest).await.unwrap();
        String::from_utf8(rest).unwrap()
    }
}

/// Which runtime the server and its tasks run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// All on the thread of the test.
    One,
    /// On two workers.
    Two,
}

impl Threads {
    pub fn runtime(self) -> tokio::runtime::Runtime {
        let mut builder = match self {
            Threads::One => tokio::runtime::Builder::new_current_thread(),
            Threads::Two => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.worker_threads(2).enable_all().build().unwrap()
    }
}

/// Runs a test on a thread of its own: a server that stops its thread for ever can't be timed out from inside.
pub fn apart(test: impl FnOnce() + Send + 'static) {
    let (ended, end) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        ended.send(()).unwrap();
    });
    match end.recv_timeout(GUARD) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            panic!("the test hangs: its thread stands still, or what it waits for does not come")
        }
        // It has ended, or panicked.
        _ => thread
            .join()
            .unwrap_or_else(|payload| std::panic::resume_unwind(payload)),
    }
}

/// On every server, with every version that it speaks, on one thread and on two workers, apart.
#[macro_export]
macro_rules! every_stack_apart {
    ($( $(#[$meta:meta])* async fn $name:ident($stack:ident) $body:block )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn test($stack: $crate::servers::Stack) $body

            $crate::stack_test_apart!(on_axum_with_http1, Axum, Http1);
            $crate::stack_test_apart!(on_axum_with_http2, Axum, Http2);
            $crate::stack_test_apart!(on_hyper_with_http1, Hyper, Http1);
            $crate::stack_test_apart!(on_hyper_with_http2, Hyper, Http2);
            $crate::stack_test_apart!(on_hyper_auto_with_http1, Auto, Http1);
            $crate::stack_test_apart!(on_hyper_auto_with_http2, Auto, Http2);
        }
    )*};
}

/// Two tests of a table.
#[macro_export]
macro_rules! stack_test_apart {
    ($name:ident, $server:ident, $version:ident) => {
        mod $name {
            use super::*;

            const STACK: $crate::servers::Stack = $crate::servers::Stack {
                server: $crate::servers::Server::$server,
                version: $crate::servers::Version::$version,
            };

            fn on(threads: $crate::servers::Threads) {
                $crate::servers::apart(move || {
                    threads
                        .runtime()
                        .block_on($crate::servers::guarded(test(STACK)));
                });
            }

            #[test]
            fn on_one_thread() {
                on($crate::servers::Threads::One);
            }

            #[test]
            fn on_two_workers() {
                on($crate::servers::Threads::Two);
            }
        }
    };
}

/// Lets the others run until it is so.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

/// A listener whose connections keep next to nothing of what was not sent.
pub fn listener_with_small_buffers() -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(1024).unwrap()
}

impl Stack {
    /// A connection on which a body can't be sent unless the test reads it, beyond some frames: HTTP/2 with a window of
    /// one byte for each response, HTTP/1.1 with small buffers.
    pub async fn connect_to_stall(self, address: SocketAddr) -> Client {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        if self.version == Version::Http1 {
            socket.set_recv_buffer_size(4 << 10).unwrap();
            return Client::over(socket.connect(address).await.unwrap(), self.version).await;
        }
        let mut builder = conn::http2::Builder::new(TokioExecutor::new());
        builder
            .initial_stream_window_size(1)
            .initial_connection_window_size(1 << 20);
        Client::over_http2(socket.connect(address).await.unwrap(), &builder).await
    }
}

/// What a limit has dropped.
pub fn dropped_by_limit(stats: &after::Stats) -> u64 {
    stats.shed
}
