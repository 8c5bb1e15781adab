//! The response future: from the call to the head.

use std::{
    fmt,
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::{
    AfterBody,
    exchange::{self, Exchange, catch},
};
use crate::Outcome;

pin_project_lite::pin_project! {
    /// Future of an [`AfterService`](super::AfterService): resolves to what the inner one does, with an [`AfterBody`].
    ///
    /// On a Runner with backpressure ([`Overflow::Backpressure`](crate::Overflow::Backpressure)) a request that has
    /// deferred tasks resolves when the queue has capacity for them; see the [limits](super#limits).
    ///
    /// # Cancel safety
    ///
    /// Dropping it before it has resolved (the client disconnects) loses no task: the inner future is dropped with the scope
    /// current, and the tasks start, with [`Outcome::Cancelled`]. Dropping never panics: a panic of the inner future's
    /// destructor is caught and reported.
    ///
    /// # Panics
    ///
    /// When polled after it has resolved. A panic of the inner future propagates; the tasks start before.
    #[must_use = "futures do nothing unless polled"]
    pub struct AfterFuture<F: Future> {
        // `Some` until it has resolved, panicked, or is dropped.
        #[pin]
        future: Option<F>,
        // `Some` until it is given to the body, or the request is over.
        exchange: Option<Exchange>,
        // The answer, while there is no room for the tasks. It is what asks for the bound: an output has no other name.
        waiting: Option<Box<F::Output>>,
    }

    impl<F: Future> PinnedDrop for AfterFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(exchange) = this.exchange.take() {
                let answer = this.waiting.take();
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
        let mut answer = this.waiting.take().map(|answer| *answer);
        if answer.is_none() {
            let future = this.future.as_mut();
            exchange::run(this.exchange, future, &mut answer, |mut future, answer| {
                let Some(polling) = future.as_mut().as_pin_mut() else {
                    panic!("`AfterFuture` polled after completion");
                };
                if let Poll::Ready(made) = polling.poll(cx) {
                    *answer = Some(made);
                    // Its destructors may defer, and are before the answer.
                    future.set(None);
                }
            });
        }
        let Some(answer) = answer else {
            return Poll::Pending;
        };
        let Some(exchange) = this.exchange else {
            return Poll::Ready(give_out(None, answer));
        };
        match catch(|| exchange.scope.poll_ready(cx)) {
            Ok(Poll::Ready(())) => Poll::Ready(give_out(this.exchange.take(), answer)),
            // The waker is the user's code, and may have panicked.
            waits => {
                *this.waiting = Some(Box::new(answer));
                match waits {
                    Ok(_) => Poll::Pending,
                    Err(payload) => resume_unwind(payload),
                }
            }
        }
    }
}

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
