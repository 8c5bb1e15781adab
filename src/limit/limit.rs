//! `max_running`, `max_waiting` and what happens beyond.
//!
//! A task that was handed over waits for a permit, then runs, and gives the permit on when it has ended: to the task that
//! was handed over first, over all scopes of the Runner. Permits are handed to those who wait, never left lying for a
//! newcomer to take.
//!
//! Scopes that may wait before their answer wait for room in the same way, in their order. Room that was granted is a
//! [`Place`](super::place::Place): a scope that hands over at once uses it, and one whose response is still to be read
//! lends it to others until then. So nobody waits for a client to read.
//!
//! All who wait have numbers, in the order in which they came. So nobody who leaves before his turn has to be looked for.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use super::{
    place::{Lender, PATIENCE},
    room::RoomRequest,
};
use crate::{
    report::{ALONE, WaitCell, WakeList},
    sync::{Mutex, lock},
};

/// What happens to tasks when the queue is full: backpressure, or load shedding.
///
/// The queue is full when [`max_waiting`](crate::RunnerBuilder::max_waiting) tasks wait.
///
/// Under [`Backpressure`](Overflow::Backpressure) a task that calls its own server may deadlock: the response waits for the
/// queue, and the queue for that task. Give it a [timeout](crate::TaskBuilder::timeout), or a Runner of its own.
///
/// ```
/// use after::{Overflow, Runner};
///
/// // For statistics: rather lose some than slow responses down.
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
    /// The response waits (backpressure): a scope that has collected something resolves when the queue has capacity for its
    /// tasks. Nothing that a response can wait for is dropped. A request with more tasks than the queue can ever hold waits
    /// until no other task waits, and then all of its tasks are accepted.
    ///
    /// Tasks with no response to hold back (of a scope that is dropped, deferred by a task or late through a handle, of a
    /// held batch) are queued up to 2 × `max_waiting`, then dropped; up to `max_waiting` while a response waits. Under the
    /// layer of feature `tower` the wait is before the head of the response, and nobody waits for another's client to read:
    /// see that module's limits.
    ///
    /// A task that calls a service whose response waits for this Runner (its own server, say) may wait for itself: give
    /// such calls a timeout, or a Runner of their own.
    Backpressure,
    /// The newest tasks are dropped (load shedding), and counted as [shed](crate::Stats::shed).
    Shed,
}

pub(crate) struct Limit {
    pub(crate) max_running: usize,
    pub(crate) max_waiting: usize,
    pub(crate) overflow: Overflow,
    pub(crate) state: Mutex<LimitState>,
}

#[derive(Default)]
pub(crate) struct LimitState {
    pub(crate) running: usize,
    /// Handed over and without a permit, or a place that a scope has and does not lend.
    pub(crate) waiting: usize,
    /// Places that are lent, and those of them that are respected still.
    pub(crate) lent: usize,
    pub(crate) fresh: usize,
    /// Who gets the next permits.
    queue: BTreeMap<u64, PermitRequest>,
    /// Scopes that wait for room before their answer.
    pub(crate) rooms: BTreeMap<u64, RoomRequest>,
    /// How many tasks were accepted that could not wait for it, ever.
    pub(crate) unasked: u64,
    /// Who lends a place, from the one that was lent first: those that are respected still, and the others.
    pub(crate) lenders: BTreeMap<u64, Lender>,
    pub(crate) overdue: BTreeMap<u64, Lender>,
    /// The number of who came last.
    last: u64,
    /// How long a place is respected now.
    pub(crate) patience: Duration,
    /// Whether a thread comes by when that is over.
    pub(crate) thread: bool,
}

/// Some permits that a batch waits for.
struct PermitRequest {
    waiter: Arc<PermitWaiter>,
    wanted: usize,
}

/// The permits of one batch.
#[derive(Default)]
pub(crate) struct PermitWaiter {
    state: WaitCell<PermitState>,
}

#[derive(Default)]
struct PermitState {
    /// Granted, and not taken yet.
    granted: usize,
    /// Those that stand in the queue.
    requests: VecDeque<u64>,
}

/// Tasks that stand in the queue for permits.
pub(crate) struct Acquired {
    /// So many of them; for the others there is no room.
    pub(crate) accepted: usize,
    /// So many of these have a permit at once.
    pub(crate) granted: usize,
    pub(crate) wakers: WakeList,
}

impl LimitState {
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl PermitWaiter {
    /// Whoever grants permits from now on wakes `waker`.
    pub(crate) fn watch(&self, waker: &Waker) {
        self.state.watch(ALONE, waker, |_| ());
    }

    pub(crate) fn take_granted(&self) -> usize {
        self.state.with(|state| mem::take(&mut state.granted))
    }
}

impl Limit {
    pub(crate) fn new(max_running: usize, max_waiting: usize, overflow: Overflow) -> Self {
        Limit {
            max_running,
            max_waiting,
            overflow,
            state: Mutex::new(LimitState {
                patience: PATIENCE,
                ..LimitState::default()
            }),
        }
    }

    /// Whether scopes wait for room before their answer. There is always room where no number is set.
    pub(crate) fn pushes_back(&self) -> bool {
        self.overflow == Overflow::Backpressure && self.max_waiting < usize::MAX
    }

    /// How many of `tasks` more may wait, if they can't be made to wait outside. For lent places, room is left. While
    /// scopes wait for room, only so many are accepted that the first of these can pass before them: see `fits`.
    fn accepts(&self, state: &LimitState, tasks: usize) -> usize {
        let most = match self.overflow {
            Overflow::Shed => self.max_waiting,
            Overflow::Backpressure => self.max_waiting.saturating_mul(2),
        };
        let free = self.max_running.saturating_sub(state.running);
        // However much is lent, what can't wait is not shed for that.
        let taken = state.waiting + state.lent.min(self.max_waiting);
        let room = most.saturating_add(free).saturating_sub(taken);
        let behind = match state.rooms.values().next() {
            Some(first) => self.max_waiting.saturating_sub(first.behind(state.unasked)),
            None => usize::MAX,
        };
        tasks.min(room).min(behind)
    }

    /// Puts tasks in the queue, behind all others, for at most `wanted` permits.
    pub(crate) fn acquire(
        &self,
        waiter: &mut Option<Arc<PermitWaiter>>,
        tasks: usize,
        reserved: usize,
        wanted: usize,
    ) -> Acquired {
        let mut state = lock(&self.state);
        // What was promised is in `waiting` already; what was promised in excess goes back.
        let excess = reserved.saturating_sub(tasks);
        state.waiting -= excess;
        let reserved = reserved - excess;
        let unasked = self.accepts(&state, tasks - reserved);
        state.unasked += unasked as u64;
        let accepted = reserved + unasked;
        state.waiting += accepted - reserved;
        self.give_up_lent(&mut state);
        let mut wanted = wanted.min(accepted);
        // Nobody is before them: as many as there are permits need not stand in the queue.
        let granted = match state.queue.is_empty() {
            true => wanted.min(self.max_running.saturating_sub(state.running)),
            false => 0,
        };
        state.running += granted;
        state.waiting -= granted;
        wanted -= granted;
        if wanted > 0 {
            let waiter = waiter.get_or_insert_default().clone();
            let number = state.next_number();
            waiter.state.with(|state| state.requests.push_back(number));
            state.queue.insert(number, PermitRequest { waiter, wanted });
        }
        Acquired {
            accepted,
            granted,
            wakers: self.grant(&mut state),
        }
    }

    /// A task has ended, and its permit goes on to the first in the queue.
    pub(crate) fn release(&self, tasks: usize) -> WakeList {
        let mut state = lock(&self.state);
        state.running -= tasks;
        self.grant(&mut state)
    }

    /// A task of a batch that takes permits one by one has ended, and the batch's next one has its permit.
    pub(crate) fn pass_on(&self) -> WakeList {
        let mut state = lock(&self.state);
        state.waiting -= 1;
        self.grant(&mut state)
    }

    /// A batch takes its waiting tasks out of the line, and gives up the permits of `running` others. The entry is not
    /// to be used again. Its waker is given back too, to be dropped when nothing is locked.
    pub(crate) fn cancel(
        &self,
        waiter: Option<&PermitWaiter>,
        waiting: usize,
        running: usize,
    ) -> (WakeList, Option<Waker>) {
        let mut state = lock(&self.state);
        let waker = waiter.and_then(|waiter| waiter.state.take_waker(ALONE));
        let waiter = waiter.map(|waiter| waiter.state.with(mem::take));
        let PermitState { granted, requests } = waiter.unwrap_or_default();
        for number in requests {
            state.queue.remove(&number);
        }
        // Granted, and not taken yet: running here, and waiting there.
        state.running -= running + granted;
        state.waiting -= waiting - granted;
        (self.grant(&mut state), waker)
    }

    /// Gives free permits to the first in the queue, and free room to the first scopes that wait for it.
    pub(crate) fn grant(&self, state: &mut LimitState) -> WakeList {
        let mut woken = WakeList::default();
        while state.running < self.max_running {
            let Some(mut first) = state.queue.first_entry() else {
                break;
            };
            let request = first.get_mut();
            request.wanted -= 1;
            let served = request.wanted == 0;
            woken.append(request.waiter.state.change(|state| {
                state.granted += 1;
                if served {
                    state.requests.pop_front();
                }
            }));
            if served {
                first.remove();
            }
            state.running += 1;
            state.waiting -= 1;
        }
        if !state.rooms.is_empty() {
            self.lose_patience(state);
        }
        while let Some(first) = state.rooms.values().next() {
            if !self.fits(state, first.tasks, first.behind(state.unasked)) {
                break;
            }
            if let Some((_, first)) = state.rooms.pop_first() {
                state.waiting += first.tasks;
                woken.append(first.granted.change(|granted| *granted = true));
            }
        }
        woken
    }

    /// Whether so many tasks have room. More than ever fit have it when nobody waits.
    ///
    /// Those that came `behind`, and could not wait, don't count: a client that sends requests and gives them up could else
    /// keep the line long for ever.
    pub(crate) fn fits(&self, state: &LimitState, tasks: usize, behind: usize) -> bool {
        let free = self.max_running.saturating_sub(state.running);
        let before = state.waiting.saturating_add(state.fresh);
        let before = before.saturating_sub(behind);
        before.saturating_add(tasks) <= self.max_waiting.saturating_add(free) || before == 0
    }
}
