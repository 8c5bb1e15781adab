//! Waking any number of waiters at a moment that they must not miss.
//!
//! A counter of epochs and the wakers of those who wait for the next. They are woken outside the lock: lists that wake
//! under theirs deadlock when a waker drops another listener.

use std::{
    sync::PoisonError,
    task::{Context, Poll},
};

use crate::{
    report::{WakeList, WakerMap, drop_waker},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Default)]
pub(crate) struct Event {
    /// Changed under the lock.
    epoch: AtomicU64,
    state: Mutex<EventState>,
}

#[derive(Default)]
struct EventState {
    next_listener: u64,
    wakers: WakerMap,
}

/// One who waits. To be given back with `leave`.
pub(crate) struct Listener {
    id: u64,
    /// The epoch in which it came.
    before: u64,
}

impl Event {
    fn lock(&self) -> MutexGuard<'_, EventState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listen(&self) -> Listener {
        let mut state = self.lock();
        state.next_listener += 1;
        Listener {
            id: state.next_listener,
            // Relaxed: it is changed under the lock that we hold.
            before: self.epoch.load(Ordering::Relaxed),
        }
    }

    /// Whether another epoch has begun since the listener was made. Acquire, with the Release in `notify_all`: who sees the
    /// epoch sees what was done before it.
    fn has_come(&self, listener: &Listener) -> bool {
        self.epoch.load(Ordering::Acquire) != listener.before
    }

    /// Ready if another epoch has begun since the listener was made.
    pub(crate) fn poll(&self, listener: &Listener, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_come(listener) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let mut state = self.lock();
        if self.has_come(listener) {
            drop(state);
            drop_waker(Some(waker));
            return Poll::Ready(());
        }
        let before = state.wakers.set(listener.id, waker);
        drop(state);
        drop_waker(before);
        Poll::Pending
    }

    pub(crate) fn leave(&self, listener: &Listener) {
        // With the epoch all wakers have gone.
        if !self.has_come(listener) {
            let waker = self.lock().wakers.remove(listener.id);
            drop_waker(waker);
        }
    }

    /// Begins an epoch. May be called under locks; the wakers are woken after them.
    pub(crate) fn notify_all(&self) -> WakeList {
        let mut state = self.lock();
        self.epoch.fetch_add(1, Ordering::Release);
        state.wakers.take()
    }
}
