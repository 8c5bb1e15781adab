//! The body of a response, which the request ends with.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use after::{OpenScope, Outcome};
use rocket::{
    response::Body,
    tokio::io::{AsyncRead, AsyncSeek, ReadBuf},
};

/// Reads what the inner body does, with the scope current.
pub(crate) struct AfterBody<'r> {
    body: Option<Body<'r>>,
    /// `Some` until the request is over.
    scope: Option<OpenScope>,
    /// How the request ends with its body.
    complete: Outcome,
    /// How much is to come before nothing is missing, if that is known.
    left: Option<usize>,
}

impl<'r> AfterBody<'r> {
    pub(crate) fn new(
        body: Body<'r>,
        scope: OpenScope,
        complete: Outcome,
        size: Option<usize>,
    ) -> Self {
        AfterBody {
            body: Some(body),
            scope: Some(scope),
            complete,
            left: size,
        }
    }

    /// The inner body is dropped in the scope, because its destructors may defer.
    fn end(&mut self, outcome: Outcome) {
        if let Some(mut scope) = self.scope.take() {
            scope.clean_up("the body of a response", || self.body = None);
            scope.end(outcome);
        }
    }
}

impl AsyncRead for AfterBody<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (Some(body), Some(scope)) = (&mut this.body, &mut this.scope) else {
            return Poll::Ready(Ok(()));
        };
        let before = buffer.filled().len();
        let read = || scope.enter(|| Pin::new(body).poll_read(cx, buffer));
        let polled = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(polled) => polled,
            Err(payload) => {
                this.end(Outcome::Panicked);
                resume_unwind(payload)
            }
        };
        let read = buffer.filled().len() - before;
        this.left = this.left.map(|left| left.saturating_sub(read));
        match &polled {
            Poll::Ready(Err(_)) => this.end(Outcome::Failed),
            // The end, unless there was no room to read into.
            Poll::Ready(Ok(())) if read == 0 && buffer.remaining() > 0 => {
                // Less than was announced: the client's answer is broken.
                let is_broken = this.left.is_some_and(|left| left > 0);
                this.end(if is_broken {
                    Outcome::Failed
                } else {
                    this.complete
                });
            }
            _ => {}
        }
        polled
    }
}

/// Rocket seeks to find out the size alone, which is known here.
impl AsyncSeek for AfterBody<'_> {
    fn start_seek(self: Pin<&mut Self>, _position: io::SeekFrom) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn poll_complete(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Drop for AfterBody<'_> {
    fn drop(&mut self) {
        let outcome = match self.left {
            Some(0) => self.complete,
            _ => Outcome::Cancelled,
        };
        self.end(outcome);
    }
}
