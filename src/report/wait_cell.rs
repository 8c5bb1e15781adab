//! A value that others wait for.

use std::{
    collections::BTreeMap,
    mem,
    task::{Poll, Waker},
};

use super::waker::{WakeList, drop_waker};
use crate::sync::{Mutex, lock};

/// A value, and the wakers of those who wait for it to change, by a number for each.
///
/// The value is read and changed under a lock, by code of ours. Wakers are the user's code: they are cloned and dropped
/// when it is unlocked, and woken by the caller, when what he has locked himself is unlocked too.
#[derive(Default)]
pub(crate) struct WaitCell<T> {
    state: Mutex<Waited<T>>,
}

#[derive(Default)]
struct Waited<T> {
    value: T,
    wakers: WakerMap,
}

/// The number of one who waits alone.
pub(crate) const ALONE: u64 = 0;

impl<T> WaitCell<T> {
    /// Reads the value, or changes what nobody waits for.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut lock(&self.state).value)
    }

    /// Changes the value, for all who wait.
    pub(crate) fn change(&self, f: impl FnOnce(&mut T)) -> WakeList {
        let mut state = lock(&self.state);
        f(&mut state.value);
        state.wakers.take()
    }

    /// What `look` sees. If one waits for more, the next change wakes.
    pub(crate) fn look<R>(
        &self,
        who: u64,
        waker: &Waker,
        look: impl FnOnce(&mut T) -> R,
        waits: impl FnOnce(&R) -> bool,
    ) -> R {
        let waker = waker.clone();
        let mut state = lock(&self.state);
        let seen = look(&mut state.value);
        let unused = match waits(&seen) {
            true => state.wakers.set(who, waker),
            false => Some(waker),
        };
        drop(state);
        drop_waker(unused);
        seen
    }

    /// What `look` sees, to wait while it is pending.
    pub(crate) fn poll<R>(
        &self,
        who: u64,
        waker: &Waker,
        look: impl FnOnce(&mut T) -> Poll<R>,
    ) -> Poll<R> {
        self.look(who, waker, look, Poll::is_pending)
    }

    /// What `look` sees, to wait for more whatever it is.
    pub(crate) fn watch<R>(&self, who: u64, waker: &Waker, look: impl FnOnce(&mut T) -> R) -> R {
        self.look(who, waker, look, |_| true)
    }

    /// One waits no longer.
    pub(crate) fn leave(&self, who: u64) {
        drop_waker(self.take_waker(who));
    }

    /// The same under a lock of the caller's, who drops the waker after it.
    #[must_use]
    pub(crate) fn take_waker(&self, who: u64) -> Option<Waker> {
        lock(&self.state).wakers.remove(who)
    }

    /// One waits no longer, and any other is to look instead.
    pub(crate) fn leave_to_another(&self, who: u64) -> WakeList {
        let mut state = lock(&self.state);
        let own = state.wakers.remove(who);
        let other = state.wakers.pop();
        drop(state);
        drop_waker(own);
        WakeList::from_iter(other)
    }
}

impl<T> Drop for Waited<T> {
    fn drop(&mut self) {
        // This may be the last of a batch, whose own drop never panics.
        while let Some(waker) = self.wakers.pop() {
            drop_waker(Some(waker));
        }
    }
}

/// What it gives back is to be dropped, or woken, when nothing is locked.
#[derive(Default)]
struct WakerMap {
    /// As a rule there is one, which needs no memory of its own.
    one: Option<(u64, Waker)>,
    others: BTreeMap<u64, Waker>,
}

impl WakerMap {
    /// Gives back the one before.
    #[must_use]
    fn set(&mut self, id: u64, waker: Waker) -> Option<Waker> {
        match &mut self.one {
            Some((own, before)) if *own == id => Some(mem::replace(before, waker)),
            None if !self.others.contains_key(&id) => {
                self.one = Some((id, waker));
                None
            }
            _ => self.others.insert(id, waker),
        }
    }

    #[must_use]
    fn remove(&mut self, id: u64) -> Option<Waker> {
        match self.one.take_if(|(own, _)| *own == id) {
            Some((_, waker)) => Some(waker),
            None => self.others.remove(&id),
        }
    }

    /// Any one of them.
    #[must_use]
    fn pop(&mut self) -> Option<Waker> {
        let one = self.one.take().or_else(|| self.others.pop_first());
        one.map(|(_, waker)| waker)
    }

    fn take(&mut self) -> WakeList {
        let one = self.one.take().map(|(_, waker)| waker);
        match self.others.is_empty() {
            // As a rule: to take an empty map apart costs more than the rest.
            true => WakeList::from_iter(one),
            false => {
                let others = mem::take(&mut self.others).into_values();
                one.into_iter().chain(others).collect()
            }
        }
    }
}
