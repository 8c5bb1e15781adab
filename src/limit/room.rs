//! The wait for room: scopes that may wait before their answer wait in their order.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{limit::Limit, place::Place};
use crate::{
    report::{ALONE, WaitCell, WakeList, drop_waker},
    sync::lock,
};

/// A scope's turn, until it is granted or given up.
pub(crate) struct RoomRequest {
    pub(crate) tasks: usize,
    /// How many tasks had been accepted when it came that could not wait.
    pub(crate) unasked: u64,
    pub(crate) granted: Arc<WaitCell<bool>>,
}

impl RoomRequest {
    /// How many tasks were accepted since it came that could not wait, now that there were so many in all.
    pub(crate) fn behind(&self, unasked: u64) -> usize {
        usize::try_from(unasked - self.unasked).unwrap_or(usize::MAX)
    }
}

impl Limit {
    /// Room for the tasks of a scope that can wait for it.
    pub(crate) fn room(self: &Arc<Self>, tasks: usize) -> Room {
        let mut state = lock(&self.state);
        let number = state.next_number();
        let granted = Arc::<WaitCell<bool>>::default();
        self.lose_patience(&mut state);
        let mut wakers = WakeList::default();
        if state.rooms.is_empty() && self.fits(&state, tasks, 0) {
            state.waiting += tasks;
            granted.with(|granted| *granted = true);
        } else {
            let request = RoomRequest {
                tasks,
                unasked: state.unasked,
                granted: granted.clone(),
            };
            state.rooms.insert(number, request);
            wakers = self.come_by(&mut state);
        }
        drop(state);
        wakers.wake();
        Room {
            limit: self.clone(),
            tasks,
            number,
            granted,
            used: false,
        }
    }
}

/// A scope's wait for room. Dropped, it gives up its turn, or the place that it has got.
pub(crate) struct Room {
    limit: Arc<Limit>,
    tasks: usize,
    number: u64,
    granted: Arc<WaitCell<bool>>,
    used: bool,
}

impl Room {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let granted = &self.granted;
        granted.poll(ALONE, cx.waker(), |granted| match granted {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }

    /// The place, when the wait is over.
    pub(crate) fn take(mut self) -> Place {
        debug_assert!(self.granted.with(|granted| *granted), "no room yet");
        self.used = true;
        Place {
            limit: self.limit.clone(),
            tasks: self.tasks,
            lender: None,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        let mut state = lock(&self.limit.state);
        let waker = self.granted.take_waker(ALONE);
        if state.rooms.remove(&self.number).is_none() {
            // It was granted.
            state.waiting -= self.tasks;
        }
        // The next scope may fit where this one did not.
        let wakers = self.limit.grant(&mut state);
        drop(state);
        drop_waker(waker);
        wakers.wake();
    }
}
