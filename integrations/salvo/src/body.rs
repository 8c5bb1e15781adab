//! The layer's body, as the framework takes it.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use after::tower::AfterBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use salvo_core::BoxedError;

/// salvo's bodies are `Sync`. Nobody ever waits for this lock: who polls has the body alone.
pub(crate) struct SyncBody<B>(Mutex<Pin<Box<AfterBody<B>>>>);

impl<B> SyncBody<B> {
    pub(crate) fn new(body: AfterBody<B>) -> Self {
        SyncBody(Mutex::new(Box::pin(body)))
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for SyncBody<B>
where
    B::Error: Into<BoxedError>,
{
    type Data = Bytes;
    type Error = BoxedError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxedError>>> {
        let body = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        body.as_mut().poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.size_hint()
    }
}
