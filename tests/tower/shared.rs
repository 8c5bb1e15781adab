//! What of the layer is `Send` and `Sync`, and what that costs: a body is asked through a lock that nobody waits for.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use after::{
    Overflow, Runner,
    tower::{AfterBody, AfterFuture, AfterLayer, AfterService, RunAfter},
};
use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service};

use crate::common::{keeping, now_or_never, poll_once, polls_to_end};

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// What frameworks ask for that box a body, or keep it in a response that is shared: those of poem and lambda_http do.
#[test]
fn what_is_of_the_layer_is_send_and_sync_if_what_it_wraps_is() {
    fn is_both<T: Send + Sync + 'static>() {}
    is_both::<AfterLayer>();
    is_both::<AfterService<()>>();
    is_both::<AfterFuture<std::future::Ready<Answer>>>();
    is_both::<AfterBody<Full<Bytes>>>();
    is_both::<Response<AfterBody<Full<Bytes>>>>();
    fn is_send<T: Send + 'static>() {}
    is_send::<AfterBody<axum::body::Body>>();
    let layer = AfterLayer::with_runner(Runner::builder().build());
    let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
        std::future::ready(Answer::Ok(Response::new(Full::new(Bytes::new()))))
    }));
    let response = now_or_never(service.call(Request::new(()))).unwrap();
    let boxed: http_body_util::combinators::BoxBody<Bytes, Infallible> =
        response.into_body().boxed();
    assert!(boxed.is_end_stream());
}

/// Is asked by two threads at once: the first waits in there for the second.
struct Shared<'a> {
    meeting: &'a Barrier,
    asked: AtomicUsize,
    in_scope: AtomicUsize,
}

impl Body for Shared<'_> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let seen = (self.asked.load(SeqCst), self.in_scope.load(SeqCst));
        assert_eq!(seen, (3, 2), "one with the head, and of two at once one");
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.in_scope
            .fetch_add(usize::from(after::in_scope()), SeqCst);
        if self.asked.fetch_add(1, SeqCst) > 0 {
            self.meeting.wait();
        }
        false
    }
}

/// No thread waits for a body's code that another runs: of two that ask at once the second asks outside the scope.
#[test]
fn of_two_threads_that_ask_a_body_at_once_none_waits() {
    let (runner, _batches) = keeping();
    let meeting = Barrier::new(2);
    let mut service = AfterLayer::with_runner(runner).layer(tower::service_fn(|_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Shared {
            meeting: &meeting,
            asked: AtomicUsize::new(0),
            in_scope: AtomicUsize::new(0),
        })))
    }));
    let body = now_or_never(service.call(Request::new(())))
        .unwrap()
        .into_body();
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| assert!(!body.is_end_stream()));
        }
    });
    let mut body = pin!(body);
    let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
    assert!(now_or_never(frame).is_none());
}

/// Allocations of a request with one task and so many frames, from the call to the end of its body, when it is ready at once.
fn allocations(layer: &AfterLayer, frames: usize) -> u64 {
    struct Frames(usize);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.checked_sub(1).map(|left| {
                self.0 = left;
                Ok(Frame::data(Bytes::from_static(b"frame")))
            }))
        }
    }

    let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
        after::defer(async {});
        std::future::ready(Ok::<_, Infallible>(Response::new(Frames(frames))))
    }));
    measure(|| {
        let mut future = pin!(service.call(Request::new(())));
        let Poll::Ready(Ok(response)) = poll_once(future.as_mut()) else {
            panic!("there is room");
        };
        let mut body = pin!(response.into_body());
        loop {
            let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
            if now_or_never(frame).is_none() {
                return;
            }
        }
    })
    .count_total
}

/// What the docs say of `Written`, an allocation a response and one a frame; and that waiting for room costs no box.
#[test]
fn a_moment_costs_what_it_says() {
    let (runner, batches) = keeping();
    let layer = AfterLayer::with_runner(runner);
    let cost = |layer: &AfterLayer, frames| {
        let cost = allocations(layer, frames);
        polls_to_end(&mut batches.take_one(), 5);
        cost
    };
    // The first ones fill what is reused.
    cost(&layer, 0);
    let plain = cost(&layer, 3);
    let written = layer.clone().run_after(RunAfter::Written);
    let costs = [0, 1, 3].map(|frames| cost(&written, frames) - plain);
    println!("written: {costs:?} beyond {plain}");
    assert_eq!(costs, [0, 2, 4]);

    let (runner, batches) = crate::common::keeping_with(|builder| {
        builder
            .max_running(1)
            .max_waiting(10)
            .overflow(Overflow::Backpressure)
    });
    let (shedding, shed_batches) = crate::common::keeping_with(|builder| {
        builder
            .max_running(1)
            .max_waiting(10)
            .overflow(Overflow::Shed)
    });
    let cost = |runner: &Runner, batches: &crate::common::Batches| {
        let layer = AfterLayer::with_runner(runner.clone());
        let cost = allocations(&layer, 1);
        polls_to_end(&mut batches.take_one(), 5);
        cost
    };
    cost(&runner, &batches);
    cost(&shedding, &shed_batches);
    let waiting = cost(&runner, &batches) - cost(&shedding, &shed_batches);
    println!("backpressure: {waiting} beyond shedding");
    // The turn in the line, and whose tasks have it at the end.
    assert_eq!(waiting, 2);
}
