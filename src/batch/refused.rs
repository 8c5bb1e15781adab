//! The batch that is being given to a runtime on this thread, and whether that has refused it by dropping it.

use std::{cell::Cell, ptr};

use crate::runner::ScopeState;

// A model of loom has one thread for all of its own. None has a Runner that looks for a runtime.
thread_local! {
    /// The address of the state, which is in one box all the way, of the batch that is inside `spawn` on this thread.
    /// Without a destructor, so that it works in those of other thread-locals.
    static OFFERED: Cell<usize> = const { Cell::new(NOTHING) };
    /// The same, if it was dropped there.
    static REFUSED: Cell<Option<Box<ScopeState>>> = const { Cell::new(None) };
}

/// What is at no address: nothing is offered, or it is in `REFUSED`.
const NOTHING: usize = 0;
const REFUSES: usize = 1;

fn address(state: &ScopeState) -> usize {
    ptr::from_ref(state).addr()
}

/// Calls `give`, which does not unwind, with a batch; gives the batch back if it was refused.
#[inline]
pub(super) fn offering<R>(
    batch: Box<ScopeState>,
    give: impl FnOnce(Box<ScopeState>) -> R,
) -> (R, Option<Box<ScopeState>>) {
    let before = OFFERED.replace(address(&batch));
    // One that was refused in a call around this one, which has not returned yet.
    let outer = match before {
        REFUSES => REFUSED.take(),
        _ => None,
    };
    let given = give(batch);
    // At once: what the caller reports is the user's code, and may hand over others.
    let refused = match OFFERED.replace(before) {
        REFUSES => REFUSED.take(),
        _ => None,
    };
    if outer.is_some() {
        REFUSED.set(outer);
    }
    (given, refused)
}

/// A batch is being dropped, and is to be lost: gives it back, unless it is one that was offered and is refused.
pub(super) fn unless_refused(state: Box<ScopeState>) -> Option<Box<ScopeState>> {
    if state.started || OFFERED.get() != address(&state) {
        return Some(state);
    }
    // An error where this thread's locals are being destroyed.
    if REFUSED.try_with(|_| ()).is_err() {
        return Some(state);
    }
    REFUSED.set(Some(state));
    OFFERED.set(REFUSES);
    None
}
