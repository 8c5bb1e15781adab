//! Wakers are the user's code: they are cloned, dropped and woken when nothing is locked, each on its own, so that one that
//! panics costs the others nothing.

use std::{collections::BTreeMap, mem, task::Waker};

use super::unwind::{catch, drop_silently, forget_payload};

/// Who is to be woken, once nothing is locked.
#[must_use]
#[derive(Default)]
pub(crate) struct WakeList {
    /// As a rule there is one, which needs no memory of its own.
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl WakeList {
    pub(crate) fn add(&mut self, waker: Option<Waker>) {
        match self.first {
            None => self.first = waker,
            Some(_) => self.others.extend(waker),
        }
    }

    pub(crate) fn wake(self) {
        for waker in self.first.into_iter().chain(self.others) {
            wake(waker);
        }
    }
}

impl FromIterator<Waker> for WakeList {
    fn from_iter<I: IntoIterator<Item = Waker>>(wakers: I) -> Self {
        let mut wakers = wakers.into_iter();
        WakeList {
            first: wakers.next(),
            others: wakers.collect(),
        }
    }
}

/// Wakes somebody whose waker may panic.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch(|| waker.wake()) {
        forget_payload(payload);
    }
}

/// As `wake`, for a waker that is kept.
#[inline]
pub(crate) fn wake_by_ref(waker: &Waker) {
    if let Err(payload) = catch(|| waker.wake_by_ref()) {
        forget_payload(payload);
    }
}

/// Drops a waker, whose destructor may be the last of somebody's future.
pub(crate) fn drop_waker(waker: Option<Waker>) {
    drop_silently(waker);
}

/// A waker that is kept for later. It goes without a panic when what keeps it is dropped: that may be the last of a batch,
/// whose own drop never panics.
#[derive(Default)]
pub(crate) struct KeptWaker {
    waker: Option<Waker>,
}

impl KeptWaker {
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

impl Drop for KeptWaker {
    fn drop(&mut self) {
        drop_waker(self.waker.take());
    }
}

/// The wakers of those who wait for one thing, by a number for each. What it gives back is to be dropped, or woken, when
/// nothing is locked.
#[derive(Default)]
pub(crate) struct WakerMap {
    /// As a rule there is one, which needs no memory of its own.
    one: Option<(u64, Waker)>,
    others: BTreeMap<u64, Waker>,
}

impl WakerMap {
    /// Gives back the one before.
    #[must_use]
    pub(crate) fn set(&mut self, id: u64, waker: Waker) -> Option<Waker> {
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
    pub(crate) fn remove(&mut self, id: u64) -> Option<Waker> {
        match self.one.take_if(|(own, _)| *own == id) {
            Some((_, waker)) => Some(waker),
            None => self.others.remove(&id),
        }
    }

    /// Any one of them.
    #[must_use]
    pub(crate) fn pop(&mut self) -> Option<Waker> {
        let one = self.one.take().or_else(|| self.others.pop_first());
        one.map(|(_, waker)| waker)
    }

    pub(crate) fn take(&mut self) -> WakeList {
        let WakerMap { one, others } = mem::take(self);
        let one = one.into_iter().map(|(_, waker)| waker);
        one.chain(others.into_values()).collect()
    }
}
