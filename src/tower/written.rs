//! "The server has let go of the last byte", for [`HandOver::Written`](super::HandOver::Written).
//!
//! Each data frame is given out as the `Bytes` of a guard. The guards and the body share one [`Unwritten`]; the last of
//! them to go hands over.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::{batch::Batch, limit::Room, sync::Mutex};

/// What the data frames of one response share.
#[derive(Default)]
pub(super) struct Unwritten {
    /// `Some` from the end of the body on.
    tasks: Mutex<Option<(Batch, Option<Room>)>>,
}

impl Unwritten {
    /// The body has ended. The last frame to go, or else the caller's reference, hands over.
    pub(super) fn keep(self: Arc<Self>, batch: Batch, room: Option<Room>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        *tasks = Some((batch, room));
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((batch, room)) = tasks.take() {
            release(batch, room);
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
