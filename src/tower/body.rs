//! The response body: from the head to the end of the request.

use std::{
    fmt,
    panic::resume_unwind,
    pin::Pin,
    sync::{Mutex, PoisonError, TryLockError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::{
    ResponseHead,
    exchange::{self, Exchange, catch},
    progress::Said,
};
use crate::{Outcome, context};

pin_project_lite::pin_project! {
    /// Response body of an [`AfterService`](super::AfterService): it ends the request when it ends.
    ///
    /// It gives out what the inner body does. The request ends when this has returned `None` or an error, or is dropped. [The module](super#the-outcome) says
    /// with which outcome. It forwards `is_end_stream`, `size_hint` and trailers. After `None` or an error it drops the
    /// inner body, with the scope current, and returns `None` from then on.
    ///
    /// `Send` and `Sync` if the inner body is. Those of axum and tonic are not `Sync`: where a box is needed,
    /// `boxed_unsync` of `http-body-util` makes one.
    ///
    /// The default one holds a default body and belongs to no request: some layers ask for it.
    pub struct AfterBody<B> {
        // `Some` until it has ended, panicked, or is dropped.
        #[pin]
        body: Option<B>,
        // `Some` until the request is over. The lock is for what the server asks by reference, in the scope; whoever
        // has the body to himself takes none.
        exchange: Mutex<Option<Exchange>>,
    }

    impl<B> PinnedDrop for AfterBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(exchange) = own(this.exchange).take() {
                let outcome = exchange.progress.outcome_of_drop();
                exchange.abandon(outcome, "the body of a response", || this.body.set(None));
            }
        }
    }
}

/// What is in the lock, for who needs none.
#[inline]
fn own<T>(mutex: &mut Mutex<T>) -> &mut T {
    // A body that has panicked where it was asked something poisons it. What is in there is whole.
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Body<Data = Bytes>> AfterBody<B> {
    /// A response that is about to be given out.
    pub(super) fn of(response: Response<B>, mut exchange: Option<Exchange>) -> Response<Self> {
        let (head, body) = response.into_parts();
        if let Some(judging) = &mut exchange {
            // The user's code: what counts as a failure, and what the body says of itself.
            let terms = judging.terms;
            let judged = catch(|| {
                judging.scope.enter(|| {
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
                    if let Some(mut exchange) = exchange {
                        exchange.drops("the head of a response", || drop(head));
                        exchange
                            .abandon(Outcome::Panicked, "the body of a response", || drop(body));
                    }
                    resume_unwind(payload);
                }
            }
        }
        let body = AfterBody {
            body: Some(body),
            exchange: Mutex::new(exchange),
        };
        Response::from_parts(head, body)
    }

    /// Asks the body, in the scope, and notes what it says.
    ///
    /// The lock is free but for a second thread that asks at the same time: no caller is known that does. That one does not
    /// wait for the user's code that runs under the lock: it asks outside the scope.
    #[inline]
    fn asks<R>(&self, ask: impl FnOnce() -> R, note: impl FnOnce(&mut Exchange, &R)) -> R {
        let mut exchange = match self.exchange.try_lock() {
            Ok(exchange) => exchange,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return ask(),
        };
        match &mut *exchange {
            Some(exchange) => {
                let answer = exchange.asks(ask);
                note(exchange, &answer);
                answer
            }
            None => ask(),
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
        let exchange = own(this.exchange);
        let is_open = exchange.is_some();
        let mut next = None;
        let said = exchange::run(exchange, this.body.as_mut(), &mut next, |mut slot, next| {
            let Some(mut body) = slot.as_mut().as_pin_mut() else {
                // It has ended before.
                return Poll::Ready(None);
            };
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    *next = Some(Ok(frame));
                    Poll::Ready(is_open.then(|| Said::by(&*body)))
                }
                // Its destructors may defer, and belong to the request.
                Poll::Ready(Some(Err(error))) => {
                    *next = Some(Err(error));
                    slot.set(None);
                    Poll::Ready(None)
                }
                Poll::Ready(None) => {
                    slot.set(None);
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let Some(open) = exchange else {
            return said.map(|_| next);
        };
        match said {
            Poll::Pending => {
                open.keep_up();
                return Poll::Pending;
            }
            Poll::Ready(Some(said)) => open.gives_out(&mut next, said),
            Poll::Ready(None) => {
                let outcome = match next {
                    Some(Err(_)) => open.progress.outcome_of_error(),
                    _ => open.progress.outcome_of_end(),
                };
                if let Some(exchange) = exchange.take() {
                    exchange.close(outcome);
                }
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => self.asks(
                || body.is_end_stream(),
                |exchange, ended| exchange.progress.says_end(*ended),
            ),
            None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => self.asks(|| body.size_hint(), |_, _| {}),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B: Default> Default for AfterBody<B> {
    fn default() -> Self {
        AfterBody {
            body: Some(B::default()),
            exchange: Mutex::new(None),
        }
    }
}

impl<B> fmt::Debug for AfterBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what the lock has: it is held while the user's code runs, which may print this.
        f.debug_struct("AfterBody")
            .field("over", &self.body.is_none())
            .finish_non_exhaustive()
    }
}
