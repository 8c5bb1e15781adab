//! Panics of the user's code, which must not hurt its neighbours.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What a panic has said.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Runs a user's code that may panic. What it leaves half done is dropped by the callers, never used again.
#[inline]
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_unwind(AssertUnwindSafe(f))
}

/// What a panic said, if it said something in words.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}

/// Drops a panic's payload, whose destructor may panic in turn.
pub(crate) fn forget_payload(payload: Payload) {
    if let Err(second) = catch(|| drop(payload)) {
        mem::forget(second);
    }
}

/// Runs a user's code of whose panic nobody is to be told.
#[inline]
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch(f) {
        forget_payload(payload);
    }
}

/// Drops what is the user's, in the same way.
pub(crate) fn drop_silently<T>(value: T) {
    quietly(|| drop(value));
}
