//! Waking any number of waiters at a moment that they must not miss.
//!
//! A counter of epochs and the wakers of those who wait for the next. They are woken outside the lock: lists that wake
//! under theirs deadlock when a waker drops another listener.

use std::{
    collections::BTreeMap,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use crate::{
    report::{WakeList, drop_waker},
    sync::{Mutex, MutexGuard},
};

#[derive(Default)]
pub(crate) struct Event {
    state: Mutex<EventState>,
}

#[derive(Default)]
struct EventState {
    epoch: u64,
    next_listener: u64,
    wakers: BTreeMap<u64, Waker>,
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
            before: state.epoch,
        }
    }

    /// Ready if another epoch has begun since the listener was made.
    pub(crate) fn poll(&self, listener: &Listener, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut state = self.lock();
        if state.epoch != listener.before {
            drop(state);
            drop_waker(Some(waker));
            return Poll::Ready(());
        }
        let before = state.wakers.insert(listener.id, waker);
        drop(state);
        drop_waker(before);
        Poll::Pending
    }

    pub(crate) fn leave(&self, listener: &Listener) {
        let waker = self.lock().wakers.remove(&listener.id);
        drop_waker(waker);
    }

    /// Begins an epoch. May be called under locks; the wakers are woken after them.
    pub(crate) fn notify_all(&self) -> WakeList {
        let mut state = self.lock();
        state.epoch += 1;
        std::mem::take(&mut state.wakers).into_values().collect()
    }
}
