//! A call that keeps the stream of its client in a task, on a real server and a real socket.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::mpsc,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use after::{
    Runner,
    tower::{AfterLayer, RunAfter},
};
use bytes::{Buf, BufMut};
use tokio::net::TcpListener;
use tokio_stream::{StreamExt, iter, wrappers::TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client, codec,
    codegen::{Service, http},
    server::{ClientStreamingService, Grpc, NamedService},
    transport::{Endpoint, Server},
};

/// Messages that are bytes.
#[derive(Clone, Copy)]
struct Raw;

impl codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut codec::EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// Reads the first message, answers, and keeps the rest for a task that is to run if the call fails. It doesn't.
#[derive(Clone)]
struct Uploads;

impl NamedService for Uploads {
    const NAME: &'static str = "uploads.Uploads";
}

impl ClientStreamingService<Vec<u8>> for Uploads {
    type Response = Vec<u8>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        Box::pin(async {
            let mut messages = request.into_inner();
            let first = messages.message().await?.unwrap_or_default();
            after::task("archive")
                .on_failure()
                .defer(async move { drop(messages.collect::<Vec<_>>().await) });
            Ok(Response::new(first))
        })
    }
}

impl Service<http::Request<Body>> for Uploads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Grpc::new(Raw).client_streaming(Uploads, request).await) })
    }
}

async fn uploads() {
    let runner = Runner::builder().build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layer = AfterLayer::with_runner(runner.clone()).grpc();
    let server = Server::builder()
        .layer(layer.run_after(RunAfter::Written))
        .add_service(Uploads)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = client::Grpc::new(channel.connect().await.unwrap());
    for _ in 0..5 {
        client.ready().await.unwrap();
        let messages = iter(vec![vec![7; 1_000]; 10]);
        let path = http::uri::PathAndQuery::from_static("/uploads.Uploads/Upload");
        let request = Request::new(messages);
        let answer = client.client_streaming(request, path, Raw).await.unwrap();
        assert_eq!(answer.into_inner(), vec![7; 1_000]);
    }
    runner.drain().await;
    let stats = runner.stats();
    assert_eq!((stats.deferred, stats.discarded), (5, 5));
}

/// 12, 22b, 23: a call has succeeded, and the task that owns the rest of its stream is discarded.
#[test]
fn a_discarded_task_may_own_the_stream_of_its_call() {
    for workers in [None, Some(2)] {
        // A server that stops its thread for ever can't be timed out from inside.
        let (ended, end) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut builder = match workers {
                None => tokio::runtime::Builder::new_current_thread(),
                Some(_) => tokio::runtime::Builder::new_multi_thread(),
            };
            let builder = builder.worker_threads(workers.unwrap_or(1));
            builder.enable_all().build().unwrap().block_on(uploads());
            ended.send(()).unwrap();
        });
        if let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_secs(60)) {
            panic!("the test hangs");
        }
        thread.join().unwrap();
    }
}
