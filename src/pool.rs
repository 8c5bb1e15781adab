//! Boxes that a thread keeps for the next use: to make and to drop one is the dearest part of the little that is done with
//! it.

use std::cell::Cell;

/// Empty boxes, `MOST` of them at the most. For a thread-local.
pub(crate) struct Pool<T, const MOST: usize> {
    boxes: [Cell<Option<Box<T>>>; MOST],
    len: Cell<usize>,
}

impl<T, const MOST: usize> Pool<T, MOST> {
    pub(crate) const fn new() -> Self {
        Pool {
            boxes: [const { Cell::new(None) }; MOST],
            len: Cell::new(0),
        }
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<Box<T>> {
        let top = self.len.get().checked_sub(1)?;
        self.len.set(top);
        self.boxes.get(top)?.take()
    }

    /// Keeps a box, or drops it, if there are enough. Nothing may be in it whose destructor is the user's code.
    #[inline]
    pub(crate) fn keep(&self, spare: Box<T>) {
        let len = self.len.get();
        if let Some(place) = self.boxes.get(len) {
            place.set(Some(spare));
            self.len.set(len + 1);
        }
    }
}
