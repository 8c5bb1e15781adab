//! Waking any number of waiters at a moment that they must not miss.
//!
//! A counter of epochs, and those who wait for the next. They are woken outside the lock: lists that wake under theirs
//! deadlock when a waker drops another listener.

use std::task::{Context, Poll};

use crate::report::{WaitCell, WakeList};

#[derive(Default)]
pub(crate) struct Event {
    state: WaitCell<EventState>,
}

#[derive(Default)]
struct EventState {
    epoch: u64,
    listeners: u64,
}

/// One who waits. To be given back with `leave`.
pub(crate) struct Listener {
    number: u64,
    /// The epoch in which it came.
    before: u64,
}

impl Event {
    pub(crate) fn listen(&self) -> Listener {
        self.state.with(|state| {
            state.listeners += 1;
            Listener {
                number: state.listeners,
                before: state.epoch,
            }
        })
    }

    /// Ready if another epoch has begun since the listener was made.
    pub(crate) fn poll(&self, listener: &Listener, cx: &mut Context<'_>) -> Poll<()> {
        let look = |state: &mut EventState| match state.epoch == listener.before {
            true => Poll::Pending,
            false => Poll::Ready(()),
        };
        self.state.poll(listener.number, cx.waker(), look)
    }

    pub(crate) fn leave(&self, listener: &Listener) {
        self.state.leave(listener.number);
    }

    /// Begins an epoch. May be called under locks; the wakers are woken after them.
    pub(crate) fn notify_all(&self) -> WakeList {
        self.state.change(|state| state.epoch += 1)
    }
}
