//! The response body: from the head to the end of the request.

use std::{
    fmt,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use crate::{
    report::{self, Outcome},
    scope::context,
    tower::{
        ResponseHead,
        exchange::{self, Exchange, beside},
        progress::Said,
    },
};

pin_project_lite::pin_project! {
    /// The body of a response of an [`AfterService`](super::AfterService): gives out what the inner one does.
    ///
    /// The request is over when this has returned `None` or an error, or is dropped. [The module](super#the-outcome) says
    /// with which outcome. It forwards `is_end_stream`, `size_hint` and trailers. After `None` or an error it drops the
    /// inner body, with the scope current, and returns `None` from then on.
    ///
    /// `Send` if the inner body is, and not `Sync`: where a box is needed, `boxed_unsync` of `http-body-util` makes one, as
    /// those of axum and tonic are.
    ///
    /// The default one holds a default body and belongs to no request: some layers ask for it.
    pub struct AfterBody<B> {
        // `Some` until it has ended, panicked, or is dropped.
        #[pin]
        body: Option<B>,
        // `Some` until the request is over.
        exchange: Option<Exchange>,
    }

    impl<B> PinnedDrop for AfterBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(exchange) = this.exchange.take() {
                let outcome = exchange.progress.outcome_of_drop();
                exchange.abandon(outcome, "the body of a response", || this.body.set(None));
            }
        }
    }
}

impl<B: Body<Data = Bytes>> AfterBody<B> {
    /// A response that is about to be given out.
    pub(super) fn of(response: Response<B>, mut exchange: Option<Exchange>) -> Response<Self> {
        let (head, body) = response.into_parts();
        if let Some(judging) = &mut exchange {
            // The user's code: what counts as a failure, and what the body says of itself.
            let terms = judging.terms;
            let judged = report::catch(|| {
                judging.enter(|| {
                    let judged = ((terms.failed)(&head), Said::by(&body));
                    if terms.capture_response {
                        // The request goes on, so its context is not frozen.
                        let _ = context::try_set(ResponseHead::of(&head));
                    }
                    judged
                })
            });
            match judged {
                Ok((failed, said)) => judging.answers(&head, failed, said),
                Err(payload) => {
                    if let Some(exchange) = exchange {
                        exchange.drops("the head of a response", || drop(head));
                        exchange
                            .abandon(Outcome::Panicked, "the body of a response", || drop(body));
                    }
                    resume_unwind(payload);
                }
            }
        }
        let body = Some(body);
        Response::from_parts(head, AfterBody { body, exchange })
    }
}

impl<B: Body<Data = Bytes>> Body for AfterBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let (polled, said) = exchange::run(this.exchange, this.body.as_mut(), |mut slot| {
            let Some(mut body) = slot.as_mut().as_pin_mut() else {
                // It has ended before.
                return (Poll::Ready(None), None);
            };
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let (frame, said) = beside(frame, "a frame of a body", || Said::by(&*body));
                    (Poll::Ready(Some(Ok(frame))), Some(said))
                }
                // Its destructors may defer, and belong to the request.
                Poll::Ready(Some(Err(error))) => {
                    let (error, ()) = beside(error, "an error of a body", || slot.set(None));
                    (Poll::Ready(Some(Err(error))), None)
                }
                Poll::Ready(None) => {
                    slot.set(None);
                    (Poll::Ready(None), None)
                }
                Poll::Pending => (Poll::Pending, None),
            }
        });
        let Some(exchange) = this.exchange else {
            return polled;
        };
        match (polled, said) {
            (Poll::Ready(Some(Ok(frame))), Some(said)) => {
                Poll::Ready(Some(Ok(exchange.gives_out(frame, said))))
            }
            (Poll::Pending, _) => {
                exchange.keep_up();
                Poll::Pending
            }
            (ended, _) => {
                let outcome = match ended {
                    Poll::Ready(Some(Err(_))) => exchange.progress.outcome_of_error(),
                    _ => exchange.progress.outcome_of_end(),
                };
                if let Some(exchange) = this.exchange.take() {
                    exchange.close(outcome);
                }
                ended
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(body) = &self.body else {
            return true;
        };
        let Some(exchange) = &self.exchange else {
            return body.is_end_stream();
        };
        let ended = exchange.asks(|| body.is_end_stream());
        exchange.progress.says_end(ended);
        ended
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.exchange) {
            (Some(body), Some(exchange)) => exchange.asks(|| body.size_hint()),
            (Some(body), None) => body.size_hint(),
            (None, _) => SizeHint::with_exact(0),
        }
    }
}

impl<B: Default> Default for AfterBody<B> {
    fn default() -> Self {
        AfterBody {
            body: Some(B::default()),
            exchange: None,
        }
    }
}

impl<B> fmt::Debug for AfterBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterBody")
            .field("over", &self.exchange.is_none())
            .finish_non_exhaustive()
    }
}
