//! Tasks that read the request's body after the response, over real connections.

use std::{io, time::Duration};

use after::{Runner, spawner, tower::AfterLayer};
use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::{
    common::balanced,
    servers::{Raw, Stack, Version},
};

type Read = Result<Bytes, axum::Error>;

/// A server whose handler answers at once, and whose task reads the request's body, with a time limit if there is one.
async fn serve(
    stack: Stack,
    limit: Option<Duration>,
) -> (std::net::SocketAddr, Runner, UnboundedReceiver<Read>) {
    let runner = Runner::new(spawner::Tokio::current());
    let (sender, read) = mpsc::unbounded_channel();
    let layer = AfterLayer::with_runner(runner.clone());
    let address = stack
        .serve(layer, move |request: Request<Body>| {
            let sender = sender.clone();
            let task = async move {
                let body = request.into_body().collect().await;
                let _ = sender.send(body.map(|body| body.to_bytes()));
            };
            match limit {
                Some(limit) => after::task("archive").timeout(limit).defer(task),
                None => after::task("archive").defer(task),
            }
            async { Response::new(Body::from("hello")) }
        })
        .await;
    (address, runner, read)
}

async fn send_and_read_the_answer(client: &mut Raw, upload: &str) {
    let head = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5";
    client.send(&format!("{head}\r\n\r\n{upload}")).await;
    client.head().await;
    assert_eq!(client.bytes(5).await, "hello");
}

every_http1_stack! {
    /// What hyper had read when the response was written is there; that may be all of a small body.
    async fn what_has_come_with_the_request_can_be_read_later(stack) {
        let (address, _, mut read) = serve(stack, None).await;
        let mut client = Raw::connect(address).await;
        send_and_read_the_answer(&mut client, "abcde").await;
        assert_eq!(read.recv().await.unwrap().unwrap(), "abcde");
    }

    /// hyper reads no more of a request once its response is written: the task waits, also when the client sends the rest,
    /// and has an error when the client goes.
    async fn what_comes_after_the_response_is_never_read(stack) {
        for rest in ["", "cde"] {
            let (address, runner, mut read) = serve(stack, None).await;
            let mut client = Raw::connect(address).await;
            send_and_read_the_answer(&mut client, "ab").await;
            client.send(rest).await;
            // The server goes on, for others.
            let mut another = Raw::connect(address).await;
            send_and_read_the_answer(&mut another, "abcde").await;
            assert_eq!(read.recv().await.unwrap().unwrap(), "abcde");
            assert!(read.try_recv().is_err());
            assert_eq!(balanced(&runner).pending, 1);
            drop(client);
            assert!(read.recv().await.unwrap().is_err(), "the client has sent {rest:?}");
        }
    }

    /// The way out: a time limit. The body is dropped with the task, and the connection goes.
    async fn a_time_limit_ends_such_a_task(stack) {
        let (address, runner, mut read) = serve(stack, Some(Duration::from_millis(1))).await;
        let mut client = Raw::connect(address).await;
        send_and_read_the_answer(&mut client, "ab").await;
        runner.drain().await;
        assert_eq!(balanced(&runner).timed_out, 1);
        assert_eq!(client.rest().await, "");
        assert!(read.try_recv().is_err());
    }
}

/// Over HTTP/2 the two directions of a stream are two: the task reads on.
mod over_http2_the_task_reads_on {
    use super::*;

    async fn test(stack: Stack) {
        let (address, runner, mut read) = serve(stack, None).await;
        let mut client = stack.connect(address).await;
        let (chunks, receiver) = mpsc::unbounded_channel::<&str>();
        let chunks_to_come = stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        chunks.send("ab").unwrap();
        let body = Body::from_stream(chunks_to_come.map(Ok::<_, io::Error>));
        let request = Request::post("http://test/").body(body).unwrap();
        let answer = client.send(request).await;
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(balanced(&runner).pending, 1);
        chunks.send("cde").unwrap();
        drop(chunks);
        assert_eq!(read.recv().await.unwrap().unwrap(), "abcde");
        assert_eq!(stack.version, Version::Http2);
    }

    stack_test!(on_axum, Axum, Http2);
    stack_test!(on_hyper, Hyper, Http2);
    stack_test!(on_hyper_auto, Auto, Http2);
}
