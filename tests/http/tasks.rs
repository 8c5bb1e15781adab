//! What tasks know of their request and how it ended, over real connections.

use std::{
    io,
    sync::{Arc, Mutex},
};

use after::{
    Outcome, context, spawner,
    tower::{AfterLayer, RequestHead},
};
use axum::{Router, ServiceExt, body::Body, routing::get};
use futures::{StreamExt, stream};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::mpsc};
use tower::{Layer, ServiceBuilder};

use crate::{
    common::{Batches, balanced},
    servers::{self, Raw, Server, Stack, Version, request, watched},
};

every_stack! {
    /// N5, 23: after a 500, a redirect, a 404 and a panic of the handler tasks run, and know what it was.
    async fn tasks_run_however_the_handler_ends(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |request| {
            teller.defer();
            let path = request.uri().path().to_owned();
            async move {
                let status = match path.as_str() {
                    "/panic" => panic!("a bug in the handler"),
                    path => path[1..].parse::<StatusCode>().unwrap(),
                };
                let answer = Response::builder().status(status).header("location", "/200");
                answer.body(Body::from("hello")).unwrap()
            }
        }).await;
        let expected = [
            ("/200", Outcome::Finished),
            ("/303", Outcome::Finished),
            ("/404", Outcome::Failed),
            ("/500", Outcome::Failed),
        ];
        let mut client = stack.connect(address).await;
        for (path, outcome) in expected {
            let answer = client.get(path).await;
            assert_eq!(answer.status().as_str(), &path[1..]);
            assert_eq!(answer.collect().await.unwrap().to_bytes(), "hello");
            assert_eq!(ends.next().await, outcome, "{path}");
        }
        assert!(client.try_send(request("GET", "/panic")).await.is_err());
        assert_eq!(ends.next().await, Outcome::Panicked);
    }

    /// N7, 13: a task that fails and one that panics touch neither the answer nor their sibling.
    async fn failing_tasks_touch_neither_the_answer_nor_their_siblings(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |_| {
            after::task("fails").defer(async { Err::<(), _>("no such mailbox") });
            after::task("panics").defer(async { panic!("a bug") });
            teller.defer();
            async { Response::new(Body::from("hello")) }
        }).await;
        let answer = stack.connect(address).await.get("/").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(ends.next().await, Outcome::Finished);
        ends.runner().drain().await;
        let stats = balanced(ends.runner());
        assert_eq!((stats.completed, stats.failed, stats.panicked), (1, 1, 1));
    }

    /// N11, 24: headers and cookies as the client sent them can be read in the task, whatever was made of them since.
    async fn headers_and_cookies_are_readable_in_the_task(stack) {
        let (layer, _, _) = watched();
        let (sender, mut read) = mpsc::unbounded_channel();
        let address = stack.serve(layer.capture_request(), move |mut request| {
            request.headers_mut().clear();
            let sender = sender.clone();
            after::defer(async move {
                let request: RequestHead = context::get().expect("captured by the layer");
                sender.send(request).unwrap();
            });
            async { Response::new(Body::from("hello")) }
        }).await;
        let mut asks = request("DELETE", "/users/7?soft");
        asks.headers_mut().insert("user-agent", HeaderValue::from_static("a test"));
        asks.headers_mut().insert("cookie", HeaderValue::from_static("theme=dark; session=abc123"));
        let answer = stack.connect(address).await.send(asks).await;
        answer.collect().await.unwrap();
        let seen = read.recv().await.unwrap();
        assert_eq!(seen.method(), "DELETE");
        assert_eq!(seen.uri().path_and_query().unwrap(), "/users/7?soft");
        assert_eq!(seen.headers()["user-agent"], "a test");
        assert_eq!((seen.cookie("session"), seen.cookie("theme")), (Some("abc123"), Some("dark")));
        assert!(!format!("{seen:?}").contains("abc123"));
    }

    /// N2: what the chunks of a streamed body defer starts after the last chunk, with what the handler deferred, in that
    /// order.
    async fn what_a_streamed_body_defers_is_handed_over_after_its_last_chunk(stack) {
        let batches = Batches::default();
        let keep = batches.clone();
        let runner = after::Runner::new(spawner::from_fn(move |batch| keep.push(batch)));
        let (chunks, receiver) = mpsc::unbounded_channel::<&str>();
        let receiver = Arc::new(Mutex::new(Some(receiver)));
        let address = stack.serve(AfterLayer::with_runner(runner.clone()), move |_| {
            after::task("handler").defer(async {});
            let receiver = receiver.lock().unwrap().take().expect("one request");
            let chunks = stream::unfold(receiver, async |mut receiver| {
                Some((receiver.recv().await?, receiver))
            });
            let body = Body::from_stream(chunks.map(|chunk| {
                after::task(chunk).defer(async {});
                Ok::<_, io::Error>(chunk)
            }));
            async { Response::new(body) }
        }).await;
        let mut client = stack.connect(address).await;
        let mut answer = client.get("/").await.into_body();
        for chunk in ["one", "two"] {
            chunks.send(chunk).unwrap();
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
            assert_eq!(batches.len(), 0);
        }
        drop(chunks);
        assert!(answer.frame().await.is_none_or(|frame| frame.unwrap().into_data().unwrap().is_empty()));
        let batch = batches.take_one();
        assert!(batch.names().eq(["handler", "one", "two"]));
        batch.await;
        assert_eq!(balanced(&runner).completed, 3);
    }
}

every_http1_stack! {
    /// N12: the response is gone. A task finds nothing to set a cookie on: what it can reach of the request is a copy,
    /// the context takes nothing more, and on the wire neither this answer nor the next has what it tried.
    async fn a_task_can_set_no_cookie(stack) {
        let (layer, _, _) = watched();
        let (sender, mut refused) = mpsc::unbounded_channel();
        let address = stack.serve(layer.capture_request(), move |_| {
            let sender = sender.clone();
            after::defer(async move {
                let request: RequestHead = context::get().expect("captured by the layer");
                let mut headers = request.headers().clone();
                headers.insert("set-cookie", HeaderValue::from_static("theme=dark"));
                sender.send(context::try_set(headers).is_err()).unwrap();
            });
            async { Response::new(Body::from("hello")) }
        }).await;
        let mut client = Raw::connect(address).await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
            assert!(!client.head().await.contains("cookie"));
            assert_eq!(client.bytes(5).await, "hello");
            assert!(refused.recv().await.unwrap());
        }
        client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
        let last = client.rest().await;
        assert!(last.ends_with("\r\n\r\nhello") && !last.contains("cookie"), "{last:?}");
    }
}

/// The layer around a whole router, whose body is put into axum's again: a request ends with its body, and what no route
/// takes is a request as well.
#[test]
fn the_layer_fits_around_a_whole_router() {
    servers::run(async {
        let (layer, teller, mut ends) = watched();
        let fallback = teller.clone();
        let router = Router::new()
            .route("/", get(async move || teller.defer()))
            .fallback(async move || {
                fallback.defer();
                StatusCode::NOT_FOUND
            });
        let app = ServiceBuilder::new()
            .map_response(|response: Response<_>| response.map(Body::new))
            .layer(layer)
            .service(router);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = ServiceExt::<Request<Body>>::into_make_service(app);
        tokio::spawn(axum::serve(listener, app).into_future());
        let stack = Stack {
            server: Server::Axum,
            version: Version::Http1,
        };
        let mut client = stack.connect(address).await;
        for (path, outcome) in [("/", Outcome::Finished), ("/nothing", Outcome::Failed)] {
            let answer = client.get(path).await;
            answer.collect().await.unwrap();
            assert_eq!(ends.next().await, outcome);
        }
    });
}

/// The same on hyper, which takes the layer's body as it is.
#[test]
fn hyper_takes_the_layer_around_a_whole_router() {
    servers::run(async {
        let (layer, teller, mut ends) = watched();
        let router = Router::new().route("/", get(async move || teller.defer()));
        let service = TowerToHyperService::new(layer.layer(router));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(socket), service);
            connection.await.unwrap();
        });
        let mut client = Raw::connect(address).await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(ends.next().await, Outcome::Finished);
    });
}
