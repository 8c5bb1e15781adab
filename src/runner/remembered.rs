//! The runtime that a Runner remembers, for hand-overs where none is current.

use std::{mem, sync::PoisonError};

use super::runtime::DetectedRuntime;
use crate::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// The first runtime that was seen and has not gone, as far as is known.
#[derive(Default)]
pub(crate) struct RememberedRuntime {
    /// Whether there is one: all that a request looks at.
    any: AtomicBool,
    runtime: Mutex<DetectedRuntime>,
}

impl RememberedRuntime {
    /// Relaxed: a hint, which the lock of `runtime` settles. Who sees it too late takes that lock once in vain, or asks
    /// for the current runtime once more.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Another thread may be first: either will do.
    #[cold]
    pub(super) fn remember(&self, runtime: &DetectedRuntime) {
        let runtime = runtime.clone();
        let mut seen = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not needed goes when nothing is locked.
        let _unused = match seen.is_nothing() {
            true => mem::replace(&mut *seen, runtime),
            false => runtime,
        };
        self.any.store(true, Ordering::Relaxed);
        drop(seen);
    }

    #[cold]
    pub(crate) fn get(&self) -> DetectedRuntime {
        let seen = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    pub(super) fn forget(&self) {
        let mut seen = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let _before = mem::take(&mut *seen);
        self.any.store(false, Ordering::Relaxed);
        drop(seen);
    }
}
