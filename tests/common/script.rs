//! A body that does what it is told, and tasks that tell how their request has ended.

use std::{
    collections::VecDeque,
    io::{Error, ErrorKind},
    pin::Pin,
    task::{Context, Poll},
};

use after::{Outcome, Runner, spawner, tower::AfterLayer};
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::common::{self, Log};

/// How requests ended, as their tasks saw it.
pub struct Ends {
    runner: Runner,
    seen: UnboundedReceiver<Outcome>,
}

/// Makes the tasks that tell.
#[derive(Clone)]
pub struct Teller {
    sender: UnboundedSender<Outcome>,
}

/// A layer, what its handlers defer, and where that arrives.
pub fn watched() -> (AfterLayer, Teller, Ends) {
    let (sender, seen) = mpsc::unbounded_channel();
    let runner = Runner::new(spawner::Tokio::current());
    let layer = AfterLayer::with_runner(runner.clone());
    (layer, Teller { sender }, Ends { runner, seen })
}

impl Teller {
    /// Defers a task that tells how the request has ended.
    #[track_caller]
    pub fn defer(&self) {
        after::defer(self.clone().task());
    }

    pub async fn task(self) {
        self.sender
            .send(after::outcome().expect("the request is over"))
            .unwrap();
    }
}

impl Ends {
    /// Waits for the task of the next request.
    pub async fn next(&mut self) -> Outcome {
        self.seen.recv().await.expect("a task")
    }

    /// Nothing has run that was not waited for, and nothing that was deferred is gone.
    #[track_caller]
    pub fn none_has_run(&mut self) {
        assert!(self.seen.try_recv().is_err(), "a task has run");
        let stats = common::balanced(&self.runner);
        assert_eq!(stats.pending, stats.deferred - stats.completed);
    }

    pub fn runner(&self) -> &Runner {
        &self.runner
    }
}

/// A body that does what it is told, and notes what the server does with it.
pub struct Script {
    steps: VecDeque<Step>,
    says_end: bool,
    says_length: bool,
    log: Log,
}

pub enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Error,
    /// Never again.
    Stall,
}

impl Script {
    pub fn new(log: &Log) -> Script {
        Script {
            steps: VecDeque::new(),
            says_end: false,
            says_length: false,
            log: log.clone(),
        }
    }

    pub fn step(mut self, step: Step) -> Script {
        self.steps.push_back(step);
        self
    }

    pub fn data(self, data: impl Into<Bytes>) -> Script {
        self.step(Step::Data(data.into()))
    }

    /// `is_end_stream` answers when the steps are done.
    pub fn says_end(mut self) -> Script {
        self.says_end = true;
        self
    }

    /// `size_hint` is exact.
    pub fn says_length(mut self) -> Script {
        self.says_length = true;
        self
    }

    pub fn body(self) -> Body {
        Body::new(self)
    }
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if matches!(self.steps.front(), Some(Step::Stall)) {
            return Poll::Pending;
        }
        match self.steps.pop_front() {
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(Step::Error) => Poll::Ready(Some(Err(ErrorKind::Other.into()))),
            Some(Step::Stall) => unreachable!("it stays in front"),
            None => {
                self.log.add("polled to its end");
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.says_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.says_length {
            return SizeHint::default();
        }
        let lengths = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len() as u64,
            _ => 0,
        });
        SizeHint::with_exact(lengths.sum())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.log.add("dropped");
    }
}
