//! The body of a response, which the request ends with.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, MessageBody},
    dev::ServiceResponse,
    http::{Method, StatusCode},
    web::Bytes,
};
use after::{OpenScope, Outcome};

pin_project_lite::pin_project! {
    /// The body of a response of [`After`](super::After): gives out what the inner one does.
    ///
    /// The request is over when this has returned `None` or an error, or is dropped. It keeps the inner one's size.
    pub struct AfterBody<B> {
        // `Some` until it has ended, panicked, or is dropped.
        #[pin]
        body: Option<B>,
        // `Some` until the request is over.
        scope: Option<OpenScope>,
        size: BodySize,
        // How the request ends with its body.
        complete: Outcome,
        // How much of the body is to come before nothing is missing, if that is known.
        left: Option<u64>,
    }

    impl<B> PinnedDrop for AfterBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let outcome = match this.left {
                Some(0) => *this.complete,
                _ => Outcome::Cancelled,
            };
            if let Some(mut scope) = this.scope.take() {
                scope.clean_up("the body of a response", || this.body.set(None));
                scope.end(outcome);
            }
        }
    }
}

/// The scope goes on in the body.
pub(crate) fn in_scope<B: MessageBody>(
    response: ServiceResponse<B>,
    mut scope: OpenScope,
    failed: Option<fn(StatusCode) -> bool>,
) -> ServiceResponse<AfterBody<B>> {
    let status = response.status();
    let is_failure = failed.map_or(status.as_u16() >= 400, |failed| {
        scope.enter(|| failed(status))
    });
    // The answers that have no content, whatever their body says.
    let is_empty = response.request().method() == Method::HEAD
        || status.is_informational()
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    response.map_body(|_, body| {
        let size = scope.enter(|| body.size());
        AfterBody {
            body: Some(body),
            scope: Some(scope),
            size,
            complete: match is_failure {
                true => Outcome::Failed,
                false => Outcome::Finished,
            },
            left: match size {
                _ if is_empty => Some(0),
                BodySize::None => Some(0),
                BodySize::Sized(size) => Some(size),
                BodySize::Stream => None,
            },
        }
    })
}

impl<B: MessageBody> MessageBody for AfterBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        let mut this = self.project();
        let Some(scope) = this.scope else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            scope.enter(|| {
                let polled = match this.body.as_mut().as_pin_mut() {
                    Some(body) => body.poll_next(cx),
                    None => Poll::Ready(None),
                };
                if !matches!(polled, Poll::Pending | Poll::Ready(Some(Ok(_)))) {
                    // Its destructors may defer, and belong to the request.
                    this.body.set(None);
                }
                polled
            })
        }));
        let outcome = match &polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(Some(Ok(chunk)))) => {
                *this.left = this
                    .left
                    .map(|left| left.saturating_sub(chunk.len() as u64));
                None
            }
            Ok(Poll::Ready(Some(Err(_)))) => Some(Outcome::Failed),
            // Less than was announced: the client's answer is broken.
            Ok(Poll::Ready(None)) if this.left.is_some_and(|left| left > 0) => {
                Some(Outcome::Failed)
            }
            Ok(Poll::Ready(None)) => Some(*this.complete),
            Err(_) => Some(Outcome::Panicked),
        };
        if let (Some(outcome), Some(scope)) = (outcome, this.scope.take_if(|_| outcome.is_some())) {
            scope.end(outcome);
        }
        polled.unwrap_or_else(|payload| resume_unwind(payload))
    }
}

impl<B> fmt::Debug for AfterBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterBody")
            .field("over", &self.scope.is_none())
            .finish_non_exhaustive()
    }
}
