//! N15: a server that is stopped lets its responses end, then `shutdown` waits for what they have left behind.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use after::{Runner, tower::AfterLayer};
use axum::{Router, body::Body};
use futures::stream;
use http::Response;
use http_body_util::BodyExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        mpsc::{self, UnboundedReceiver},
        oneshot,
    },
    task::JoinHandle,
};

use crate::{
    common::{balanced, poll_once},
    servers::{Client, GUARD, Version, run},
};

/// A response whose chunks come from the test, and a task that ends when the test says so.
#[derive(Clone)]
struct App {
    chunks: Arc<Mutex<Option<UnboundedReceiver<&'static str>>>>,
    may_end: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

impl App {
    fn router(self, runner: &Runner) -> Router {
        let handler = move || {
            let may_end = self.may_end.lock().unwrap().take().expect("one request");
            after::task("slow").defer(may_end);
            let chunks = self.chunks.lock().unwrap().take().expect("one request");
            let chunks = stream::unfold(chunks, async |mut chunks| {
                Some((Ok::<_, Infallible>(chunks.recv().await?), chunks))
            });
            async { Response::new(Body::from_stream(chunks)) }
        };
        let layer = AfterLayer::with_runner(runner.clone());
        Router::new().fallback(handler).layer(layer)
    }
}

/// A server that was told how it will be stopped, and ends when it has.
type Serving = JoinHandle<()>;

fn on_axum(listener: TcpListener, app: Router, stop: oneshot::Receiver<()>) -> Serving {
    tokio::spawn(async {
        let stopped = async move { stop.await.unwrap() };
        let server = axum::serve(listener, app).with_graceful_shutdown(stopped);
        server.await.unwrap();
    })
}

fn on_hyper(listener: TcpListener, app: Router, stop: oneshot::Receiver<()>) -> Serving {
    tokio::spawn(async move {
        let graceful = GracefulShutdown::new();
        let (socket, _) = listener.accept().await.unwrap();
        let builder = auto::Builder::new(TokioExecutor::new());
        let service = TowerToHyperService::new(app);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        let connection = graceful.watch(connection.into_owned());
        let connection = tokio::spawn(connection);
        stop.await.unwrap();
        graceful.shutdown().await;
        connection.await.unwrap().unwrap();
    })
}

async fn a_stream_in_progress_ends_and_its_tasks_are_waited_for(
    serve: fn(TcpListener, Router, oneshot::Receiver<()>) -> Serving,
    version: Version,
) {
    let runner = Runner::builder().build();
    let (chunk, chunks) = mpsc::unbounded_channel();
    let (end_task, may_end) = oneshot::channel();
    let app = App {
        chunks: Arc::new(Mutex::new(Some(chunks))),
        may_end: Arc::new(Mutex::new(Some(may_end))),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let mut server = serve(listener, app.router(&runner), stopped);

    let socket = TcpStream::connect(address).await.unwrap();
    let mut client = Client::over(socket, version).await;
    let mut answer = client.get("/").await.into_body();
    chunk.send("one").unwrap();
    let frame = answer.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "one");

    // The server is stopped in the middle of the response, which goes on.
    stop.send(()).unwrap();
    chunk.send("two").unwrap();
    let frame = answer.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "two");
    assert!(poll_once(pin!(&mut server)).is_pending());
    drop(chunk);
    let rest = answer.collect().await.unwrap().to_bytes();
    assert!(rest.is_empty());
    drop(client);
    server.await.unwrap();

    // It has stopped, and the task has not ended.
    assert_eq!(balanced(&runner).pending, 1);
    let mut shutdown = pin!(runner.shutdown(GUARD));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    end_task.send(()).unwrap();
    let report = shutdown.await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(balanced(&runner).completed, 1);
}

/// N15: axum, HTTP/1.1.
#[test]
fn axum_with_http1_ends_its_streams_and_shutdown_waits_for_their_tasks() {
    let stops = a_stream_in_progress_ends_and_its_tasks_are_waited_for(on_axum, Version::Http1);
    run(stops);
}

/// N15: axum, HTTP/2.
#[test]
fn axum_with_http2_ends_its_streams_and_shutdown_waits_for_their_tasks() {
    let stops = a_stream_in_progress_ends_and_its_tasks_are_waited_for(on_axum, Version::Http2);
    run(stops);
}

/// N15: hyper-util's graceful shutdown, HTTP/1.1.
#[test]
fn hyper_with_http1_ends_its_streams_and_shutdown_waits_for_their_tasks() {
    let stops = a_stream_in_progress_ends_and_its_tasks_are_waited_for(on_hyper, Version::Http1);
    run(stops);
}

/// N15: hyper-util's graceful shutdown, HTTP/2.
#[test]
fn hyper_with_http2_ends_its_streams_and_shutdown_waits_for_their_tasks() {
    let stops = a_stream_in_progress_ends_and_its_tasks_are_waited_for(on_hyper, Version::Http2);
    run(stops);
}

/// N15, 20: with a limit. What belongs to a response that has not ended counts as pending; once it has ended, the report
/// names the task that keeps running.
#[test]
fn a_shutdown_past_its_limit_counts_and_names_what_is_unfinished() {
    run(async {
        let runner = Runner::builder().build();
        let (chunk, chunks) = mpsc::unbounded_channel();
        let (_end_task, may_end) = oneshot::channel();
        let app = App {
            chunks: Arc::new(Mutex::new(Some(chunks))),
            may_end: Arc::new(Mutex::new(Some(may_end))),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = oneshot::channel();
        let _server = on_axum(listener, app.router(&runner), stopped);
        let socket = TcpStream::connect(address).await.unwrap();
        let mut client = Client::over(socket, Version::Http1).await;
        let mut answer = client.get("/").await.into_body();
        chunk.send("one").unwrap();
        answer.frame().await.unwrap().unwrap();
        let report = runner.shutdown(Duration::ZERO).await;
        assert!(!report.is_clean());
        assert_eq!(report.stats().pending, 1);

        drop(chunk);
        assert!(answer.collect().await.unwrap().to_bytes().is_empty());
        let report = runner.shutdown(Duration::ZERO).await;
        assert!(!report.is_clean());
        let unfinished: Vec<_> = report.unfinished().iter().map(|task| task.name).collect();
        assert_eq!(unfinished, ["slow"]);
    });
}
