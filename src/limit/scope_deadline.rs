//! The time limit of all tasks of one request: one sleep, shared by its batch and those that were split off it.
//!
//! It is made at the hand-over, so that it is exact on any clock. Whichever member is polled polls it; the one that finds
//! it fired wakes the others. A member that leaves wakes another, because the sleep may know the waker of the first alone.

use std::{mem, sync::Arc, task::Context, time::Duration};

use super::sleep::{Sleep, poll_sleep};
use crate::report::{ALONE, Payload, WaitCell};

#[derive(Default)]
struct SharedDeadline {
    begun: bool,
    over: bool,
    /// `None` before it has begun, while a member polls it, and after it has fired.
    sleep: Option<Sleep>,
    members: u64,
}

/// One batch's part in the time of its scope.
pub(crate) struct ScopeDeadline {
    time: Arc<WaitCell<SharedDeadline>>,
    member: u64,
    /// The time is over, and the batch has ended what it could.
    pub(crate) seen: bool,
}

/// What a turn of a member polls. Apart from it, because the sleep is the user's code, and the member is in what must not
/// be taken out meanwhile.
pub(crate) struct Watch {
    time: Arc<WaitCell<SharedDeadline>>,
    member: u64,
}

impl ScopeDeadline {
    /// Of a time that has not begun.
    pub(crate) fn new() -> Self {
        ScopeDeadline {
            time: Arc::default(),
            member: ALONE,
            seen: false,
        }
    }

    /// For a batch that is split off.
    pub(crate) fn share(&self) -> Self {
        let member = self.time.with(|time| {
            time.members += 1;
            time.members
        });
        ScopeDeadline {
            time: self.time.clone(),
            member,
            seen: false,
        }
    }

    /// The hand-over. `make` makes the sleep, and is the user's code.
    pub(crate) fn begin(&self, make: impl FnOnce() -> Sleep) {
        if self.time.with(|time| mem::replace(&mut time.begun, true)) {
            return;
        }
        let sleep = make();
        self.time.with(|time| time.sleep = Some(sleep));
    }

    /// The batch goes to another spawner than the one that made the sleep.
    pub(crate) fn begin_again(&self, sleep: Sleep) {
        let before = self.time.with(|time| match &mut time.sleep {
            Some(before) => mem::replace(before, sleep),
            // Another member polls it, or it has fired.
            None => sleep,
        });
        drop(before);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.time.with(|time| time.over)
    }

    /// Nothing once the end of the time was seen: what joins later is ended as it joins.
    pub(crate) fn watch(&self) -> Option<Watch> {
        let watch = || Watch {
            time: self.time.clone(),
            member: self.member,
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
        let look = |time: &mut SharedDeadline| (time.over, time.sleep.take());
        let seen = self
            .time
            .look(self.member, cx.waker(), look, |(over, _)| !over);
        let mut sleep = match seen {
            (true, _) => return true,
            // Another member is polling it, and will wake us when it has fired.
            (false, None) => return false,
            (false, Some(sleep)) => sleep,
        };
        let fired = poll_sleep(&mut sleep, limit, cx, broken);
        if !fired {
            self.time.with(|time| time.sleep = Some(sleep));
            return false;
        }
        self.time.change(|time| time.over = true).wake();
        true
    }
}

impl Drop for ScopeDeadline {
    fn drop(&mut self) {
        self.time.leave_to_another(self.member).wake();
    }
}
