//! The moment of the hand-over, on real sockets: `RunAfter::Head`, `Body` and `Written`.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use after::{
    Outcome, Runner, spawner,
    tower::{AfterLayer, RunAfter},
};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{net::TcpSocket, sync::mpsc};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    common::{Log, balanced},
    servers::{Client, Script, Stack, Step, watched},
};

/// Notes when the body below has returned a frame to whoever polls it.
struct NotesFrames<B> {
    body: B,
    log: Log,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for NotesFrames<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = frame {
            self.log.add("frame given out");
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What happens to a response of two frames, in order.
async fn order_of_events(stack: Stack, moment: RunAfter) -> Log {
    let log = Log::new();
    let (sender, mut ran) = mpsc::unbounded_channel();
    let noted = log.clone();
    let runner = Runner::new(spawner::from_fn(move |batch| {
        noted.add("handed over");
        tokio::spawn(batch);
    }));
    let handler = service_fn(move |_: Request<Body>| {
        let sender = sender.clone();
        after::defer(async move { sender.send(()) });
        let body = Script::new(&Log::new()).data("one").data("two");
        async { Ok::<_, Infallible>(Response::new(body.says_end().says_length())) }
    });
    // Below a layer that defers nothing, with what notes the frames between the two.
    let layer = AfterLayer::with_runner(runner).run_after(moment);
    let inner = layer.layer(handler);
    let noted = log.clone();
    let address = stack.serve(AfterLayer::new(), move |request| {
        let answer = inner.clone().oneshot(request);
        let log = noted.clone();
        async {
            let answer = answer.await.unwrap();
            log.add("head given out");
            answer.map(|body| Body::new(NotesFrames { body, log }))
        }
    });
    let answer = stack.connect(address.await).await.get("/").await;
    assert_eq!(answer.collect().await.unwrap().to_bytes(), "onetwo");
    ran.recv().await.unwrap();
    log
}

every_stack! {
    /// 22: nothing is handed over while a data frame is being returned, not even the last one: the server has to take it.
    async fn nothing_is_handed_over_while_the_last_frame_is_being_returned(stack) {
        for moment in [RunAfter::Body, RunAfter::Written] {
            let log = order_of_events(stack, moment).await;
            log.assert(&[
                "head given out",
                "frame given out",
                "frame given out",
                "handed over",
            ]);
        }
    }

    /// 22: with `RunAfter::Head` the tasks are handed over as the head is given out, before the body is asked for anything.
    async fn at_the_head_tasks_are_handed_over_before_the_body_is_polled(stack) {
        let log = order_of_events(stack, RunAfter::Head).await;
        log.assert(&[
            "handed over",
            "head given out",
            "frame given out",
            "frame given out",
        ]);
    }

    /// 22: with `RunAfter::Head` the tasks of a stream without an end run while it goes on, and know what the head says.
    async fn at_the_head_the_tasks_of_an_endless_stream_run_while_it_goes_on(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer.run_after(RunAfter::Head), move |request| {
            teller.defer();
            let status = request.uri().path()[1..].parse::<u16>().unwrap();
            let body = Script::new(&Log::new()).data("one").step(Step::Stall).body();
            async move { Response::builder().status(status).body(body).unwrap() }
        }).await;
        for (path, outcome) in [("/200", Outcome::Finished), ("/500", Outcome::Failed)] {
            let mut client = stack.connect(address).await;
            let mut answer = client.get(path).await.into_body();
            assert_eq!(ends.next().await, outcome);
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
            client.hang_up();
        }
    }
}

const FRAME: usize = 64 << 10;
/// Of a response that fits into no buffer on the way.
const LENGTH: usize = 32 << 20;

/// One large frame, or many small ones.
fn large(path: &str) -> Body {
    if path == "/one" {
        return Body::from(vec![7; LENGTH]);
    }
    let frames = (0..LENGTH / FRAME).map(|_| Ok::<_, Infallible>(vec![7; FRAME]));
    Body::from_stream(stream::iter(frames))
}

/// A client for which the system keeps no more than this: its receive buffer would else hold most of the response.
async fn slow_client(stack: Stack, address: std::net::SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    Client::over(socket.connect(address).await.unwrap(), stack.version).await
}

async fn read(body: &mut Incoming, least: usize) -> usize {
    let mut count = 0;
    while count < least {
        let frame = body.frame().await.expect("more of the body").unwrap();
        count += frame.into_data().unwrap().len();
    }
    count
}

every_stack! {
    /// 22, 25: with `RunAfter::Body` a large frame counts as sent when the server has it, which is before it is written.
    async fn with_body_a_large_frame_counts_as_sent_when_the_server_has_taken_it(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer, move |_| {
            teller.defer();
            async { Response::new(large("/one")) }
        }).await;
        let mut client = slow_client(stack, address).await;
        let mut answer = client.get("/").await.into_body();
        // The client has read the head alone.
        assert_eq!(ends.next().await, Outcome::Finished);
        assert_eq!(read(&mut answer, LENGTH).await, LENGTH);
    }

    /// 22b: with `RunAfter::Written` nothing is handed over before the last byte is written, in one frame as in many.
    async fn with_written_nothing_is_handed_over_before_the_last_byte_is_written(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer.run_after(RunAfter::Written), move |request| {
            teller.defer();
            let body = large(request.uri().path());
            async { Response::new(body) }
        }).await;
        for path in ["/one", "/many"] {
            let mut client = slow_client(stack, address).await;
            let mut answer = client.get(path).await.into_body();
            // The rest, 16 MiB, is more than all the buffers on the way hold.
            let first = read(&mut answer, LENGTH / 2).await;
            ends.none_has_run();
            assert_eq!(read(&mut answer, LENGTH - first).await, LENGTH - first);
            assert_eq!(ends.next().await, Outcome::Finished, "{path}");
        }
    }

    /// 22b, N3: what the server will never write, because its client has gone, holds nothing back.
    async fn with_written_tasks_run_when_the_client_hangs_up_in_mid_write(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer.run_after(RunAfter::Written), move |request| {
            teller.defer();
            let body = large(request.uri().path());
            async { Response::new(body) }
        }).await;
        // The one frame was taken, so that request had finished; of the many, most were not.
        for (path, outcome) in [("/one", Outcome::Finished), ("/many", Outcome::Cancelled)] {
            let mut client = slow_client(stack, address).await;
            let mut answer = client.get(path).await.into_body();
            read(&mut answer, 1).await;
            ends.none_has_run();
            client.hang_up();
            assert_eq!(ends.next().await, outcome, "{path}");
        }
        assert_eq!(balanced(ends.runner()).completed, 2);
    }

    /// 22b: responses without a body, and empty ones, have nothing to wait for.
    async fn with_written_an_empty_response_hands_over_at_once(stack) {
        let (layer, teller, mut ends) = watched();
        let address = stack.serve(layer.run_after(RunAfter::Written), move |request| {
            teller.defer();
            let script = Script::new(&Log::new());
            let (status, body) = match request.uri().path() {
                "/empty" => (200, Body::empty()),
                "/ends" => (200, script.body()),
                _ => (204, Body::empty()),
            };
            async move { Response::builder().status(status).body(body).unwrap() }
        }).await;
        let mut client = stack.connect(address).await;
        for path in ["/empty", "/ends", "/nothing"] {
            let answer = client.get(path).await;
            assert!(answer.collect().await.unwrap().to_bytes().is_empty());
            assert_eq!(ends.next().await, Outcome::Finished, "{path}");
        }
    }
}
