//! "The server has let go of the last byte", for [`RunAfter::Written`](super::RunAfter::Written).
//!
//! Each data frame is given out as the `Bytes` of a guard with a hold on the gate of its request. The body has the first
//! hold. The request ends with its body, as with [`RunAfter::Body`](super::RunAfter::Body); its batch waits for the gate.

use bytes::Bytes;

use crate::runner::gate::Hold;

/// A frame's data, which counts as unwritten until the server drops it.
pub(super) fn guarded(data: Bytes, hold: &Hold) -> Bytes {
    if data.is_empty() {
        return data;
    }
    Bytes::from_owner(Guard {
        data,
        _hold: hold.clone(),
    })
}

struct Guard {
    // First, so that the data is gone when the gate is opened.
    data: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Guard {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
