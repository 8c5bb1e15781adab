//! `max_running`, `max_waiting` and what happens beyond.
//!
//! A task that was handed over waits for a permit, then runs, and gives the permit on when it has ended: to the task that
//! was handed over first, over all scopes of the Runner. Permits are handed to those who wait, never left lying for a
//! newcomer to take.
//!
//! Scopes that may wait before their answer wait for room in the same way, in their order. Room that was granted is a
//! [`Place`]: a scope that hands over at once uses it, and one whose response is still to be read lends it to others until
//! then. So nobody waits for a client to read.
//!
//! Not at once: a response that is read as usual has its place back soon, and if others passed before, all that wait would
//! pass together, more than there is room for. So a place that was lent is respected for a short time ([`PATIENCE`]), and
//! each time that this was in vain for half as long.
//!
//! Every operation takes constant time for each task or scope that it concerns, whatever else waits: who leaves a [`Line`]
//! before his turn is passed over.

use std::{
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use crate::{
    line::{Line, Member},
    node::Queue,
    signal::{Kept, Wakers, drop_waker},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// What happens to tasks for which there is no room: `max_waiting` tasks wait already.
///
/// A task that asks its own server waits, under [`Backpressure`](Overflow::Backpressure), for an answer that may wait for
/// room, which the end of that task makes. Give it a [time limit](crate::TaskBuilder::timeout), or a Runner of its own.
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
    /// The response waits: a scope that has collected something resolves when there is room for its tasks. Nothing that a
    /// response can wait for is dropped, whatever its number: more tasks than ever have room wait until nothing else
    /// waits, and are let in together.
    ///
    /// What can't wait (a scope that is dropped, work deferred by a task or late through a handle, a held batch) is
    /// accepted up to twice `max_waiting`, and shed beyond. Under the layer of feature `tower` room is waited for before
    /// the head of the response, and not kept while the client reads: see that module's limits.
    ///
    /// A task that calls a service whose response waits for room on the same Runner (its own server, say) may wait for
    /// what only its own end makes: give such calls a time limit, or a Runner of their own.
    Backpressure,
    /// The newest tasks are dropped, and counted as [shed](crate::Stats::shed).
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
    /// Handed over and without a permit, or a place that a scope has and does not lend.
    waiting: usize,
    /// Places that are lent, and those of them that are respected still.
    lent: usize,
    fresh: usize,
    /// Who gets the next permits.
    line: Line<Turn>,
    /// Scopes that wait for room before their answer.
    rooms: Line<Arc<RoomEntry>>,
    /// Who lends a place, from the one that was lent first: those that are respected, and those before them.
    lenders: Line<Arc<Lender>>,
    overdue: Line<Arc<Lender>>,
    /// How long a place is respected now.
    patience: Duration,
    /// Whether a thread comes by when that is over.
    thread: bool,
}

/// The most that others wait for a response that is being read.
const PATIENCE: Duration = Duration::from_millis(100);
/// The least: below, a thread would spin.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);

/// Some permits that a batch waits for.
struct Turn {
    entry: Arc<Entry>,
    wanted: usize,
}

/// The permits of one batch.
#[derive(Default)]
pub(crate) struct Entry {
    granted: AtomicUsize,
    /// How often it stands in the line.
    turns: AtomicUsize,
    left: AtomicBool,
    waker: Mutex<Kept>,
}

struct RoomEntry {
    tasks: usize,
    left: AtomicBool,
    state: Mutex<RoomState>,
}

/// A lent place. It has left when it was used or given up, or when there is no room for it any more.
struct Lender {
    tasks: usize,
    /// When it was lent.
    since: Instant,
    /// Others don't respect it any more.
    overdue: AtomicBool,
    left: AtomicBool,
}

impl Member for Turn {
    fn has_left(&self) -> bool {
        self.entry.left.load(Ordering::Relaxed)
    }
}

impl Member for Arc<RoomEntry> {
    fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

impl Member for Arc<Lender> {
    fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
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
    /// Room for the first of them was promised to the scope before its answer, and is counted as waiting.
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
            state: Mutex::new(State {
                patience: PATIENCE,
                ..State::default()
            }),
        }
    }

    /// Whether scopes wait for room before their answer. There is always room where no number is set.
    pub(crate) fn pushes_back(&self) -> bool {
        self.overflow == Overflow::Backpressure && self.max_waiting < usize::MAX
    }

    /// How many of `tasks` more may wait, if they can't be made to wait outside. For lent places, room is left.
    fn accepts(&self, state: &State, tasks: usize) -> usize {
        let most = match self.overflow {
            Overflow::Shed => self.max_waiting,
            Overflow::Backpressure => self.max_waiting.saturating_mul(2),
        };
        let free = self.max_running.saturating_sub(state.running);
        // A single place may be larger than all room: what can't wait is not shed for that.
        let lent = state
            .lent
            .min(self.max_waiting.saturating_add(self.max_running));
        let taken = state.waiting + lent;
        tasks.min(most.saturating_add(free).saturating_sub(taken))
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
            // All under the lock: no order is needed.
            entry.turns.fetch_add(1, Ordering::Relaxed);
            let entry = entry.clone();
            state.line.push(Turn { entry, wanted });
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

    /// A batch takes its waiting tasks out of the line, and gives up the permits of `running` others. The entry is not to be
    /// used again.
    pub(crate) fn withdraw(&self, entry: &Entry, waiting: usize, running: usize) -> Wakers {
        let mut state = lock(&self.state);
        entry.left.store(true, Ordering::Relaxed);
        state.line.leaves(entry.turns.load(Ordering::Relaxed));
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
            let Some(turn) = state.line.first() else {
                break;
            };
            // Release: see `take_granted`.
            turn.entry.granted.fetch_add(1, Ordering::Release);
            turn.wanted -= 1;
            woken.extend(lock(&turn.entry.waker).take());
            if turn.wanted == 0 {
                turn.entry.turns.fetch_sub(1, Ordering::Relaxed);
                state.line.pop();
            }
            state.running += 1;
            state.waiting -= 1;
        }
        if state.rooms.len() > 0 {
            self.lose_patience(state);
        }
        while let Some(tasks) = state.rooms.first().map(|room| room.tasks) {
            if !self.fits(state, tasks) {
                break;
            }
            state.waiting += tasks;
            if let Some(room) = state.rooms.pop() {
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
        let before = state.waiting.saturating_add(state.fresh);
        before.saturating_add(tasks) <= self.max_waiting.saturating_add(free) || before == 0
    }

    /// Places that were lent for long enough are not respected any more.
    fn lose_patience(&self, state: &mut State) {
        if state.fresh == 0 {
            return;
        }
        let now = Instant::now();
        let patience = state.patience;
        let mut in_vain = false;
        while let Some(first) = state.lenders.first().cloned() {
            if now.saturating_duration_since(first.since) < patience {
                break;
            }
            state.lenders.pop();
            first.overdue.store(true, Ordering::Relaxed);
            state.fresh -= first.tasks;
            state.overdue.push(first);
            in_vain = true;
        }
        if in_vain {
            state.patience = (patience / 2).max(LEAST_PATIENCE);
        }
    }

    /// Sees to it that somebody loses patience, if scopes wait for what is lent: nothing else is sure to happen.
    fn come_by(self: &Arc<Self>, state: &mut State) -> Wakers {
        let needed = state.rooms.len() > 0 && state.fresh > 0;
        // A model can't wait for a thread of std's: see `sync`.
        if !needed || state.thread || cfg!(after_loom) {
            return Wakers::from_iter(None);
        }
        let limit = self.clone();
        let started = thread::Builder::new()
            .name("after-limits".into())
            .spawn(move || {
                loop {
                    let patience = lock(&limit.state).patience;
                    thread::sleep(patience);
                    let mut state = lock(&limit.state);
                    let wakers = limit.grant(&mut state);
                    state.thread = state.rooms.len() > 0 && state.fresh > 0;
                    let goes_on = state.thread;
                    drop(state);
                    wakers.wake();
                    if !goes_on {
                        return;
                    }
                }
            });
        state.thread = started.is_ok();
        if started.is_err() {
            // Then nothing is waited for.
            state.patience = Duration::ZERO;
            return self.grant(state);
        }
        Wakers::from_iter(None)
    }

    /// Room for the tasks of a scope that can wait for it.
    pub(crate) fn room(self: &Arc<Self>, tasks: usize) -> Room {
        let entry = Arc::new(RoomEntry {
            tasks,
            left: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let mut state = lock(&self.state);
        self.lose_patience(&mut state);
        let mut wakers = None;
        if state.rooms.len() == 0 && self.fits(&state, tasks) {
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

/// Room for the tasks of one scope, from its wait to its hand-over. Dropped, it is given back.
///
/// A scope whose response is still to be read lends its place: after some patience others pass as if it was not there,
/// because how long that takes is up to a client. It has the place back at its hand-over, unless there is no room for it any
/// more: what waits and what is lent are together no more than twice `max_waiting`, and the place that was lent first goes
/// first. So what is kept in memory is bounded, however many clients don't read.
pub(crate) struct Place {
    limit: Arc<Limit>,
    tasks: usize,
    /// `None` while it is not lent, and counted as waiting.
    lender: Option<Arc<Lender>>,
}

impl Place {
    /// With one that was got before, by the same scope. To be called before this one is lent.
    pub(crate) fn and(mut self, earlier: Place) -> Place {
        debug_assert!(self.lender.is_none(), "it is lent already");
        self.tasks += earlier.redeem();
        self
    }

    /// The response is given out; with `patience` others wait for its end, for a short time. Whom this wakes is not to be
    /// woken under locks, or while anything of ours is taken out.
    pub(crate) fn lend(&mut self, patience: bool) {
        if self.lender.is_some() {
            return;
        }
        let lender = Arc::new(Lender {
            tasks: self.tasks,
            since: Instant::now(),
            overdue: AtomicBool::new(!patience),
            left: AtomicBool::new(false),
        });
        self.lender = Some(lender.clone());
        let limit = &self.limit;
        let mut state = lock(&limit.state);
        state.waiting -= self.tasks;
        state.lent += self.tasks;
        match patience {
            true => {
                state.fresh += self.tasks;
                state.lenders.push(lender);
            }
            false => state.overdue.push(lender),
        }
        limit.give_up_lent(&mut state);
        let wakers = limit.grant(&mut state);
        let more = limit.come_by(&mut state);
        drop(state);
        wakers.wake();
        more.wake();
    }

    /// For how many tasks there is a place; from now on they count as waiting, and the hand-over answers for them.
    pub(crate) fn redeem(mut self) -> usize {
        let tasks = std::mem::take(&mut self.tasks);
        let Some(lender) = self.lender.take() else {
            return tasks;
        };
        let mut state = lock(&self.limit.state);
        let in_time = !lender.overdue.load(Ordering::Relaxed);
        if !state.ends(&lender) {
            return 0;
        }
        if in_time {
            state.patience = (state.patience * 2).min(PATIENCE);
        }
        state.waiting += tasks;
        tasks
    }
}

impl Limit {
    /// What waits and what is lent are together no more than can't wait may be. The place that was lent first goes first, and
    /// the last one stays, also if it is larger than all room.
    fn give_up_lent(&self, state: &mut State) {
        let free = self.max_running.saturating_sub(state.running);
        let most = self.max_waiting.saturating_mul(2).saturating_add(free);
        while state.waiting + state.lent > most && state.lenders.len() + state.overdue.len() > 1 {
            let overdue = state.overdue.first().cloned();
            let Some(first) = overdue.or_else(|| state.lenders.first().cloned()) else {
                return;
            };
            state.ends(&first);
        }
    }
}

impl State {
    /// A lent place is used, or given up; returns whether it was there still.
    fn ends(&mut self, lender: &Lender) -> bool {
        if lender.left.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.lent -= lender.tasks;
        match lender.overdue.load(Ordering::Relaxed) {
            true => self.overdue.leaves(1),
            false => {
                self.fresh -= lender.tasks;
                self.lenders.leaves(1);
            }
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.tasks == 0 {
            return;
        }
        let mut state = lock(&self.limit.state);
        match self.lender.take() {
            Some(lender) => {
                state.ends(&lender);
            }
            None => state.waiting -= self.tasks,
        }
        let wakers = self.limit.grant(&mut state);
        drop(state);
        wakers.wake();
    }
}
