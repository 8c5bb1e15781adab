//! The time limit of all tasks of one request: one sleep, shared by its batch and those that were split off it.
//!
//! It is made at the hand-over, so that it is exact on any clock. Whichever member is polled polls it; the one that finds
//! it fired wakes the others. A member that leaves wakes another, because the sleep may know the waker of the first alone.

use std::{
    sync::{Arc, PoisonError},
    task::Context,
    time::Duration,
};

use super::sleep::{Sleep, poll_sleep};
use crate::{
    report::{Payload, WakeList, WakerMap, drop_waker},
    sync::{Mutex, MutexGuard},
};

#[derive(Default)]
struct SharedDeadline {
    state: Mutex<DeadlineState>,
}

#[derive(Default)]
struct DeadlineState {
    begun: bool,
    over: bool,
    /// `None` before it has begun, while a member polls it, and after it has fired.
    sleep: Option<Sleep>,
    next_member: u64,
    wakers: WakerMap,
}

/// One batch's part in the time of its scope.
pub(crate) struct ScopeDeadline {
    time: Arc<SharedDeadline>,
    id: u64,
    /// The time is over, and the batch has ended what it could.
    pub(crate) seen: bool,
}

/// What a turn of a member polls. Apart from it, because the sleep is the user's code, and the member is in what must not
/// be taken out meanwhile.
pub(crate) struct Watch {
    time: Arc<SharedDeadline>,
    id: u64,
}

impl SharedDeadline {
    fn lock(&self) -> MutexGuard<'_, DeadlineState> {
        // No user code runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScopeDeadline {
    /// Of a time that has not begun.
    pub(crate) fn new() -> Self {
        ScopeDeadline {
            time: Arc::default(),
            id: 0,
            seen: false,
        }
    }

    /// For a batch that is split off.
    pub(crate) fn share(&self) -> Self {
        let mut state = self.time.lock();
        state.next_member += 1;
        ScopeDeadline {
            time: self.time.clone(),
            id: state.next_member,
            seen: false,
        }
    }

    /// The hand-over. `make` makes the sleep, and is the user's code.
    pub(crate) fn begin(&self, make: impl FnOnce() -> Sleep) {
        if std::mem::replace(&mut self.time.lock().begun, true) {
            return;
        }
        let sleep = make();
        self.time.lock().sleep = Some(sleep);
    }

    /// The batch goes to another spawner than the one that made the sleep.
    pub(crate) fn begin_again(&self, sleep: Sleep) {
        let mut state = self.time.lock();
        let before = match &mut state.sleep {
            Some(before) => std::mem::replace(before, sleep),
            // Another member polls it, or it has fired.
            None => sleep,
        };
        drop(state);
        drop(before);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.time.lock().over
    }

    /// Nothing once the end of the time was seen: what joins later is ended as it joins.
    pub(crate) fn watch(&self) -> Option<Watch> {
        let watch = || Watch {
            time: self.time.clone(),
            id: self.id,
        };
        (!self.seen).then(watch)
    }
}

impl Watch {
    /// Whether the time is over; otherwise the batch is woken when it is. A sleep that panics is `broken`.
    pub(crate) fn poll(
        &self,
        limit: Duration,
        cx: &mut Context<'_>,
        broken: impl Fn(Payload),
    ) -> bool {
        let waker = cx.waker().clone();
        let mut state = self.time.lock();
        if state.over {
            drop(state);
            drop_waker(Some(waker));
            return true;
        }
        let before = state.wakers.set(self.id, waker);
        let sleep = state.sleep.take();
        drop(state);
        drop_waker(before);
        // Another member is polling it, and will wake us when it has fired.
        let Some(mut sleep) = sleep else { return false };
        let fired = poll_sleep(&mut sleep, limit, cx, broken);
        let mut state = self.time.lock();
        if !fired {
            state.sleep = Some(sleep);
            return false;
        }
        state.over = true;
        let wakers = state.wakers.take();
        drop(state);
        wakers.wake();
        true
    }
}

impl Drop for ScopeDeadline {
    fn drop(&mut self) {
        let mut state = self.time.lock();
        let own = state.wakers.remove(self.id);
        let next = state.wakers.pop();
        drop(state);
        drop_waker(own);
        WakeList::from_iter(next).wake();
    }
}
