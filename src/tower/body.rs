//! The response body: from the head to the end of the request.

use std::{
    fmt,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};

use crate::{
    outcome::Outcome,
    report,
    tower::{
        exchange::{self, Exchange},
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
    /// The body of a response whose head is about to be given out.
    pub(super) fn new(head: &Parts, body: B, exchange: Option<Exchange>) -> Self {
        let mut exchange = exchange;
        if let Some(judging) = &mut exchange {
            // The user's code: what counts as a failure, and what the body says of itself.
            let failed_if = judging.terms.failed;
            let judged = report::catch(|| judging.enter(|| (failed_if(head), Said::by(&body))));
            match judged {
                Ok((failed, said)) => judging.answers(head, failed, said),
                Err(payload) => {
                    if let Some(exchange) = exchange {
                        exchange
                            .abandon(Outcome::Panicked, "the body of a response", || drop(body));
                    }
                    resume_unwind(payload);
                }
            }
        }
        AfterBody {
            body: Some(body),
            exchange,
        }
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
            let polled = body.as_mut().poll_frame(cx);
            let said = match polled {
                Poll::Ready(Some(Ok(_))) => Some(Said::by(&*body)),
                Poll::Ready(None | Some(Err(_))) => {
                    // Its destructors may defer, and belong to the request.
                    slot.set(None);
                    None
                }
                Poll::Pending => None,
            };
            (polled, said)
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
                    Poll::Ready(Some(Err(_))) => Outcome::Failed,
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
        let ended = body.is_end_stream();
        if let Some(exchange) = &self.exchange {
            exchange.progress.says_end(ended);
        }
        ended
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
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
