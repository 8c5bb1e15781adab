//! N14: a task that computes keeps no client waiting for its response, on one thread neither.
//!
//! The task blocks its thread until the client, which has a thread and a runtime of its own, says that it has read all
//! of the response. So if a task could delay the response, both would wait for each other, until the task gives up.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use after::{
    Runner,
    tower::{AfterLayer, RunAfter},
};
use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use crate::servers::{self, Client, Server, Stack, Version};

/// Past this the task gives up, and the test has failed. Nothing waits for it to pass.
const GUARD: Duration = Duration::from_secs(30);
const LENGTH: usize = 100_000;

#[derive(Clone, Copy)]
enum Around {
    Layer(RunAfter),
    PlainScope,
}

/// A server on threads of its own, whose every request defers a task that blocks.
struct Site {
    address: SocketAddr,
    has_everything: mpsc::Sender<()>,
    told_in_time: mpsc::Receiver<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Site {
    fn new(runtime: Runtime, version: Version, around: Around, send_buffer: Option<u32>) -> Site {
        let (has_everything, client) = mpsc::channel();
        let client = Arc::new(Mutex::new(client));
        let (tell, told_in_time) = mpsc::channel();
        let handler = move || {
            let (client, tell) = (client.clone(), tell.clone());
            after::defer(async move {
                let told = client.lock().unwrap().recv_timeout(GUARD);
                tell.send(told.is_ok()).unwrap();
            });
            Response::new(Body::from(vec![7; LENGTH]))
        };
        let (bound, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let socket = TcpSocket::new_v4().unwrap();
            if let Some(size) = send_buffer {
                // What a listener has been set, its connections inherit.
                socket.set_send_buffer_size(size).unwrap();
            }
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(8).unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let server = Server::Hyper;
            let stack = Stack { server, version };
            let runner = Runner::builder().build();
            match around {
                Around::Layer(moment) => {
                    let layer = AfterLayer::with_runner(runner).run_after(moment);
                    stack.serve_on(listener, layer, move |_| {
                        let answer = handler();
                        async { answer }
                    });
                }
                Around::PlainScope => stack.serve_without_layer(listener, move |_| {
                    let handler = handler.clone();
                    runner.scope(async move { handler() })
                }),
            }
            let _ = stopped.await;
        };
        let thread = thread::spawn(move || runtime.block_on(serve));
        Site {
            address: address.recv().unwrap(),
            has_everything,
            told_in_time,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Asks, on the calling thread, and tells the task when all of the response was read.
    async fn ask(&self, client: &mut Client) {
        let answer = client.get("/").await;
        let body = answer.collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), LENGTH);
        let _ = self.has_everything.send(());
    }

    fn stop(mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn the_client_has_everything_before_the_task_ends(
    runtime: Runtime,
    version: Version,
    around: Around,
) {
    let site = Site::new(runtime, version, around, None);
    servers::run(async {
        let socket = TcpStream::connect(site.address).await.unwrap();
        let mut client = Client::over(socket, version).await;
        for request in 0..20 {
            site.ask(&mut client).await;
            let told = site.told_in_time.recv().unwrap();
            assert!(told, "request {request} waited for its task");
        }
    });
    site.stop();
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn workers(count: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(count).enable_all().build().unwrap()
}

macro_rules! on_every_runtime {
    ($( $(#[$meta:meta])* $name:ident: $version:ident, $around:expr; )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            fn test(runtime: Runtime) {
                the_client_has_everything_before_the_task_ends(runtime, Version::$version, $around);
            }

            #[test]
            fn on_a_current_thread_runtime() {
                test(current_thread());
            }

            #[test]
            fn on_one_worker() {
                test(workers(1));
            }

            #[test]
            fn on_two_workers() {
                test(workers(2));
            }
        }
    )*};
}

on_every_runtime! {
    /// N14, 9b, 22: HTTP/1.1, the layer.
    http1_with_the_layer: Http1, Around::Layer(RunAfter::Body);
    /// N14, 9b, 22: HTTP/2, the layer, a client with hyper's windows.
    http2_with_the_layer: Http2, Around::Layer(RunAfter::Body);
    /// N14, 22b: HTTP/1.1, the layer, handing over when all is written.
    http1_with_written: Http1, Around::Layer(RunAfter::Written);
    /// N14, 22b: HTTP/2, the same.
    http2_with_written: Http2, Around::Layer(RunAfter::Written);
    /// N14, 9b: HTTP/1.1, a scope around the handler.
    http1_with_a_plain_scope: Http1, Around::PlainScope;
    /// N14, 9b: HTTP/2, the same.
    http2_with_a_plain_scope: Http2, Around::PlainScope;
}

/// N14, 22b: with a send buffer that is smaller than the response, only `Written` keeps the tasks from its last bytes.
#[test]
fn written_waits_for_a_small_send_buffer() {
    for version in [Version::Http1, Version::Http2] {
        let around = Around::Layer(RunAfter::Written);
        let site = Site::new(current_thread(), version, around, Some(16 << 10));
        servers::run(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(16 << 10).unwrap();
            let socket = socket.connect(site.address).await.unwrap();
            let mut client = Client::over(socket, version).await;
            site.ask(&mut client).await;
            assert!(site.told_in_time.recv().unwrap(), "{version:?}");
        });
        site.stop();
    }
}

/// N14, 22b: nor does it hold back what does not fit into the window of an HTTP/2 client, here the least there is.
#[test]
fn written_waits_for_a_small_window() {
    let around = Around::Layer(RunAfter::Written);
    let site = Site::new(current_thread(), Version::Http2, around, None);
    servers::run(async {
        let socket = TcpStream::connect(site.address).await.unwrap();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(65_535);
        builder.initial_connection_window_size(65_535);
        let mut client = Client::over_http2(socket, &builder).await;
        site.ask(&mut client).await;
        assert!(site.told_in_time.recv().unwrap());
    });
    site.stop();
}
