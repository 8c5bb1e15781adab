//! The wait for room: scopes that may wait before their answer wait in their order.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    limit::{Limit, lock},
    place::Place,
    wait_queue::Member,
};
use crate::{
    report::{KeptWaker, drop_waker},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) struct RoomEntry {
    pub(crate) tasks: usize,
    /// How many tasks had been accepted when it came that could not wait.
    pub(crate) unasked: u64,
    pub(crate) left: AtomicBool,
    pub(crate) state: Mutex<RoomState>,
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

#[derive(Default)]
pub(crate) struct RoomState {
    pub(crate) granted: bool,
    pub(crate) waker: KeptWaker,
}

impl Limit {
    /// Room for the tasks of a scope that can wait for it.
    pub(crate) fn room(self: &Arc<Self>, tasks: usize) -> Room {
        let mut state = lock(&self.state);
        let entry = Arc::new(RoomEntry {
            tasks,
            unasked: state.unasked,
            left: AtomicBool::new(false),
            state: Mutex::default(),
        });
        self.lose_patience(&mut state);
        let mut wakers = None;
        if state.rooms.len() == 0 && self.fits(&state, tasks, 0) {
            state.waiting += tasks;
            lock(&entry.state).granted = true;
        } else {
            state.rooms.push(entry.clone());
            wakers = Some(self.come_by(&mut state));
        }
        drop(state);
        if let Some(wakers) = wakers {
            wakers.wake();
        }
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
        let waker = cx.waker().clone();
        let mut state = lock(&self.entry.state);
        if state.granted {
            drop(state);
            drop_waker(Some(waker));
            return Poll::Ready(());
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop_waker(before);
        Poll::Pending
    }

    fn is_granted(&self) -> bool {
        lock(&self.entry.state).granted
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
        let waker = lock(&self.entry.state).waker.take();
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
