//! Waking any number of waiters at a moment that they must not miss.
//!
//! A counter of moments and the wakers of those who wait for the next. They are woken outside the lock: lists that
//! wake under theirs deadlock when a waker drops another waiter.

use std::{
    collections::BTreeMap,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use crate::{
    report::{Wakers, drop_waker},
    sync::{Mutex, MutexGuard},
};

#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    moments: u64,
    next_waiter: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// One who waits. To be given back with `leave`.
pub(crate) struct Waiter {
    id: u64,
    /// How many moments there were when it came.
    before: u64,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn waiter(&self) -> Waiter {
        let mut state = self.lock();
        state.next_waiter += 1;
        Waiter {
            id: state.next_waiter,
            before: state.moments,
        }
    }

    /// Ready if the moment has come since the waiter was made.
    pub(crate) fn poll(&self, waiter: &Waiter, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut state = self.lock();
        if state.moments != waiter.before {
            drop(state);
            drop_waker(Some(waker));
            return Poll::Ready(());
        }
        let before = state.wakers.insert(waiter.id, waker);
        drop(state);
        drop_waker(before);
        Poll::Pending
    }

    pub(crate) fn leave(&self, waiter: &Waiter) {
        let waker = self.lock().wakers.remove(&waiter.id);
        drop_waker(waker);
    }

    /// The moment has come. May be called under locks; the wakers are woken after them.
    pub(crate) fn advance(&self) -> Wakers {
        let mut state = self.lock();
        state.moments += 1;
        std::mem::take(&mut state.wakers).into_values().collect()
    }
}
