//! Waking any number of waiters at a moment that they must not miss.
//!
//! A counter of epochs, and those who wait for the next. They are woken outside the lock: lists that wake under theirs
//! deadlock when a waker drops another listener.

use std::task::{Context, Poll};

use crate::{
    report::{WaitCell, WakeList},
    sync::atomic::{AtomicU64, Ordering},
};

#[derive(Default)]
pub(crate) struct Event {
    /// Changed under the lock of `waiting`, and read without it by those who need not wait.
    epoch: AtomicU64,
    listeners: AtomicU64,
    waiting: WaitCell<()>,
}

/// One who waits. To be given back with `leave`.
pub(crate) struct Listener {
    /// The epoch in which it came.
    before: u64,
    /// 0 until it has waited.
    number: u64,
}

impl Event {
    pub(crate) fn listen(&self) -> Listener {
        Listener {
            // Acquire, with the Release in `notify_all`: who listens too late for an epoch sees why it has begun.
            before: self.epoch.load(Ordering::Acquire),
            number: 0,
        }
    }

    /// Whether another epoch has begun since the listener was made. Acquire, with the Release in `notify_all`: who sees the
    /// epoch sees what was done before it.
    fn has_come(&self, listener: &Listener) -> bool {
        self.epoch.load(Ordering::Acquire) != listener.before
    }

    /// Ready if another epoch has begun since the listener was made.
    pub(crate) fn poll(&self, listener: &mut Listener, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_come(listener) {
            return Poll::Ready(());
        }
        if listener.number == 0 {
            // Relaxed: the number itself is all that is read.
            listener.number = self.listeners.fetch_add(1, Ordering::Relaxed) + 1;
        }
        self.waiting.poll(listener.number, cx.waker(), |()| {
            match self.has_come(listener) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }

    pub(crate) fn leave(&self, listener: &Listener) {
        // With the epoch all wakers have gone.
        if listener.number != 0 && !self.has_come(listener) {
            self.waiting.leave(listener.number);
        }
    }

    /// Begins an epoch. May be called under locks; the wakers are woken after them.
    pub(crate) fn notify_all(&self) -> WakeList {
        self.waiting.change(|()| {
            // Release, with the Acquire in `listen` and `has_come`.
            self.epoch.fetch_add(1, Ordering::Release);
        })
    }
}
