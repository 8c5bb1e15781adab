//! Room that a scope has got, from its wait to its hand-over; lent to others while a client reads its response.
//!
//! Not at once: a response that is read as usual has its place back soon, and if others passed before, all that wait would
//! pass together, more than there is room for. So a place that was lent is respected for a short time ([`PATIENCE`]), and
//! each time that this was in vain for half as long.

use std::{sync::Arc, time::Duration};

use super::limit::{Limit, LimitState};
use crate::{
    platform::Instant,
    report::WakeList,
    sync::{come_by, lock},
};

/// The most that others wait for a response that is being read.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);
/// The least: below, a thread would spin.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);

/// A lent place, until it is used or given up, or there is no room for it any more.
pub(crate) struct Lender {
    tasks: usize,
    /// When it was lent.
    since: Instant,
}

/// Room for the tasks of one scope, from its wait to its hand-over. Dropped, it is given back.
///
/// A scope whose response is still to be read lends its place: after some patience others pass as if it was not there,
/// because how long that takes is up to a client. It has the place back at its hand-over, unless the response was given up
/// and there is no room any more: when a place is lent, or what can't wait is accepted, what waits and what is lent are
/// together no more than twice `max_waiting` and the free permits, and the place that was lent first goes first. So
/// what is kept in memory is bounded, however many clients don't read.
pub(crate) struct Place {
    pub(crate) limit: Arc<Limit>,
    pub(crate) tasks: usize,
    /// `None` while it is not lent, and counted as waiting.
    pub(crate) lender: Option<u64>,
}

impl Place {
    /// With one that was got before, by the same scope. To be called before this one is lent.
    pub(crate) fn and(mut self, earlier: Place) -> Place {
        debug_assert!(self.lender.is_none(), "it is lent already");
        self.tasks += earlier.redeem(true);
        self
    }

    /// The response is given out; with `patience` others wait for its end, for a short time. Whom this wakes is not to be
    /// woken under locks, or while anything of ours is taken out.
    pub(crate) fn lend(&mut self, patience: bool) {
        if self.lender.is_some() {
            return;
        }
        let lender = Lender {
            tasks: self.tasks,
            since: Instant::now(),
        };
        let limit = &self.limit;
        let mut state = lock(&limit.state);
        let number = state.next_number();
        self.lender = Some(number);
        state.waiting -= self.tasks;
        state.lent += self.tasks;
        if patience {
            state.fresh += self.tasks;
            state.lenders.insert(number, lender);
        } else {
            state.overdue.insert(number, lender);
        }
        limit.give_up_lent(&mut state);
        let wakers = limit.grant(&mut state);
        let more = limit.come_by(&mut state);
        drop(state);
        wakers.wake();
        more.wake();
    }

    /// For how many tasks there is a place; from now on they count as waiting, and the hand-over answers for them.
    ///
    /// There is one for all whose response was `read`, however long that took: nothing that an answer has waited for is
    /// dropped. How many of these there are is up to the server, which has them in memory at once.
    pub(crate) fn redeem(mut self, read: bool) -> usize {
        let tasks = std::mem::take(&mut self.tasks);
        let Some(lender) = self.lender.take() else {
            return tasks;
        };
        let mut state = lock(&self.limit.state);
        match state.ends(lender) {
            Some(true) => state.patience = (state.patience * 2).min(PATIENCE),
            None if !read => return 0,
            _ => {}
        }
        state.waiting += tasks;
        tasks
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
                state.ends(lender);
            }
            None => state.waiting -= self.tasks,
        }
        let wakers = self.limit.grant(&mut state);
        drop(state);
        wakers.wake();
    }
}

impl Limit {
    /// Places that were lent for long enough are not respected any more.
    pub(crate) fn lose_patience(&self, state: &mut LimitState) {
        // By the clock, which a model's runs must not go by: they would not repeat themselves.
        if state.fresh == 0 || cfg!(after_loom) {
            return;
        }
        let now = Instant::now();
        let patience = state.patience;
        let mut in_vain = false;
        while let Some(first) = state.lenders.first_entry() {
            if now.saturating_duration_since(first.get().since) < patience {
                break;
            }
            let (number, lender) = first.remove_entry();
            state.fresh -= lender.tasks;
            state.overdue.insert(number, lender);
            in_vain = true;
        }
        if in_vain {
            state.patience = (patience / 2).max(LEAST_PATIENCE);
        }
    }

    /// Sees to it that somebody loses patience, if scopes wait for what is lent: nothing else is sure to happen.
    pub(crate) fn come_by(self: &Arc<Self>, state: &mut LimitState) -> WakeList {
        let needed = !state.rooms.is_empty() && state.fresh > 0;
        // A model can't wait for a thread of std's: see `sync`.
        if !needed || state.thread || cfg!(after_loom) {
            return WakeList::default();
        }
        let limit = self.clone();
        let started = come_by("after-limits", state.patience, move || {
            let mut state = lock(&limit.state);
            let wakers = limit.grant(&mut state);
            state.thread = !state.rooms.is_empty() && state.fresh > 0;
            let next = state.thread.then_some(state.patience);
            drop(state);
            wakers.wake();
            next
        });
        state.thread = started.is_ok();
        if started.is_err() {
            // Then nothing is waited for.
            state.patience = Duration::ZERO;
            return self.grant(state);
        }
        WakeList::default()
    }

    /// What waits and what is lent are together no more than can't wait may be. The place that was lent first goes
    /// first, and the last one stays, also if it is larger than all room.
    pub(crate) fn give_up_lent(&self, state: &mut LimitState) {
        let free = self.max_running.saturating_sub(state.running);
        let most = self.max_waiting.saturating_mul(2).saturating_add(free);
        while state.waiting + state.lent > most && state.lenders.len() + state.overdue.len() > 1 {
            let mut first = state.overdue.keys().chain(state.lenders.keys());
            let Some(&first) = first.next() else { return };
            state.ends(first);
        }
    }
}

impl LimitState {
    /// A lent place is used, or given up; `None` if it is gone, otherwise whether others respected it still.
    fn ends(&mut self, number: u64) -> Option<bool> {
        let respected = self.lenders.remove(&number);
        let is_respected = respected.is_some();
        let lender = respected.or_else(|| self.overdue.remove(&number))?;
        if is_respected {
            self.fresh -= lender.tasks;
        }
        self.lent -= lender.tasks;
        Some(is_respected)
    }
}
