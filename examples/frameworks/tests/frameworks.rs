//! Each framework, asked over a real socket: what was deferred, with which outcome, and that the answer did not wait for it.

use std::{
    collections::HashSet,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use after::{Observer, Outcome, Runner, TaskFinished, testing::Recorder, tower::AfterLayer};
use frameworks_example::{async_graphql, dioxus, jsonrpsee, leptos, loco, warp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Nothing waits for this to pass.
const GUARD: Duration = Duration::from_secs(30);

/// A task that has run, and how its request had ended.
type Run = (String, Option<Outcome>);

/// Writes down which tasks have run, and how their request had ended.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashSet<Run>>>);

impl Observer for Seen {
    fn finished(&self, event: &TaskFinished<'_>) {
        let seen = (event.task.name.to_owned(), event.task.outcome);
        self.0.lock().unwrap().insert(seen);
    }
}

/// A server, and a Runner that runs nothing before it is told to.
struct Service {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    recorder: Recorder,
    runner: Runner,
    seen: Seen,
}

impl Service {
    async fn start<F>(
        serve: impl FnOnce(TcpListener, AfterLayer, Box<dyn Future<Output = ()> + Send + Unpin>) -> F,
    ) -> Service
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (recorder, seen) = (Recorder::new(), Seen::default());
        let runner = Runner::builder()
            .spawner(recorder.clone())
            .observer(seen.clone())
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopping = Box::new(Box::pin(async move { stopped.await.unwrap() }));
        let layer = AfterLayer::with_runner(runner.clone());
        let server = tokio::spawn(serve(listener, layer, stopping));
        Service {
            address,
            stop,
            server,
            recorder,
            runner,
            seen,
        }
    }

    /// The answer, up to the end of the connection.
    async fn ask(&self, method: &str, path: &str, media: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\naccept: application/json\r\n\
             content-type: {media}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(GUARD, socket.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    }

    /// Stops the server, then runs what was handed over until then: the answers did not wait for it.
    async fn runs(self, expected: &[(&str, Outcome)]) {
        self.stop.send(()).unwrap();
        timeout(GUARD, self.server).await.unwrap().unwrap();
        assert_eq!(self.runner.stats().completed, 0, "nothing has run so far");
        self.recorder.run_within(GUARD).await.unwrap();
        let expected = expected
            .iter()
            .map(|(name, outcome)| ((*name).to_owned(), Some(*outcome)));
        assert_eq!(*self.seen.0.lock().unwrap(), expected.collect());
        let stats = self.runner.stats();
        assert_eq!((stats.lost, stats.pending), (0, 0), "{stats:?}");
    }
}

#[tokio::test]
async fn warp_defers_in_its_filters() {
    let serve = |listener, layer, stopping| warp::serve(warp::routes(), listener, layer, stopping);
    let service = Service::start(serve).await;
    let answer = service.ask("GET", "/hello/warp", "text/plain", "").await;
    assert!(answer.ends_with("hello warp\n"), "{answer}");
    service.runs(&[("audit", Outcome::Finished)]).await;
}

#[tokio::test]
async fn jsonrpsee_defers_in_its_methods() {
    let serve = async |listener, layer, stopping| {
        jsonrpsee::serve(listener, layer, stopping).await.unwrap()
    };
    let service = Service::start(serve).await;
    let calls = r#"[{"jsonrpc":"2.0","id":1,"method":"hello"},{"jsonrpc":"2.0","id":2,"method":"divide","params":[6,2]}]"#;
    let answer = service.ask("POST", "/", "application/json", calls).await;
    assert!(
        answer.contains(r#""result":"hello""#) && answer.contains(r#""result":3"#),
        "{answer}"
    );
    service
        .runs(&[
            ("audit", Outcome::Finished),
            ("statistics", Outcome::Finished),
        ])
        .await;
}

#[tokio::test]
async fn leptos_defers_in_its_server_functions() {
    let service = Service::start(leptos::serve).await;
    let form = "application/x-www-form-urlencoded";
    let answer = service.ask("POST", "/api/purchase", form, "item=tea").await;
    assert!(answer.contains("you have bought tea"), "{answer}");
    service
        .runs(&[("audit", Outcome::Finished), ("receipt", Outcome::Finished)])
        .await;
}

/// Its answer has status 500.
#[tokio::test]
async fn a_server_function_that_fails_is_a_failure() {
    let service = Service::start(leptos::serve).await;
    let form = "application/x-www-form-urlencoded";
    let answer = service
        .ask("POST", "/api/purchase", form, "item=coffee")
        .await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    service
        .runs(&[("audit", Outcome::Failed), ("receipt", Outcome::Failed)])
        .await;
}

#[tokio::test]
async fn async_graphql_defers_in_its_resolvers_and_in_what_its_loaders_spawn() {
    let service = Service::start(async_graphql::serve).await;
    let query = r#"{"query":"{ name(id: 7) }"}"#;
    let answer = service.ask("POST", "/", "application/json", query).await;
    assert!(answer.contains(r#"{"name":"user 7"}"#), "{answer}");
    service
        .runs(&[("audit", Outcome::Finished), ("loaded", Outcome::Finished)])
        .await;
}

/// They run on threads of dioxus' own: the handle that the layer provides goes along.
#[tokio::test]
async fn dioxus_defers_through_the_handle() {
    let service = Service::start(dioxus::serve).await;
    let body = r#"{"item":"tea"}"#;
    let answer = service
        .ask("POST", "/api/purchase", "application/json", body)
        .await;
    assert!(answer.contains("you have bought tea"), "{answer}");
    service
        .runs(&[("audit", Outcome::Finished), ("receipt", Outcome::Finished)])
        .await;
}

#[tokio::test]
async fn a_server_function_of_dioxus_that_fails_is_a_failure() {
    let service = Service::start(dioxus::serve).await;
    let body = r#"{"item":"coffee"}"#;
    let answer = service
        .ask("POST", "/api/purchase", "application/json", body)
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    service
        .runs(&[("audit", Outcome::Failed), ("receipt", Outcome::Failed)])
        .await;
}

/// Its initializer's layer is on the global Runner; no other test uses that.
#[tokio::test]
async fn loco_defers_under_an_initializer() {
    let service = Service::start(|listener, _, stopping| loco::serve(listener, stopping)).await;
    service.runner.clone().install().unwrap();
    let answer = service.ask("GET", "/hello", "text/plain", "").await;
    assert!(answer.ends_with("hello\n"), "{answer}");
    let answer = service.ask("GET", "/refuse", "text/plain", "").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    service
        .runs(&[("audit", Outcome::Finished), ("alarm", Outcome::Failed)])
        .await;
}
