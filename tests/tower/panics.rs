//! Panics of the user's code that come when something of the user's was made already, and those between two polls.

use std::{
    cell::Cell,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use after::tower::AfterLayer;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};

use crate::{
    common::{DefersOnDrop, Log, keeping, now_or_never, poll_once},
    script::{Script, answered, next_frame, notes, run_one},
};

/// Its destructor panics: in the unwinding of another panic, that would abort the process.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

impl AsRef<[u8]> for PanicsOnDrop {
    fn as_ref(&self) -> &[u8] {
        b"data"
    }
}

/// Where a body panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In its destructor, when it has returned an error.
    Drop,
    /// When it is asked whether it has ended, after a frame.
    IsEndStream,
    /// When it is asked how long it is, after a frame.
    SizeHint,
}

/// A body of one frame or error that panics at one place.
struct Panicking {
    place: Place,
    /// How often it can be asked before it panics.
    answers: Cell<u32>,
    next: Option<Result<Frame<Bytes>, PanicsOnDrop>>,
}

impl Panicking {
    fn at(place: Place, answers: u32, next: Result<Frame<Bytes>, PanicsOnDrop>) -> Self {
        Panicking {
            place,
            answers: Cell::new(answers),
            next: Some(next),
        }
    }

    fn is_asked(&self, place: Place) {
        assert!(after::in_scope());
        if place == self.place {
            match self.answers.get() {
                0 => panic!("{place:?}"),
                left => self.answers.set(left - 1),
            }
        }
    }
}

impl Body for Panicking {
    type Data = Bytes;
    type Error = PanicsOnDrop;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PanicsOnDrop>>> {
        Poll::Ready(self.next.take())
    }

    fn is_end_stream(&self) -> bool {
        self.is_asked(Place::IsEndStream);
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.is_asked(Place::SizeHint);
        SizeHint::new()
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        if self.place == Place::Drop {
            panic!("a body's destructor");
        }
    }
}

fn panics(f: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
}

/// Sentence 18b: a frame or an error that the panic finds made already is dropped apart from it.
#[test]
fn a_body_that_panics_when_a_frame_is_made_does_not_abort() {
    for place in [Place::Drop, Place::IsEndStream, Place::SizeHint] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let next = match place {
            Place::Drop => Err(PanicsOnDrop),
            _ => Ok(Frame::data(Bytes::from_owner(PanicsOnDrop))),
        };
        // It is asked for the first time with the head.
        let response = Response::new(Panicking::at(place, 1, next));
        let layer = AfterLayer::with_runner(runner);
        let mut body = now_or_never(answered(layer, Request::new(()), response, &log)).into_body();
        panics(|| drop(next_frame(&mut body)));
        assert_eq!(run_one(&batches, &log), ["handler Panicked"], "{place:?}");
    }
}

/// Sentence 18b: so is the answer, when the future's destructor panics.
#[test]
fn a_future_whose_destructor_panics_does_not_abort() {
    struct Answers {
        body: Option<Script>,
    }

    impl Future for Answers {
        type Output = Result<Response<Script>, Infallible>;

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(Response::new(self.body.take().unwrap())))
        }
    }

    impl Drop for Answers {
        fn drop(&mut self) {
            panic!("a future's destructor");
        }
    }

    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = AfterLayer::with_runner(runner);
    let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
        let log = log.clone();
        let body = Script::new().on_drop(move || {
            notes(&log, "answer's destructor");
            panic!("an answer's destructor");
        });
        Answers { body: Some(body) }
    }));
    panics(|| drop(poll_once(pin!(service.call(Request::new(()))))));
    let seen = run_one(&batches, &log);
    assert_eq!(seen, ["answer's destructor Panicked"]);
}

/// Sentences 2 and 18b: so is the head, in the scope, when `failed_if` panics.
#[test]
fn a_failed_if_that_panics_drops_the_head_in_the_scope_and_does_not_abort() {
    #[derive(Clone)]
    struct Extension {
        _defers: Arc<DefersOnDrop>,
        _panics: Arc<PanicsOnDrop>,
    }

    let (runner, batches) = keeping();
    let log = Log::new();
    let layer = AfterLayer::with_runner(runner).failed_if(|_| panic!("failed_if"));
    let mut response = Response::new(Script::new());
    response.extensions_mut().insert(Extension {
        _defers: Arc::new(DefersOnDrop {
            log: log.clone(),
            entry: "extension",
        }),
        _panics: Arc::new(PanicsOnDrop),
    });
    panics(|| {
        drop(now_or_never(answered(
            layer,
            Request::new(()),
            response,
            &log,
        )))
    });
    assert_eq!(run_one(&batches, &log), ["handler Panicked", "extension"]);
}

/// The table of outcomes: a body that panics, be it asked by the server alone, has panicked, whatever comes then.
#[test]
fn a_body_that_panics_when_the_server_asks_has_panicked() {
    for place in [Place::IsEndStream, Place::SizeHint] {
        for then_polled in [false, true] {
            let (runner, batches) = keeping();
            let log = Log::new();
            let data = Frame::data(Bytes::from_static(b"data"));
            let body = Panicking::at(place, 2, Ok(data));
            // Complete by its length, if it were not for the panic.
            let response = Response::builder().header("content-length", 4);
            let response = response.body(body).unwrap();
            let layer = AfterLayer::with_runner(runner);
            let answered = answered(layer, Request::new(()), response, &log);
            let mut body = now_or_never(answered).into_body();
            assert!(next_frame(&mut body).is_ready());
            panics(|| match place {
                Place::IsEndStream => drop(body.is_end_stream()),
                _ => drop(body.size_hint()),
            });
            assert_eq!(batches.len(), 0);
            if then_polled {
                assert!(matches!(next_frame(&mut body), Poll::Ready(None)));
            }
            drop(body);
            assert_eq!(run_one(&batches, &log), ["handler Panicked"], "{place:?}");
        }
    }
}
