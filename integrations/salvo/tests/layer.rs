//! What the layer can do, through the integration: the request's head in its tasks, its handle in the extensions, and the
//! moment that a response asks for.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use after::{
    Handle, Observer, Outcome, Runner, TaskFinished, context,
    tower::{AfterLayer, RequestHead, RunAfter},
};
use after_salvo::After;
use futures_util::stream;
use salvo::{
    conn::tcp::TcpAcceptor,
    http::ResBody,
    prelude::{Request, Response, Router, Server, Service, handler},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Nothing waits for this to pass.
const GUARD: Duration = Duration::from_secs(30);

static AGENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Defers inside the scope, and through the handle.
fn defer(handle: Option<&Handle>) {
    after::task("agent").defer(async {
        let head = context::get::<RequestHead>().expect("it was captured");
        let agent = head.headers()["user-agent"].to_str().unwrap().to_owned();
        AGENTS
            .lock()
            .unwrap()
            .push(format!("{} {} {agent}", head.method(), head.uri().path()));
    });
    let handle = handle.expect("the layer provides it");
    handle.task("through the handle").defer(async {});
}

#[handler]
async fn captured(request: &mut Request) -> &'static str {
    defer(request.extensions().get());
    "captured"
}

#[handler]
async fn endless(response: &mut Response) {
    after::task("at the head").defer(async {});
    response.extensions.insert(RunAfter::Head);
    response.body(ResBody::stream(
        stream::pending::<std::io::Result<Vec<u8>>>(),
    ));
}

/// A task that has run, and how its request had ended.
type Run = (String, Option<Outcome>);

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Run>>>);

impl Observer for Seen {
    fn finished(&self, event: &TaskFinished<'_>) {
        let seen = (event.task.name.to_owned(), event.task.outcome);
        self.0.lock().unwrap().push(seen);
    }
}

async fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nuser-agent: tester\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn the_layer_does_what_it_does_elsewhere() {
    let seen = Seen::default();
    let runner = Runner::builder().observer(seen.clone()).build();
    let layer = AfterLayer::with_runner(runner.clone())
        .capture_request()
        .provide_handle();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .push(Router::with_path("captured").get(captured))
        .push(Router::with_path("endless").get(endless));
    let service = Service::new(router).hoop(After::from(layer));
    let server = Server::new(TcpAcceptor::try_from(listener).unwrap());
    let server = tokio::spawn(server.serve(service));

    let mut answer = String::new();
    let mut socket = ask(address, "/captured").await;
    timeout(GUARD, socket.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("captured"), "{answer}");
    timeout(GUARD, runner.drain()).await.unwrap();
    assert_eq!(*AGENTS.lock().unwrap(), ["GET /captured tester"]);
    let mut tasks = std::mem::take(&mut *seen.0.lock().unwrap());
    tasks.sort_by(|one, other| one.0.cmp(&other.0));
    let finished = |name: &str| (name.to_owned(), Some(Outcome::Finished));
    assert_eq!(tasks, [finished("agent"), finished("through the handle")]);

    // The stream never ends, and its task runs all the same: with the head.
    let mut socket = ask(address, "/endless").await;
    let mut first = [0; 8];
    timeout(GUARD, socket.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    timeout(GUARD, runner.drain()).await.unwrap();
    assert_eq!(*seen.0.lock().unwrap(), [finished("at the head")]);
    server.abort();
}
