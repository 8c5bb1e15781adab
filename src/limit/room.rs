//! The wait for room: scopes that may wait before their answer wait in their order.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{limit::Limit, place::Place, wait_queue::Member};
use crate::{
    report::{ALONE, WaitCell, WakeList, drop_waker},
    sync::{
        atomic::{AtomicBool, Ordering},
        lock,
    },
};

pub(crate) struct RoomEntry {
    pub(crate) tasks: usize,
    /// How many tasks had been accepted when it came that could not wait.
    pub(crate) unasked: u64,
    pub(crate) left: AtomicBool,
    pub(crate) granted: WaitCell<bool>,
}

impl RoomEntry {
    /// How many tasks were accepted since it came that could not wait, now that there were so many in all.
    pub(crate) fn behind(&self, unasked: u64) -> usize {
        usize::try_from(unasked - self.unasked).unwrap_or(usize::MAX)
    }
}

impl Member for Arc<RoomEntry> {
    fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

impl Limit {
    /// Room for the tasks of a scope that can wait for it.
    pub(crate) fn room(self: &Arc<Self>, tasks: usize) -> Room {
        let mut state = lock(&self.state);
        let entry = Arc::new(RoomEntry {
            tasks,
            unasked: state.unasked,
            left: AtomicBool::new(false),
            granted: WaitCell::default(),
        });
        self.lose_patience(&mut state);
        let mut wakers = WakeList::default();
        if state.rooms.len() == 0 && self.fits(&state, tasks, 0) {
            state.waiting += tasks;
            entry.granted.with(|granted| *granted = true);
        } else {
            state.rooms.push(entry.clone());
            wakers = self.come_by(&mut state);
        }
        drop(state);
        wakers.wake();
        Room {
            limit: self.clone(),
            entry,
            used: false,
        }
    }
}

/// A scope's wait for room. Dropped, it gives up its turn, or the place that it has got.
pub(crate) struct Room {
    limit: Arc<Limit>,
    entry: Arc<RoomEntry>,
    used: bool,
}

impl Room {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let granted = &self.entry.granted;
        granted.poll(ALONE, cx.waker(), |granted| match granted {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }

    fn is_granted(&self) -> bool {
        self.entry.granted.with(|granted| *granted)
    }

    /// The place, when the wait is over.
    pub(crate) fn take(mut self) -> Place {
        debug_assert!(self.is_granted(), "there is no room yet");
        self.used = true;
        Place {
            limit: self.limit.clone(),
            tasks: self.entry.tasks,
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
        let waker = self.entry.granted.take_waker(ALONE);
        if self.is_granted() {
            state.waiting -= self.entry.tasks;
        } else {
            self.entry.left.store(true, Ordering::Relaxed);
            state.rooms.leaves(1);
        }
        // The next scope may fit where this one did not.
        let wakers = self.limit.grant(&mut state);
        drop(state);
        drop_waker(waker);
        wakers.wake();
    }
}
