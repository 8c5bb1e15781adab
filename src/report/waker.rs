//! Wakers are the user's code: they are cloned, dropped and woken when nothing is locked, each on its own, so that one that
//! panics costs the others nothing.

use std::task::Waker;

use super::unwind::{drop_silently, quietly};

/// Who is to be woken, once nothing is locked.
#[must_use]
#[derive(Default)]
pub(crate) struct WakeList {
    /// As a rule there is one, which needs no memory of its own.
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl WakeList {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn append(&mut self, more: WakeList) {
        for waker in more.first.into_iter().chain(more.others) {
            match self.first {
                None => self.first = Some(waker),
                Some(_) => self.others.push(waker),
            }
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
    quietly(|| waker.wake());
}

/// As `wake`, for a waker that is kept.
#[inline]
pub(crate) fn wake_by_ref(waker: &Waker) {
    quietly(|| waker.wake_by_ref());
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
