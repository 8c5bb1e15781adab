//! Responses: the last byte of one, and the place that its tasks have waited for.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use after::{
    Overflow, RunnerBuilder,
    tower::{AfterBody, AfterFuture, AfterLayer, RunAfter},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use loom::{future::block_on, thread};
use tower_layer::Layer;
use tower_service::Service;

use crate::world::{Ledger, World, join, model, model_with, poll_once};

/// Defers one task, and answers with so many frames.
struct Answers {
    ledger: Arc<Ledger>,
    task: usize,
    frames: usize,
}

struct Frames(usize);

type Answer = Result<Response<Frames>, Infallible>;

impl Service<Request<()>> for Answers {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        after::defer(self.ledger.task(self.task));
        ready(Ok(Response::new(Frames(self.frames))))
    }
}

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

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }
}

fn request(
    world: &World,
    moment: RunAfter,
    task: usize,
    frames: usize,
) -> Pin<Box<AfterFuture<Ready<Answer>>>> {
    let layer = AfterLayer::with_runner(world.runner.clone()).run_after(moment);
    let answers = Answers {
        ledger: world.ledger.clone(),
        task,
        frames,
    };
    Box::pin(layer.layer(answers).call(Request::new(())))
}

/// The head is out, and the body is not read.
fn answered(world: &World, moment: RunAfter, task: usize, frames: usize) -> AfterBody<Frames> {
    match poll_once(request(world, moment, task, frames).as_mut()) {
        Poll::Ready(Ok(response)) => response.into_body(),
        Poll::Pending => panic!("there is room"),
    }
}

fn next_frame(body: &mut AfterBody<Frames>) -> Bytes {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(body).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
        _ => panic!("there is a frame"),
    }
}

/// Sentence 22b: the two last frames are let go of on two threads, while the batch looks whether it may start.
#[test]
fn the_last_frame_starts_the_tasks() {
    model(|world| {
        let mut body = answered(world, RunAfter::Written, 0, 2);
        let frames = [next_frame(&mut body), next_frame(&mut body)];
        drop(body);
        let batch = world.take_batch();
        let writing = frames.map(|frame| thread::spawn(move || drop(frame)));
        block_on(batch);
        assert!(world.ledger.has_run(0));
        join(writing);
    });
}

/// Sentence 22b: the body ends while the server lets go of the only frame: its batch has a gate, or needs none.
#[test]
fn a_body_ends_while_its_frame_is_let_go_of() {
    model(|world| {
        let mut body = answered(world, RunAfter::Written, 0, 1);
        let frame = next_frame(&mut body);
        let writing = thread::spawn(move || drop(frame));
        drop(body);
        block_on(world.take_batch());
        assert!(world.ledger.has_run(0));
        join([writing]);
    });
}

/// Sentences 10, 22b: the executor polls the batch for the last time, and drops it, while the server lets go of the frames
/// that it waits for.
#[test]
fn a_batch_is_dropped_while_its_frames_are_let_go_of() {
    model(|world| {
        let mut body = answered(world, RunAfter::Written, 0, 2);
        let frames = [next_frame(&mut body), next_frame(&mut body)];
        drop(body);
        let mut batch = world.take_batch();
        let writing = frames.map(|frame| thread::spawn(move || drop(frame)));
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        drop(batch);
        join(writing);
        assert_eq!(world.runner.stats().lost, 1);
    });
}

fn one_waits(builder: RunnerBuilder) -> RunnerBuilder {
    let builder = builder.max_running(1).max_waiting(1);
    builder.overflow(Overflow::Backpressure)
}

/// Sentence 21: a response ends, and has its place back, while room becomes free and is given to another.
#[test]
fn a_place_is_had_back_while_room_is_granted() {
    model_with(
        |builder| one_waits(builder).max_waiting(2),
        |world| {
            let running = world.plain_batch([world.ledger.task(0)]);
            let lending = answered(world, RunAfter::Body, 1, 0);
            let waiting = world.plain_batch([world.ledger.task(2)]);
            let mut other = request(world, RunAfter::Body, 3, 0);
            assert!(poll_once(other.as_mut()).is_pending());
            let running = thread::spawn(move || {
                block_on(running);
                block_on(waiting);
            });
            let ending = thread::spawn(move || drop(lending));
            drop(block_on(other));
            join([running, ending]);
            world.run_spawned();
            assert!((0..4).all(|task| world.ledger.has_run(task)));
        },
    );
}

/// Sentence 21: a response that waits for room is dropped while it is granted that: room goes on to the next.
#[test]
fn an_answer_is_dropped_while_room_is_granted_to_it() {
    model_with(one_waits, |world| {
        let running = world.plain_batch([world.ledger.task(0)]);
        let waiting = world.plain_batch([world.ledger.task(1)]);
        let [mut dropped, mut last] = [2, 3].map(|task| request(world, RunAfter::Body, task, 0));
        assert!(poll_once(dropped.as_mut()).is_pending());
        assert!(poll_once(last.as_mut()).is_pending());
        let running = thread::spawn(move || {
            block_on(running);
            block_on(waiting);
        });
        drop(dropped);
        drop(block_on(last));
        join([running]);
        world.run_spawned();
        assert!((0..4).all(|task| world.ledger.has_run(task)));
    });
}
