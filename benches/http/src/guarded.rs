//! What a careful user writes by hand: a body that starts something when it is dropped.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{Error, body::Body};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;

/// Gives out what `body` does, and calls `then` on the runtime when it is dropped.
pub(crate) struct Guarded<F: FnOnce(Handle)> {
    body: Body,
    then: Option<F>,
}

impl<F: FnOnce(Handle)> Guarded<F> {
    pub(crate) fn new(body: Body, then: F) -> Self {
        let then = Some(then);
        Guarded { body, then }
    }
}

impl<F: FnOnce(Handle)> Drop for Guarded<F> {
    fn drop(&mut self) {
        // Where no runtime is, `tokio::spawn` would panic, and abort if something unwinds already.
        if let (Some(then), Ok(runtime)) = (self.then.take(), Handle::try_current()) {
            then(runtime);
        }
    }
}

impl<F: FnOnce(Handle) + Unpin> http_body::Body for Guarded<F> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
