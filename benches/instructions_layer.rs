//! What the instruction guard counts of the layer: requests through an `AfterLayer`, each with a small body.
//!
//! `instructions_layer layer_<tasks> <repetitions> <padding>`, with tasks of `nothing`, `one_task` and `three_tasks`; the rest
//! is as in `instructions`. The body is asked what hyper asks one of a known length, as often and in the same order. A
//! program of its own, because each use of the crate may change what is inlined in the others, and so their counts.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, Waker},
};

use after::tower::AfterLayer;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::task::yield_now;
use tower::{Layer, Service};

static DONE: AtomicU64 = AtomicU64::new(0);

/// Defers so many tasks, and answers.
#[derive(Clone)]
struct Answers {
    tasks: u64,
}

impl Service<Request<()>> for Answers {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        for _ in 0..self.tasks {
            after::defer(async {
                DONE.fetch_add(1, Relaxed);
            });
        }
        ready(Ok(Response::new(Full::new(Bytes::from_static(b"hello")))))
    }
}

/// What a server does with a request.
#[inline(never)]
fn serve<S, B>(service: &mut S)
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut future = pin!(service.call(Request::new(())));
    let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx) else {
        panic!("it answers at once");
    };
    let mut body = pin!(response.into_body());
    assert!(!black_box(body.is_end_stream()));
    black_box(body.size_hint());
    let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) else {
        panic!("there is a frame");
    };
    black_box(frame);
    assert!(black_box(body.is_end_stream()));
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo bench` runs this without arguments: there is nothing to print then.
    let [_, scenario, repetitions, padding] = &arguments[..] else {
        return;
    };
    let padding: usize = padding.parse().expect("a number of bytes");
    let _padding = black_box(vec![0_u8; padding]);
    let repetitions: u64 = repetitions.parse().expect("a number of repetitions");
    let tasks = match scenario.as_str() {
        "layer_nothing" => 0,
        "layer_one_task" => 1,
        "layer_three_tasks" => 3,
        other => panic!("no scenario `{other}`"),
    };
    let mut service = AfterLayer::new().layer(Answers { tasks });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for _ in 0..repetitions {
            let done = DONE.load(Relaxed) + tasks;
            serve(&mut service);
            while DONE.load(Relaxed) < done {
                yield_now().await;
            }
        }
    });
}
