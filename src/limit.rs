//! `max_running`, `max_waiting` and what happens beyond.
//!
//! A task that was handed over waits for a permit, then runs, and gives the permit on when it has ended: to the task that
//! was handed over first, over all scopes of the Runner. Permits are handed to those who wait, never left lying for a
//! newcomer to take.
//!
//! Scopes that may wait before their answer wait for room in the same way, in their order.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{
    node::Queue,
    signal::{Kept, Wakers, drop_waker},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What happens to tasks for which there is no room: `max_waiting` tasks wait already.
///
/// ```
/// use after::{Overflow, Runner};
///
/// let runner = Runner::builder()
///     .max_running(64)
///     .max_waiting(1_000)
///     .overflow(Overflow::Shed)
///     .build();
/// # drop(runner);
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The answer waits: a scope that has collected something resolves when there is room for it. What can't wait (a
    /// scope that is dropped, work deferred by a task or late through a handle, a held batch) is accepted up to twice
    /// `max_waiting`, and lost beyond.
    Backpressure,
    /// The newest tasks are dropped, and counted as lost.
    Shed,
}

pub(crate) struct Limit {
    max_running: usize,
    max_waiting: usize,
    overflow: Overflow,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    /// Handed over and without a permit, or room that a scope was promised.
    waiting: usize,
    /// Who gets the next permits, and how many.
    line: VecDeque<(Arc<Entry>, usize)>,
    /// Scopes that wait for room before their answer.
    rooms: VecDeque<Arc<RoomEntry>>,
}

/// The permits of one batch.
#[derive(Default)]
pub(crate) struct Entry {
    granted: AtomicUsize,
    waker: Mutex<Kept>,
}

struct RoomEntry {
    tasks: usize,
    state: Mutex<RoomState>,
}

#[derive(Default)]
struct RoomState {
    granted: bool,
    waker: Kept,
}

/// The tasks of a batch that wait for permits, and how many of it have one.
#[derive(Default)]
pub(crate) struct Permits {
    pub(crate) waiting: Queue,
    pub(crate) entry: Arc<Entry>,
    pub(crate) running: usize,
    /// Room for the first of them was promised to the scope before its answer.
    pub(crate) promised: usize,
    /// They stand in the line, as far as they were accepted.
    pub(crate) entered: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No user code runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// Whoever grants permits from now on wakes `waker`.
    pub(crate) fn watch(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = lock(&self.waker).replace(waker);
        drop_waker(before);
    }

    pub(crate) fn take_granted(&self) -> usize {
        // Acquire, with the Release in `grant`: only the count matters, but it costs nothing to be plain.
        self.granted.swap(0, Ordering::Acquire)
    }
}

impl Limit {
    pub(crate) fn new(max_running: usize, max_waiting: usize, overflow: Overflow) -> Self {
        Limit {
            max_running,
            max_waiting,
            overflow,
            state: Mutex::default(),
        }
    }

    /// Whether scopes wait for room before their answer.
    pub(crate) fn pushes_back(&self) -> bool {
        self.overflow == Overflow::Backpressure
    }

    /// How many of `tasks` more may wait, if they can't be made to wait outside.
    fn accepts(&self, state: &State, tasks: usize) -> usize {
        let most = match self.overflow {
            Overflow::Shed => self.max_waiting,
            Overflow::Backpressure => self.max_waiting.saturating_mul(2),
        };
        let free = self.max_running.saturating_sub(state.running);
        let room = most.saturating_add(free).saturating_sub(state.waiting);
        tasks.min(room)
    }

    /// Puts tasks in the line, behind all others, for at most `wanted` permits. Returns how many tasks were accepted.
    pub(crate) fn enter(
        &self,
        entry: &Arc<Entry>,
        tasks: usize,
        promised: usize,
        wanted: usize,
    ) -> (usize, Wakers) {
        let mut state = lock(&self.state);
        // What was promised is in `waiting` already; what was promised in excess goes back.
        let excess = promised.saturating_sub(tasks);
        state.waiting -= excess;
        let promised = promised - excess;
        let accepted = promised + self.accepts(&state, tasks - promised);
        state.waiting += accepted - promised;
        let wanted = wanted.min(accepted);
        if wanted > 0 {
            state.line.push_back((entry.clone(), wanted));
        }
        let wakers = self.grant(&mut state);
        (accepted, wakers)
    }

    /// A task has ended, and its permit goes on to the first in line.
    pub(crate) fn leave(&self, tasks: usize) -> Wakers {
        let mut state = lock(&self.state);
        state.running -= tasks;
        self.grant(&mut state)
    }

    /// A task of a batch that takes permits one by one has ended, and the batch's next one has its permit.
    pub(crate) fn pass_on(&self) -> Wakers {
        let mut state = lock(&self.state);
        state.waiting -= 1;
        self.grant(&mut state)
    }

    /// A batch takes its waiting tasks out of the line, and gives up the permits of `running` others.
    pub(crate) fn withdraw(&self, entry: &Arc<Entry>, waiting: usize, running: usize) -> Wakers {
        let mut state = lock(&self.state);
        state.line.retain(|(other, _)| !Arc::ptr_eq(other, entry));
        // Granted, and not taken yet: running here, and waiting there.
        let granted = entry.take_granted();
        state.running -= running + granted;
        state.waiting -= waiting - granted;
        self.grant(&mut state)
    }

    /// Gives free permits to the first in line, and free room to the first scopes that wait for it.
    fn grant(&self, state: &mut State) -> Wakers {
        let mut woken = Vec::new();
        while state.running < self.max_running {
            let Some((entry, wanted)) = state.line.front_mut() else {
                break;
            };
            // Release: see `take_granted`.
            entry.granted.fetch_add(1, Ordering::Release);
            *wanted -= 1;
            let done = *wanted == 0;
            woken.extend(lock(&entry.waker).take());
            if done {
                state.line.pop_front();
            }
            state.running += 1;
            state.waiting -= 1;
        }
        while let Some(room) = state.rooms.front() {
            if !self.fits(state, room.tasks) {
                break;
            }
            state.waiting += room.tasks;
            if let Some(room) = state.rooms.pop_front() {
                let mut room = lock(&room.state);
                room.granted = true;
                woken.extend(room.waker.take());
            }
        }
        woken.into_iter().collect()
    }

    /// Whether so many tasks have room. More than ever fit have it when nobody waits.
    fn fits(&self, state: &State, tasks: usize) -> bool {
        let free = self.max_running.saturating_sub(state.running);
        let after = state.waiting.saturating_add(tasks);
        after <= self.max_waiting.saturating_add(free) || state.waiting == 0
    }

    /// Room for the tasks of a scope that can wait for it.
    pub(crate) fn room(self: &Arc<Self>, tasks: usize) -> Room {
        let entry = Arc::new(RoomEntry {
            // Beyond twice the limit they are shed at the hand-over, so that memory is bounded.
            tasks: tasks.min(
                self.max_waiting
                    .saturating_mul(2)
                    .saturating_add(self.max_running),
            ),
            state: Mutex::default(),
        });
        let mut state = lock(&self.state);
        if state.rooms.is_empty() && self.fits(&state, entry.tasks) {
            state.waiting += entry.tasks;
            lock(&entry.state).granted = true;
        } else {
            state.rooms.push_back(entry.clone());
        }
        drop(state);
        Room {
            limit: self.clone(),
            entry,
            used: false,
        }
    }
}

/// A scope's wait for room. Dropped, it gives up its place, or the room that it was promised.
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

    pub(crate) fn is_granted(&self) -> bool {
        lock(&self.entry.state).granted
    }

    /// How many tasks were promised room; from now on the hand-over answers for it.
    pub(crate) fn take(mut self) -> usize {
        self.used = true;
        self.entry.tasks
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
            state.rooms.retain(|room| !Arc::ptr_eq(room, &self.entry));
        }
        // The next scope may fit where this one did not.
        let wakers = self.limit.grant(&mut state);
        drop(state);
        drop_waker(waker);
        wakers.wake();
    }
}
