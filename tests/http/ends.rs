//! When and how a request ends, on real servers and sockets: what the body says of itself, and what hyper makes of it.

use after::{Outcome, tower::AfterLayer};
use axum::body::Body;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;

use crate::{
    common::Log,
    servers::{Raw, Script, Stack, Step, Version, request, watched},
};

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "7".parse().unwrap());
    trailers
}

every_stack! {
    /// 22: a body that says after its last frame that nothing is to come is dropped there, and the request has finished.
    async fn a_body_that_says_its_end_has_finished(stack) {
        let (layer, teller, mut ends) = watched();
        let log = Log::new();
        let noted = log.clone();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").data("two").says_end().body();
            async { Response::new(body) }
        }).await;
        let answer = stack.connect(address).await.get("/").await;
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "onetwo");
        assert_eq!(ends.next().await, Outcome::Finished);
        log.assert(&["dropped"]);
    }

    /// 22: a body that returns `None` has finished.
    async fn a_body_that_returns_none_has_finished(stack) {
        let (layer, teller, mut ends) = watched();
        let log = Log::new();
        let noted = log.clone();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").data("two").body();
            async { Response::new(body) }
        }).await;
        let answer = stack.connect(address).await.get("/").await;
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "onetwo");
        assert_eq!(ends.next().await, Outcome::Finished);
        log.assert(&["polled to its end", "dropped"]);
    }

    /// P9, 22: what has delivered as much as it announced has finished, though on HTTP/1.1 nobody has polled it to its end.
    async fn a_body_of_exact_length_has_finished_though_nobody_polls_it_to_its_end(stack) {
        let (layer, teller, mut ends) = watched();
        let log = Log::new();
        let noted = log.clone();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").data("two").says_length().body();
            async { Response::new(body) }
        }).await;
        let mut client = stack.connect(address).await;
        for _ in 0..20 {
            let answer = client.get("/").await;
            assert_eq!(answer.headers()["content-length"], "6");
            assert_eq!(answer.collect().await.unwrap().to_bytes(), "onetwo");
            assert_eq!(ends.next().await, Outcome::Finished);
        }
        if stack.version == Version::Http1 {
            log.assert(&["dropped"; 20]);
        }
    }

    /// P9, 22: a stream under a `content-length` header, as a download is, has finished when it has delivered that much.
    async fn a_stream_under_a_content_length_header_has_finished_with_its_last_byte(stack) {
        let (layer, teller, mut ends) = watched();
        let log = Log::new();
        let noted = log.clone();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").data("two").body();
            async { Response::builder().header("content-length", "6").body(body).unwrap() }
        }).await;
        let answer = stack.connect(address).await.get("/").await;
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "onetwo");
        assert_eq!(ends.next().await, Outcome::Finished);
        if stack.version == Version::Http1 {
            log.assert(&["dropped"]);
        }
    }

    /// A body that ends before it has delivered what its `content-length` header has announced: the server breaks the
    /// answer off, the client reports it, and the request has failed.
    async fn an_answer_shorter_than_announced_has_failed(stack) {
        for says_end in [false, true] {
            let (layer, teller, mut ends) = watched();
            let noted = Log::new();
            let address = stack.serve(layer, move |_| {
                teller.defer();
                let body = Script::new(&noted).data("one");
                let body = if says_end { body.says_end() } else { body };
                async { Response::builder().header("content-length", "6").body(body.body()).unwrap() }
            }).await;
            let mut client = stack.connect(address).await;
            // The end of the stream may overtake the head.
            if let Ok(answer) = client.try_send(request("GET", "/")).await {
                assert!(answer.collect().await.is_err(), "the client has noticed");
            }
            assert_eq!(ends.next().await, Outcome::Failed);
        }
    }

    /// 22: trailers are the last there is. hyper asks for nothing after them.
    async fn trailers_end_the_request_and_reach_the_client(stack) {
        let (layer, teller, mut ends) = watched();
        let log = Log::new();
        let noted = log.clone();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").step(Step::Trailers(trailers())).body();
            async { Response::builder().header("trailer", "checksum").body(body).unwrap() }
        }).await;
        let mut asks = request("GET", "/");
        asks.headers_mut().insert("te", "trailers".parse().unwrap());
        let answer = stack.connect(address).await.send(asks).await;
        let answer = answer.collect().await.unwrap();
        assert_eq!(answer.trailers(), Some(&trailers()));
        assert_eq!(answer.to_bytes(), "one");
        assert_eq!(ends.next().await, Outcome::Finished);
        log.assert(&["dropped"]);
    }

    /// N17, 22: HEAD is answered without its body, and has finished all the same.
    async fn head_has_finished_whatever_was_delivered(stack) {
        let (layer, teller, mut ends) = watched();
        let noted = Log::new();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("never sent");
            // A server of HTTP/2 that is no more than hyper would send it.
            let body = if stack.version == Version::Http2 { Script::new(&noted).says_length() } else { body };
            async { Response::new(body.body()) }
        }).await;
        let answer = stack.connect(address).await.send(request("HEAD", "/")).await;
        assert!(answer.collect().await.unwrap().to_bytes().is_empty());
        assert_eq!(ends.next().await, Outcome::Finished);
    }

    /// 22: an error of the body breaks the answer off, and is a failure.
    async fn an_error_frame_is_a_failure(stack) {
        let (layer, teller, mut ends) = watched();
        let noted = Log::new();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").step(Step::Error).body();
            async { Response::new(body) }
        }).await;
        let mut client = stack.connect(address).await;
        // On HTTP/2 the reset may overtake the head.
        if let Ok(answer) = client.try_send(request("GET", "/")).await {
            assert!(answer.collect().await.is_err());
        }
        assert_eq!(ends.next().await, Outcome::Failed);
    }

    /// 22: when something above drops the body without reading it, the request is over there, and was cancelled.
    async fn a_body_that_is_dropped_early_is_cancelled(stack) {
        let (layer, teller, mut ends) = watched();
        let log = Log::new();
        let noted = log.clone();
        let handler = tower::service_fn(move |_: http::Request<Body>| {
            teller.defer();
            let body = Script::new(&noted).data("one").body();
            async { Ok::<_, std::convert::Infallible>(Response::new(body)) }
        });
        // The layer of the test is below one that answers with a body of its own, in a server with a layer that defers
        // nothing.
        let inner = tower::Layer::layer(&layer, handler);
        let address = stack.serve(AfterLayer::new(), move |request| {
            let answer = tower::ServiceExt::oneshot(inner.clone(), request);
            async { answer.await.unwrap().map(|_| Body::from("another")) }
        }).await;
        let answer = stack.connect(address).await.get("/").await;
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "another");
        assert_eq!(ends.next().await, Outcome::Cancelled);
        log.assert(&["dropped"]);
    }
}

/// 22: 204, 304: there is no body whatever the handler gave; hyper drops it, and the request has finished.
mod a_status_without_a_body_has_finished {
    use super::*;

    async fn test(stack: Stack) {
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            let (layer, teller, mut ends) = watched();
            let log = Log::new();
            let noted = log.clone();
            let address = stack
                .serve(layer, move |_| {
                    teller.defer();
                    let body = match stack.version {
                        Version::Http1 => Script::new(&noted).data("never sent"),
                        // hyper's HTTP/2 would send it, and its client would not take it.
                        Version::Http2 => Script::new(&noted),
                    };
                    async move {
                        let answer = Response::builder().status(status);
                        answer.body(body.body()).unwrap()
                    }
                })
                .await;
            let answer = stack.connect(address).await.get("/").await;
            assert_eq!(answer.status(), status);
            assert!(answer.collect().await.unwrap().to_bytes().is_empty());
            assert_eq!(ends.next().await, Outcome::Finished, "{status}");
        }
    }

    stack_test!(on_axum_with_http1, Axum, Http1);
    stack_test!(on_axum_with_http2, Axum, Http2);
    stack_test!(on_hyper_with_http1, Hyper, Http1);
    stack_test!(on_hyper_with_http2, Hyper, Http2);
}

/// Sends back what comes through the connection once it is a tunnel.
fn echo(request: &mut http::Request<Body>) {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut tunnel = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
        let (mut read, mut write) = tokio::io::split(&mut tunnel);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
}

every_http1_stack! {
    /// 22: 101. The request has finished with the head; what the connection then is used for is not part of it.
    async fn an_upgrade_has_finished_with_its_head(stack) {
        let (layer, teller, mut ends) = watched();
        let noted = Log::new();
        let address = stack.serve(layer, move |mut request| {
            teller.defer();
            echo(&mut request);
            let body = Script::new(&noted).data("never sent").body();
            async {
                let answer = Response::builder().status(101);
                let answer = answer.header("connection", "upgrade").header("upgrade", "echo");
                answer.body(body).unwrap()
            }
        }).await;
        let mut client = Raw::connect(address).await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 101"));
        assert_eq!(ends.next().await, Outcome::Finished);
        client.send("still there?").await;
        assert_eq!(client.bytes(12).await, "still there?");
    }

    /// As above, as bytes: what was announced never comes, and the connection is closed.
    async fn an_answer_shorter_than_announced_ends_its_connection(stack) {
        let (layer, teller, mut ends) = watched();
        let noted = Log::new();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").body();
            async { Response::builder().header("content-length", "6").body(body).unwrap() }
        }).await;
        let mut client = Raw::connect(address).await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        let answer = client.rest().await;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!("one".starts_with(body), "{answer:?}");
        assert_eq!(ends.next().await, Outcome::Failed);
    }

    /// 22: trailers over chunks, as bytes.
    async fn trailers_are_chunked_and_end_the_request(stack) {
        let (layer, teller, mut ends) = watched();
        let log = Log::new();
        let noted = log.clone();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            let body = Script::new(&noted).data("one").step(Step::Trailers(trailers())).body();
            async { Response::builder().header("trailer", "checksum").body(body).unwrap() }
        }).await;
        let mut client = Raw::connect(address).await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\nte: trailers\r\n\r\n").await;
        assert!(client.head().await.contains("transfer-encoding: chunked"));
        assert_eq!(client.read_to("\r\n\r\n").await, "3\r\none\r\n0\r\nchecksum: 7\r\n\r\n");
        assert_eq!(ends.next().await, Outcome::Finished);
        log.assert(&["dropped"]);
    }
}

every_stack! {
    /// 22: CONNECT. A tunnel has no body; its request has finished with the head.
    async fn a_tunnel_has_finished_with_its_head(stack) {
        let (layer, teller, mut ends) = watched();
        let noted = Log::new();
        let address = stack.serve(layer, move |mut request| {
            teller.defer();
            echo(&mut request);
            let body = Script::new(&noted).data("never sent").body();
            async { Response::new(body) }
        }).await;
        let asks = http::Request::builder().method("CONNECT").uri("test:80").body(Body::empty());
        let mut client = stack.connect(address).await;
        let answer = client.send(asks.unwrap()).await;
        assert_eq!(answer.status(), 200);
        let mut tunnel = hyper_util::rt::TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        assert_eq!(ends.next().await, Outcome::Finished);
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        tunnel.write_all(b"still there?").await.unwrap();
        let mut echo = [0; 12];
        tunnel.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"still there?");
    }
}
