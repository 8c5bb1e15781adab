//! "The server has let go of the last byte", for [`RunAfter::Written`](super::RunAfter::Written).
//!
//! Each data frame is given out as the `Bytes` of a guard. The guards and the body share one [`Unwritten`]; the last of
//! them to go hands over.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::{
    batch::Batch,
    limit::Room,
    outcome::{Order, Outcome},
    registry::Registry,
    sync::Mutex,
};

/// What the data frames of one response share.
#[derive(Default)]
pub(super) struct Unwritten {
    /// `Some` from the end of the body on.
    ended: Mutex<Option<Ended>>,
}

/// A request that is over, or will be with its last byte. Until then its registry is open: what comes through a handle
/// meanwhile is handed over with the rest.
pub(super) struct Ended {
    pub(super) registry: Registry,
    pub(super) outcome: Outcome,
    pub(super) order: Option<Order>,
    pub(super) room: Option<Room>,
}

impl Ended {
    #[inline]
    pub(super) fn hand_over(self) {
        let batch = Batch::collect(&self.registry, self.outcome, self.order);
        release(batch, self.room);
    }
}

impl Unwritten {
    /// The body has ended. The last frame to go, or else the caller's reference, hands over.
    pub(super) fn keep(self: Arc<Self>, request: Ended) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended = Some(request);
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = ended.take() {
            request.hand_over();
        }
    }
}

/// Hands over, with the room that was promised if there was one.
#[inline]
pub(super) fn release(batch: Batch, room: Option<Room>) {
    match room {
        // With nothing to hand over, the room is given back by being dropped.
        Some(room) if !batch.is_done() => batch.release_promised(room),
        _ => batch.release(),
    }
}

/// A frame's data, which counts as unwritten until the server drops it.
pub(super) fn guarded(data: Bytes, unwritten: &Arc<Unwritten>) -> Bytes {
    if data.is_empty() {
        return data;
    }
    Bytes::from_owner(Guard {
        data,
        _unwritten: unwritten.clone(),
    })
}

struct Guard {
    // First, so that the data is gone before the tasks are handed over.
    data: Bytes,
    _unwritten: Arc<Unwritten>,
}

impl AsRef<[u8]> for Guard {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
