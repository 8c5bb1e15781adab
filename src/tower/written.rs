//! "The server has let go of the last byte", for [`RunAfter::Written`](super::RunAfter::Written).
//!
//! Each data frame is given out as the `Bytes` of an owner that has a guard of the request's scope. The request ends
//! with its body, as with [`RunAfter::Body`](super::RunAfter::Body); its batch waits for the guards.

use bytes::Bytes;
use http_body::Frame;

use crate::{OpenScope, StartGuard};

/// A frame is about to be given out. Never inlined, so that whoever waits for no last byte does not move the frame.
#[inline(never)]
pub(super) fn guard<E>(next: &mut Option<Result<Frame<Bytes>, E>>, scope: &mut OpenScope) {
    let guarded = |frame: Frame<Bytes>| frame.map_data(|data| guarded(data, scope));
    *next = next.take().map(|next| next.map(guarded));
}

/// A frame's data, which counts as unwritten until the server drops it.
fn guarded(data: Bytes, scope: &mut OpenScope) -> Bytes {
    if data.is_empty() {
        return data;
    }
    Bytes::from_owner(Guard {
        data,
        _unwritten: scope.start_guard(),
    })
}

struct Guard {
    // First, so that the data is gone when the tasks may start.
    data: Bytes,
    _unwritten: StartGuard,
}

impl AsRef<[u8]> for Guard {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
