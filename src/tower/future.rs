//! The response future: from the call to the head.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::Body;

use crate::{
    limit::Room,
    report::Outcome,
    tower::{
        AfterBody,
        exchange::{self, Exchange, beside},
    },
};

pin_project_lite::pin_project! {
    /// The future of an [`AfterService`](super::AfterService): resolves to what the inner one does, with an [`AfterBody`].
    ///
    /// On a Runner that pushes back ([`Overflow::Backpressure`](crate::Overflow::Backpressure)) a request that has
    /// deferred something resolves when there is room for its tasks; see the [limits](super#limits).
    ///
    /// Dropping it before it has resolved (the client has gone) drops the inner future with the scope current, and hands
    /// over, with [`Outcome::Cancelled`]. That never panics: a panic of the inner future's destructor is caught and
    /// reported.
    ///
    /// # Panics
    ///
    /// When polled after it has resolved. A panic of the inner future goes on after the hand-over.
    #[must_use = "futures do nothing unless polled"]
    pub struct AfterFuture<F: Future> {
        // `Some` until it has resolved, panicked, or is dropped.
        #[pin]
        future: Option<F>,
        // `Some` until it is given to the body, or the request is over.
        exchange: Option<Exchange>,
        // The answer, while there is no room for the tasks.
        waiting: Option<Box<Waiting<F::Output>>>,
    }

    impl<F: Future> PinnedDrop for AfterFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(exchange) = this.exchange.take() {
                // Whom this wakes is not in our scope; what the answer's destructors defer is.
                let answer = this.waiting.take().map(|waiting| waiting.answer_without_room());
                exchange.abandon(Outcome::Cancelled, "the future of a request", || {
                    this.future.set(None);
                    drop(answer);
                });
            }
        }
    }
}

/// What the service answers, and what becomes of it.
type Answer<B, E> = Result<Response<B>, E>;

struct Waiting<T> {
    room: Room,
    answer: T,
}

impl<T> Waiting<T> {
    /// Gives up its place in the line.
    fn answer_without_room(self) -> T {
        self.answer
    }
}

impl<F: Future> AfterFuture<F> {
    pub(super) fn new(future: F, exchange: Option<Exchange>) -> Self {
        AfterFuture {
            future: Some(future),
            exchange,
            waiting: None,
        }
    }
}

impl<F, B, E> Future for AfterFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<AfterBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.waiting.is_some() {
            return poll_room(this.exchange, this.waiting, cx);
        }
        let polled = exchange::run(this.exchange, this.future.as_mut(), |mut future| {
            let Some(polling) = future.as_mut().as_pin_mut() else {
                panic!("`AfterFuture` polled after completion");
            };
            // Its destructors may defer, and are before the answer.
            polling.poll(cx).map(|answer| {
                let (answer, ()) = beside(answer, "the answer of a request", || future.set(None));
                answer
            })
        });
        let Poll::Ready(answer) = polled else {
            return Poll::Pending;
        };
        let room = this.exchange.as_ref().and_then(Exchange::wants_room);
        if let Some(room) = room {
            *this.waiting = Some(Box::new(Waiting { room, answer }));
            return poll_room(this.exchange, this.waiting, cx);
        }
        Poll::Ready(give_out(this.exchange.take(), answer))
    }
}

#[cold]
fn poll_room<B, E>(
    slot: &mut Option<Exchange>,
    waiting: &mut Option<Box<Waiting<Answer<B, E>>>>,
    cx: &mut Context<'_>,
) -> Poll<Answer<AfterBody<B>, E>>
where
    B: Body<Data = Bytes>,
{
    // It stays where it is during the poll: the waker is the user's code.
    if let Some(waits) = waiting {
        if waits.room.poll(cx).is_pending() {
            return Poll::Pending;
        }
    }
    let Some(waits) = waiting.take() else {
        return Poll::Pending;
    };
    let Waiting { room, answer } = *waits;
    let mut exchange = slot.take();
    if let Some(exchange) = &mut exchange {
        exchange.place = Some(room.take());
    }
    Poll::Ready(give_out(exchange, answer))
}

/// The answer as the server gets it: the scope goes on in its body, or is over with an error.
fn give_out<B, E>(exchange: Option<Exchange>, answer: Answer<B, E>) -> Answer<AfterBody<B>, E>
where
    B: Body<Data = Bytes>,
{
    match answer {
        Ok(response) => Ok(AfterBody::of(response, exchange)),
        Err(error) => {
            if let Some(exchange) = exchange {
                exchange.close(Outcome::Failed);
            }
            Err(error)
        }
    }
}

impl<F: Future> fmt::Debug for AfterFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterFuture")
            .field("over", &self.exchange.is_none())
            .finish_non_exhaustive()
    }
}
