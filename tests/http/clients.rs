//! Clients that go, that are slow, and that ask again: what becomes of the tasks, and of the connection.

use std::sync::Arc;

use after::Outcome;
use axum::body::Body;
use futures::stream;
use http::Response;
use http_body_util::BodyExt;
use tokio::{
    net::TcpSocket,
    sync::{Notify, mpsc},
};

use crate::{
    common::{Log, balanced},
    servers::{self, Client, Raw, Script, Step, watched},
};

every_stack! {
    /// N4, P8: hyper drops the handler's future when its client goes; what was deferred before runs, 20 times out of 20.
    async fn what_was_deferred_runs_when_the_client_goes_while_the_handler_runs(stack) {
        let (layer, teller, mut ends) = watched();
        let (sender, mut in_handler) = mpsc::unbounded_channel();
        let address = stack.serve(layer, move |_| {
            let (sender, teller) = (sender.clone(), teller.clone());
            async move {
                teller.defer();
                sender.send(()).unwrap();
                std::future::pending().await
            }
        }).await;
        for _ in 0..20 {
            let mut client = stack.connect(address).await;
            tokio::select! {
                answer = client.get("/") => panic!("the handler never answers: {answer:?}"),
                _ = in_handler.recv() => {}
            }
            client.hang_up();
            assert_eq!(ends.next().await, Outcome::Cancelled);
        }
        assert_eq!(balanced(ends.runner()).completed, 20);
    }

    /// N3, 22: a client that hangs up in mid-body cancels the request, and its tasks run then. So does whoever leaves a
    /// stream without an end.
    async fn tasks_run_when_the_client_hangs_up_in_mid_body(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&Log::new()).data("one").step(Step::Stall).body();
            async { Response::new(body) }
        }).await;
        for _ in 0..20 {
            let mut client = stack.connect(address).await;
            let mut answer = client.get("/").await.into_body();
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
            ends.none_has_run();
            client.hang_up();
            assert_eq!(ends.next().await, Outcome::Cancelled);
        }
    }

    /// N3: the same for a client that gives up the answer alone: on HTTP/2 its connection lives on.
    async fn tasks_run_when_the_client_gives_up_the_answer(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&Log::new()).data("one").step(Step::Stall).body();
            async { Response::new(body) }
        }).await;
        let mut client = stack.connect(address).await;
        for _ in 0..3 {
            if stack.version == servers::Version::Http1 {
                client = stack.connect(address).await;
            }
            let mut answer = client.get("/").await.into_body();
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
            ends.none_has_run();
            drop(answer);
            assert_eq!(ends.next().await, Outcome::Cancelled);
        }
    }

    /// 22, 25: while a client that reads slowly has not read what fits into no buffer on the way, its request is not over.
    async fn a_slow_reader_holds_the_tasks_until_the_server_has_taken_the_last_byte(stack) {
        const FRAME: usize = 64 << 10;
        const FRAMES: usize = 512;
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let frames = (0..FRAMES).map(|_| Ok::<_, std::io::Error>(vec![7_u8; FRAME]));
            async { Response::new(Body::from_stream(stream::iter(frames))) }
        }).await;
        let socket = TcpSocket::new_v4().unwrap();
        // Without this the system lends a reader as much as the whole body.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let mut client = Client::over(socket.connect(address).await.unwrap(), stack.version).await;
        let mut answer = client.get("/").await.into_body();
        let mut read = 0;
        while let Some(frame) = answer.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
            if read < FRAME * FRAMES / 2 {
                // 16 MiB are missing; all the buffers on the way hold less than 8.
                ends.none_has_run();
            }
        }
        assert_eq!(read, FRAME * FRAMES);
        assert_eq!(ends.next().await, Outcome::Finished);
    }

    /// P6, N7: on a connection that is kept alive, tasks that panic and fail leave the next answers as they are.
    async fn tasks_that_panic_and_fail_touch_no_later_answer_of_the_connection(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |_| {
            after::task("panics").defer(async { panic!("a bug") });
            after::task("fails").defer(async { Err::<(), _>("no such mailbox") });
            teller.defer();
            async { Response::new(Body::from("hello")) }
        }).await;
        let mut client = stack.connect(address).await;
        for _ in 0..5 {
            let answer = client.get("/").await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["content-length"], "5");
            assert_eq!(answer.collect().await.unwrap().to_bytes(), "hello");
            assert_eq!(ends.next().await, Outcome::Finished);
        }
        ends.runner().drain().await;
        let stats = balanced(ends.runner());
        assert_eq!((stats.completed, stats.failed, stats.panicked), (5, 5, 5));
    }
}

const TWO_REQUESTS: &str =
    "GET /first HTTP/1.1\r\nhost: test\r\n\r\nGET /second HTTP/1.1\r\nhost: test\r\n\r\n";

/// Reads an answer with five bytes of body.
async fn answer(client: &mut Raw) -> (Vec<String>, String) {
    let head = client.head().await;
    // The date may differ from one to the next.
    let lines = head.lines().filter(|line| !line.starts_with("date:"));
    let lines = lines.map(String::from).collect();
    let body = client.bytes(5).await;
    (lines, String::from_utf8(body.to_vec()).unwrap())
}

every_http1_stack! {
    /// P6: tasks of the first of two pipelined requests don't delay the second answer, even if they end only after it.
    async fn tasks_do_not_delay_a_pipelined_second_answer(stack) {
        let (layer, teller, mut ends) = watched();
        let second_read = Arc::new(Notify::new());
        let read = second_read.clone();
        let address = stack.serve(layer, move |request| {
            let (read, teller) = (read.clone(), teller.clone());
            if request.uri().path() == "/first" {
                after::defer(async move {
                    read.notified().await;
                    teller.task().await;
                });
            }
            async { Response::new(Body::from("hello")) }
        }).await;
        let mut client = Raw::connect(address).await;
        client.send(TWO_REQUESTS).await;
        let first = answer(&mut client).await;
        assert_eq!(first.1, "hello");
        assert_eq!(answer(&mut client).await, first);
        ends.none_has_run();
        second_read.notify_one();
        assert_eq!(ends.next().await, Outcome::Finished);
    }

    /// P6: nor do they write into it, however they end. (A failing task of Puma did.)
    async fn tasks_do_not_write_into_a_pipelined_second_answer(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |request| {
            if request.uri().path() == "/first" {
                after::task("panics").defer(async { panic!("a bug") });
                after::task("fails").defer(async { Err::<(), _>("no such mailbox") });
                teller.defer();
            }
            async { Response::new(Body::from("hello")) }
        }).await;
        let mut client = Raw::connect(address).await;
        client.send(TWO_REQUESTS).await;
        let first = answer(&mut client).await;
        assert_eq!(answer(&mut client).await, first);
        assert_eq!(ends.next().await, Outcome::Finished);
        ends.runner().drain().await;
        client.send("GET /last HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
        let last = client.rest().await;
        assert!(last.starts_with("HTTP/1.1 200 OK\r\n") && last.ends_with("\r\n\r\nhello"), "{last:?}");
    }
}
