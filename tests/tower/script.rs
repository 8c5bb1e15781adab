//! A body that does what it is told, and requests polled by hand.
#![allow(unreachable_pub)]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use after::tower::{AfterBody, AfterLayer};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{ServiceBuilder, ServiceExt};

use crate::common::{Batches, Log, now_or_never, poll_once, polls_to_end};

type Step = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>>>;

/// A body that goes through its steps, one a poll, and then returns `None`.
#[derive(Default)]
pub struct Script {
    steps: VecDeque<Step>,
    /// What `size_hint` says, from the beginning to the end: the last one stays.
    hints: VecDeque<SizeHint>,
    says_end: bool,
    panics_when_asked: bool,
    on_drop: Option<Box<dyn FnOnce()>>,
}

impl Script {
    pub fn new() -> Self {
        Script::default()
    }

    pub fn does(
        mut self,
        step: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> + 'static,
    ) -> Self {
        self.steps.push_back(Box::new(step));
        self
    }

    pub fn data(self, data: &'static str) -> Self {
        self.does(move |_| Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data.as_bytes()))))))
    }

    /// Defers a task that notes `entry`, then gives out a frame.
    pub fn defers(self, log: &Log, entry: &'static str) -> Self {
        let log = log.clone();
        self.does(move |_| {
            notes(&log, entry);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"chunk")))))
        })
    }

    pub fn pending(self) -> Self {
        self.does(|_| Poll::Pending)
    }

    pub fn trailers(self, name: &'static str, value: &'static str) -> Self {
        self.does(move |_| {
            let mut trailers = HeaderMap::new();
            trailers.insert(name, value.parse().unwrap());
            Poll::Ready(Some(Ok(Frame::trailers(trailers))))
        })
    }

    pub fn error(self) -> Self {
        self.does(|_| Poll::Ready(Some(Err("broken"))))
    }

    pub fn panics(self) -> Self {
        self.does(|_| panic!("a body that panics"))
    }

    /// What `size_hint` says at first, then after each frame.
    pub fn hints(mut self, hints: impl IntoIterator<Item = SizeHint>) -> Self {
        self.hints = hints.into_iter().collect();
        self
    }

    pub fn exactly(self, bytes: u64) -> Self {
        self.hints([SizeHint::with_exact(bytes)])
    }

    /// Says that it has ended when its steps are done.
    pub fn says_end(mut self) -> Self {
        self.says_end = true;
        self
    }

    /// Panics in `size_hint`.
    pub fn panics_when_asked(mut self) -> Self {
        self.panics_when_asked = true;
        self
    }

    pub fn on_drop(mut self, f: impl FnOnce() + 'static) -> Self {
        self.on_drop = Some(Box::new(f));
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(mut step) = self.steps.pop_front() else {
            return Poll::Ready(None);
        };
        let polled = step(cx);
        if polled.is_ready() && self.hints.len() > 1 {
            self.hints.pop_front();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.says_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        assert!(!self.panics_when_asked, "a body that panics when asked");
        self.hints.front().cloned().unwrap_or_default()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(f) = self.on_drop.take() {
            f();
        }
    }
}

/// Defers a task that notes `entry` and the outcome.
pub fn notes(log: &Log, entry: &'static str) {
    let log = log.clone();
    after::defer(async move { log.add(format!("{entry} {:?}", after::outcome().unwrap())) });
}

/// A handler that defers one task, and the response's head and body.
pub async fn answered<B>(
    layer: AfterLayer,
    request: Request<()>,
    response: Response<B>,
    log: &Log,
) -> Response<AfterBody<B>>
where
    B: Body<Data = Bytes>,
{
    let log = log.clone();
    let mut response = Some(response);
    let service = ServiceBuilder::new()
        .layer(layer)
        .service_fn(move |_: Request<()>| {
            notes(&log, "handler");
            let response = response.take().unwrap();
            async { Ok::<_, Infallible>(response) }
        });
    service.oneshot(request).await.unwrap()
}

/// As `answered`, with a GET request and a status of 200.
pub fn body_of(layer: AfterLayer, body: Script, log: &Log) -> AfterBody<Script> {
    let response = answered(layer, Request::new(()), Response::new(body), log);
    now_or_never(response).into_body()
}

pub fn next_frame<B>(body: &mut AfterBody<B>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>>
where
    B: Body<Data = Bytes> + Unpin,
{
    poll_once(Pin::new(&mut std::future::poll_fn(|cx| {
        Pin::new(&mut *body).poll_frame(cx)
    })))
}

/// The data of the next frame.
#[track_caller]
pub fn next_data<B>(body: &mut AfterBody<B>) -> Bytes
where
    B: Body<Data = Bytes, Error = &'static str> + Unpin,
{
    match next_frame(body) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("a data frame"),
        other => panic!("not a frame: {:?}", other.map(|frame| frame.is_some())),
    }
}

/// Runs the only batch that was handed over, and says what its tasks have noted since.
#[track_caller]
pub fn run_one(batches: &Batches, log: &Log) -> Vec<String> {
    let before = log.entries().len();
    let mut batch = batches.take_one();
    polls_to_end(&mut batch, 100);
    log.entries().split_off(before)
}
