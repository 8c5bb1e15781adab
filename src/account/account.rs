//! The counts of a Runner, the roster of its unfinished batches, and waiting until there are none.
//!
//! Everything is kept in shards, chosen by thread, so that threads that serve requests do not meet. A request locks a shard
//! twice, and adds to a counter once:
//!
//! ```text
//! first defer    Account::open     a counter of this thread's own, no lock
//! hand-over      Account::register locks the shard of this thread:
//!                                  counts, and a place on the roster
//! end of a turn  Account::update   locks the shard of that place, if there is a change
//! end            Account::remove   locks the shard of that place:
//!                                  counts, and the place is free
//! ```
//!
//! Whoever reads locks all shards that were used, in ascending order, and so sees one moment. That is why every
//! [`Stats`](super::Stats) value balances, and why no moment with nothing pending is missed.
//!
//! Invariant 2: a task's `deferred` is published before or together with its end, so no snapshot shows more ends than
//! tasks.
//!
//! Invariant 3: no user code runs under a shard's lock. Wakers are user code: they are woken after the unlocking.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coarsetime::Instant;

use super::{
    counts::{Counts, Unpublished},
    ended_set::EndedSet,
    event::{Event, Listener},
    losses::Losses,
    roster::{Extra, Joining},
    shard::{OpenRoster, RosterKey, ShardState, Shards},
    stats::{ShutdownReport, Unfinished},
};
use crate::{
    report::{Label, Loss},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::Queue,
};

/// Who keeps an account: its Runner.
pub(crate) trait KeepsAccount: Clone + Send + 'static {
    fn account(&self) -> &Account;
}

/// The counts of a Runner, and its roster.
pub(crate) struct Account {
    shards: Shards,
    /// One for each drain that waits, and one while losses wait to be reported. While it is not zero, whoever publishes
    /// looks at the whole account. It is raised before a shard is locked, and read under that lock, so the lock orders
    /// the two.
    attention: AtomicUsize,
    /// Its epochs begin with nothing pending, while somebody waits for one.
    drained: Event,
    stopping: AtomicBool,
    pub(crate) stop: Event,
    pub(crate) losses: Losses,
    /// A shutdown has returned with tasks unfinished: what is dropped from then on was cut off by it.
    cut_off: AtomicBool,
}

impl Account {
    pub(crate) fn new() -> Self {
        Account {
            shards: Shards::new(),
            attention: AtomicUsize::new(0),
            drained: Event::default(),
            stopping: AtomicBool::new(false),
            stop: Event::default(),
            losses: Losses::default(),
            cut_off: AtomicBool::new(false),
        }
    }

    /// The first defer of a scope, which is pending from here on. Wakes nobody.
    #[inline]
    pub(crate) fn open(&self) {
        self.shards.open();
    }

    /// Changes one shard; if somebody waits for the account to be empty and this makes it so, lets them know.
    #[inline]
    fn change<R>(&self, shard: usize, change: impl FnOnce(&mut ShardState) -> R) -> R {
        let mut state = self.shards.lock(shard);
        // Relaxed: whoever raises `attention` (`watch`, `lose`) calls `lock_all` after that. If that was before us, our
        // lock, or our thread's number, makes it visible here; if it is after us, our change is visible there.
        if self.attention.load(Ordering::Relaxed) == 0 {
            return change(&mut state);
        }
        drop(state);
        self.change_watched(shard, change)
    }

    #[cold]
    fn change_watched<R>(&self, shard: usize, change: impl FnOnce(&mut ShardState) -> R) -> R {
        let mut all = self.shards.lock_all();
        let result = change(all.get_mut(shard));
        let total = self.shards.total(&all);
        if total.pending() > 0 {
            return result;
        }
        // Under the locks, so that whoever begins to wait after them waits for a later epoch.
        let wakers = self.drained.notify_all();
        drop(all);
        wakers.wake();
        if total.lost + total.shed > 0 {
            self.report_losses(false);
        }
        result
    }

    #[inline]
    pub(crate) fn publish(&self, counts: &Unpublished) {
        self.change(self.shards.own(), |state| counts.add_to(&mut state.counts));
    }

    /// Puts a batch on the roster and publishes `counts`.
    #[inline]
    pub(crate) fn register(
        &self,
        counts: &Unpublished,
        tasks: &Queue,
        extra: Option<Box<Extra>>,
    ) -> RosterKey {
        self.register_each(counts, |roster| roster.register(tasks, extra))
    }

    /// As `register`, for batches that `batches` puts there, in one moment.
    #[inline(always)]
    pub(crate) fn register_each<R>(
        &self,
        counts: &Unpublished,
        batches: impl FnOnce(&mut OpenRoster<'_>) -> R,
    ) -> R {
        let since = Instant::now_without_cache_update();
        let shard = self.shards.own();
        self.change(shard, |state| {
            counts.add_to(&mut state.counts);
            batches(&mut OpenRoster::new(state, shard, since))
        })
    }

    /// Publishes what a batch has done in one turn, while some of its tasks are unfinished.
    pub(crate) fn update(
        &self,
        roster_key: RosterKey,
        counts: &Unpublished,
        ended_set: &EndedSet,
        joined: &Queue,
        extra: Option<Box<Extra>>,
    ) {
        self.change(roster_key.shard(), |state| {
            counts.add_to(&mut state.counts);
            let entry = state.entry(roster_key);
            entry.finish(ended_set);
            entry.join(joined);
            entry.join_extra(extra)
        });
    }

    /// The batch has an inbox from now on.
    pub(crate) fn give_inbox(&self, roster_key: RosterKey, inbox: Arc<dyn Joining>) {
        let mut state = self.shards.lock(roster_key.shard());
        state.entry(roster_key).give_inbox(inbox);
    }

    /// Takes a batch off the roster and publishes its last counts.
    #[inline]
    pub(crate) fn remove(&self, roster_key: RosterKey, counts: &Unpublished) {
        let extra = self.change(roster_key.shard(), |state| {
            counts.add_to(&mut state.counts);
            state.remove(roster_key)
        });
        if let Some(extra) = extra {
            extra.give_up();
        }
    }

    /// How long ago a batch was handed over.
    pub(crate) fn age(&self, roster_key: RosterKey) -> Duration {
        let now = Instant::now_without_cache_update();
        self.shards
            .lock(roster_key.shard())
            .entry(roster_key)
            .age(now)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shards.total(&self.shards.lock_all())
    }

    /// Resolves at the first moment, from the call on, with nothing pending.
    pub(crate) async fn drain(&self) {
        let watch = self.watch();
        if let Some(waiting) = self.wait_if_pending() {
            waiting.await;
        }
        drop(watch);
    }

    /// Begins to wait under the locks under which moments are seen: one that was seen before this look is not taken for a
    /// later one, and one after it is not missed.
    fn wait_if_pending(&self) -> Option<NextEpoch<'_>> {
        let all = self.shards.lock_all();
        (self.shards.total(&all).pending() > 0).then(|| NextEpoch::new(&self.drained))
    }

    fn watch(&self) -> Watch<'_> {
        self.attention.fetch_add(1, Ordering::Relaxed);
        Watch { account: self }
    }

    /// Reports what was lost, once a second at most unless `now`.
    pub(crate) fn report_losses(&self, now: bool) {
        if self.losses.report(now) {
            self.attention.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// To be called before the losses are published, so that the publication looks whether it was the last.
    pub(crate) fn lose(
        &self,
        keeper: &impl KeepsAccount,
        why: Loss,
        tasks: impl Iterator<Item = Label>,
    ) {
        // Relaxed, with the store in `is_cut_off`: it only changes a line of a log.
        let why = match why {
            Loss::Dropped | Loss::Held | Loss::Pool if self.cut_off.load(Ordering::Relaxed) => {
                Loss::CutOff
            }
            why => why,
        };
        if self.losses.add(why, tasks) {
            self.attention.fetch_add(1, Ordering::Relaxed);
        }
        self.losses.report_within_a_second(keeper);
    }

    /// Once or several times: who waits is woken by the first, and nobody waits from then on.
    pub(crate) fn begin_stopping(&self) {
        // Release, with the Acquire in `is_stopping`: who sees it stopping sees what was done before.
        self.stopping.store(true, Ordering::Release);
        self.stop.notify_all().wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// What is unfinished now, the oldest first: it is the likeliest to be stuck.
    pub(crate) fn unfinished(&self) -> (Counts, Vec<Unfinished>) {
        let all = self.shards.lock_all();
        let now = Instant::now_without_cache_update();
        let entries = || all.iter().flat_map(ShardState::entries);
        let mut unfinished: Vec<_> = entries().flat_map(|entry| entry.unfinished(now)).collect();
        let inboxes: Vec<_> = entries().filter_map(|entry| entry.inbox(now)).collect();
        let total = self.shards.total(&all);
        drop(all);
        // What has joined a batch that was not polled since. Not under the locks of the shards: whoever stores something in
        // an inbox locks it first, and a shard then.
        if total.pending() == 0 {
            // What has ended, and is not off the roster yet.
            return (total, Vec::new());
        }
        for (age, inbox) in inboxes {
            let joined = inbox.labels().into_iter();
            unfinished.extend(joined.map(|task| Unfinished::of(task, age)));
        }
        unfinished.sort_by_key(|task| std::cmp::Reverse(task.age));
        (total, unfinished)
    }

    /// For the end of a `shutdown` with this limit.
    pub(crate) fn report(&self, limit: Duration) -> ShutdownReport {
        let (total, unfinished) = self.unfinished();
        ShutdownReport::new(limit, total.into(), unfinished)
    }

    /// A shutdown has returned, with tasks unfinished or without.
    pub(crate) fn is_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }
}

/// While it lives, whoever publishes looks whether the account is empty.
struct Watch<'a> {
    account: &'a Account,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.account.attention.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for the next epoch of an event.
struct NextEpoch<'a> {
    event: &'a Event,
    listener: Listener,
}

impl<'a> NextEpoch<'a> {
    fn new(event: &'a Event) -> Self {
        let listener = event.listen();
        NextEpoch { event, listener }
    }
}

impl Future for NextEpoch<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.event.poll(&mut self.listener, cx)
    }
}

impl Drop for NextEpoch<'_> {
    fn drop(&mut self) {
        self.event.leave(&self.listener);
    }
}
