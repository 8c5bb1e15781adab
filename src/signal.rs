//! Waking any number of waiters at a moment that they must not miss.
//!
//! A counter of moments and the wakers of those who wait for the next. Wakers are the user's code: they are cloned,
//! dropped and woken outside the lock, each on its own, so that one that panics costs the others nothing. (Lists that
//! wake under their lock deadlock when a waker drops another waiter.)

use std::{
    collections::BTreeMap,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use crate::{
    report,
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

/// Who is to be woken, once nothing is locked.
#[must_use]
pub(crate) struct Wakers {
    list: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn wake(self) {
        for waker in self.list {
            wake(waker);
        }
    }
}

impl FromIterator<Waker> for Wakers {
    fn from_iter<I: IntoIterator<Item = Waker>>(wakers: I) -> Self {
        Wakers {
            list: wakers.into_iter().collect(),
        }
    }
}

/// Wakes somebody whose waker may panic.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = report::catch(|| waker.wake()) {
        report::forget_payload(payload);
    }
}

/// As `wake`, for a waker that is kept.
#[inline]
pub(crate) fn wake_by_ref(waker: &Waker) {
    if let Err(payload) = report::catch(|| waker.wake_by_ref()) {
        report::forget_payload(payload);
    }
}

/// Drops a waker, whose destructor may be the last of somebody's future.
pub(crate) fn drop_waker(waker: Option<Waker>) {
    if let Err(payload) = report::catch(|| drop(waker)) {
        report::forget_payload(payload);
    }
}

/// A waker that is kept for later. It goes without a panic when what keeps it is dropped: that may be the last of a batch,
/// whose own drop never panics.
#[derive(Default)]
pub(crate) struct Kept {
    waker: Option<Waker>,
}

impl Kept {
    /// Gives back the one before, to be dropped when nothing is locked.
    #[must_use]
    pub(crate) fn replace(&mut self, waker: Waker) -> Option<Waker> {
        self.waker.replace(waker)
    }

    pub(crate) fn take(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&Waker> {
        self.waker.as_ref()
    }

    #[inline]
    pub(crate) fn will_wake(&self, waker: &Waker) -> bool {
        self.waker.as_ref().is_some_and(|own| own.will_wake(waker))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop_waker(self.waker.take());
    }
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
