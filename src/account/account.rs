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
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use coarsetime::Instant;

use super::{
    counts::{Counts, Unpublished},
    ended_set::EndedSet,
    event::{Event, Listener},
    losses::Losses,
    roster::{Extra, Joining, RosterEntry},
    stats::{ShutdownReport, Unfinished},
};
use crate::{
    report::{Label, Loss},
    sync::{
        self, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Queue,
};

/// Who keeps an account: its Runner.
pub(crate) trait KeepsAccount: Clone + Send + 'static {
    fn account(&self) -> &Account;
}

/// The counts of a Runner, and its roster.
pub(crate) struct Account {
    shards: Box<[Shard]>,
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

// 128 bytes: two lines, because the prefetcher of today's x86 processors fetches them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    /// First defers of scopes, by the one thread whose number this shard has, which alone writes it: it needs no atomic
    /// addition. Not under the lock, and read when all are held: a task's end is published under one of them after this
    /// has counted it, so invariant 2 holds.
    opened_by_owner: AtomicU64,
    /// The same, by threads that came when all shards had an owner.
    opened: AtomicU64,
    state: Mutex<ShardState>,
}

#[derive(Default)]
struct ShardState {
    counts: Counts,
    entries: Vec<RosterEntry>,
    vacant: Vec<u32>,
}

/// The shards that were used, by number. The first ones need no memory, which would be dearer than their locks.
#[derive(Default)]
struct LockedShards<'a> {
    first: [Option<MutexGuard<'a, ShardState>>; 8],
    others: Vec<MutexGuard<'a, ShardState>>,
}

impl LockedShards<'_> {
    fn iter(&self) -> impl Iterator<Item = &ShardState> {
        let first = self.first.iter().map_while(Option::as_ref);
        first.chain(&self.others).map(|state| &**state)
    }

    fn get_mut(&mut self, shard: usize) -> &mut ShardState {
        let first = self.first.len();
        match self.first.get_mut(shard) {
            Some(Some(state)) => state,
            _ => &mut self.others[shard - first],
        }
    }
}

/// Vacant entries of a shard that keep their memory: no more than are soon used again. It comes to about 20 kB.
const KEPT_ENTRIES: usize = 64;

impl ShardState {
    /// A burst is over, or comes to its end: gives back the memory of the entry that has just become one too many; and
    /// when all are vacant, that of the list. The ones that were vacated last are the next to be used, and keep theirs.
    #[cold]
    fn give_back(&mut self) {
        let beyond = self.vacant[self.vacant.len() - 1 - KEPT_ENTRIES];
        self.entries[beyond as usize] = RosterEntry::default();
        if self.vacant.len() == self.entries.len() {
            self.entries.truncate(KEPT_ENTRIES);
            self.entries.shrink_to_fit();
            self.vacant = (0..self.entries.len() as u32).collect();
        }
    }
}

/// A batch's place on the roster: which shard, which entry.
#[derive(Clone, Copy)]
pub(crate) struct RosterKey {
    /// One more than its index: so `Option` needs no room for its `None`.
    shard: NonZeroU32,
    entry: u32,
}

impl RosterKey {
    fn shard(self) -> usize {
        self.shard.get() as usize - 1
    }
}

/// The roster of a shard, while it is locked.
pub(crate) struct OpenRoster<'a> {
    since: Instant,
    shard: NonZeroU32,
    state: &'a mut ShardState,
}

impl OpenRoster<'_> {
    #[inline]
    pub(crate) fn register(&mut self, tasks: &Queue, extra: Option<Extra>) -> RosterKey {
        let entries = &mut self.state.entries;
        let entry = match self.state.vacant.pop() {
            Some(entry) => entry,
            None => {
                if entries.is_empty() {
                    // A thread that serves few requests at a time needs few.
                    entries.reserve_exact(1);
                }
                entries.push(RosterEntry::default());
                (entries.len() - 1) as u32
            }
        };
        entries[entry as usize].register(self.since, tasks, extra);
        let shard = self.shard;
        RosterKey { shard, entry }
    }
}

impl Account {
    pub(crate) fn new() -> Self {
        let shards = (sync::parallelism() * 2).next_power_of_two().min(64);
        Account {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            attention: AtomicUsize::new(0),
            drained: Event::default(),
            stopping: AtomicBool::new(false),
            stop: Event::default(),
            losses: Losses::default(),
            cut_off: AtomicBool::new(false),
        }
    }

    fn own_shard(&self) -> usize {
        sync::thread_number() & (self.shards.len() - 1)
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, ShardState> {
        // No user code runs under this lock, so nothing leaves the state half written.
        self.shards[shard]
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks all shards that were used: the first ones, because threads are numbered as they come.
    ///
    /// A thread whose shard is not among them gets its number after the last look at the numbers. So it sees what was done
    /// before that look, as if it had waited for a lock of ours. The last look is under the locks: what was published under
    /// one of them before was counted by threads that have numbers.
    fn lock_all(&self) -> LockedShards<'_> {
        let mut all = LockedShards::default();
        let mut locked = 0;
        while locked < self.shards.len() {
            let used = sync::numbered_threads(locked).min(self.shards.len());
            if used == locked {
                break;
            }
            // In ascending order, and everybody else holds one at most: no deadlock.
            for shard in locked..used {
                match all.first.get_mut(shard) {
                    Some(place) => *place = Some(self.lock(shard)),
                    None => all.others.push(self.lock(shard)),
                }
            }
            locked = used;
        }
        all
    }

    fn total(&self, all: &LockedShards<'_>) -> Counts {
        let mut total = Counts::default();
        for (shard, state) in self.shards.iter().zip(all.iter()) {
            total.add(&state.counts);
            // Relaxed: `open` counts a task before its end is published under one of the locks that we hold, so the lock makes
            // that count visible here (invariant 2). What `open` adds meanwhile only makes more pending: if the sum says that
            // nothing is pending, nothing was when the last lock was taken.
            total.deferred += shard.opened_by_owner.load(Ordering::Relaxed);
            total.deferred += shard.opened.load(Ordering::Relaxed);
        }
        total
    }

    /// The first defer of a scope, which is pending from here on. Wakes nobody.
    #[inline]
    pub(crate) fn open(&self) {
        match self.shards.get(sync::thread_number()) {
            Some(own) => {
                // Relaxed, here and below: the locks of the shards order these with `total`.
                let opened = own.opened_by_owner.load(Ordering::Relaxed);
                own.opened_by_owner.store(opened + 1, Ordering::Relaxed);
            }
            None => {
                let shared = &self.shards[self.own_shard()];
                shared.opened.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Changes one shard; if somebody waits for the account to be empty and this makes it so, lets them know.
    #[inline]
    fn change<R>(&self, shard: usize, change: impl FnOnce(&mut ShardState) -> R) -> R {
        let mut state = self.lock(shard);
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
        let mut all = self.lock_all();
        let result = change(all.get_mut(shard));
        let total = self.total(&all);
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
        self.change(self.own_shard(), |state| counts.add_to(&mut state.counts));
    }

    /// Puts a batch on the roster and publishes `counts`.
    #[inline]
    pub(crate) fn register(
        &self,
        counts: &Unpublished,
        tasks: &Queue,
        extra: Option<Extra>,
    ) -> RosterKey {
        self.register_each(counts, |roster| roster.register(tasks, extra))
    }

    /// As `register`, for batches that `batches` puts there, in one moment.
    #[inline]
    pub(crate) fn register_each<R>(
        &self,
        counts: &Unpublished,
        batches: impl FnOnce(&mut OpenRoster<'_>) -> R,
    ) -> R {
        let since = Instant::now_without_cache_update();
        let shard = self.own_shard();
        self.change(shard, |state| {
            counts.add_to(&mut state.counts);
            batches(&mut OpenRoster {
                since,
                shard: NonZeroU32::MIN.saturating_add(shard as u32),
                state,
            })
        })
    }

    /// Publishes what a batch has done in one turn, while some of its tasks are unfinished.
    pub(crate) fn update(
        &self,
        roster_key: RosterKey,
        counts: &Unpublished,
        ended_set: &EndedSet,
        joined: &Queue,
        extra: Option<Extra>,
    ) {
        self.change(roster_key.shard(), |state| {
            counts.add_to(&mut state.counts);
            let entry = &mut state.entries[roster_key.entry as usize];
            entry.finish(ended_set);
            entry.join(joined);
            entry.join_extra(extra)
        });
    }

    /// The batch has an inbox from now on.
    pub(crate) fn give_inbox(&self, roster_key: RosterKey, inbox: Arc<dyn Joining>) {
        let mut state = self.lock(roster_key.shard());
        state.entries[roster_key.entry as usize].give_inbox(inbox);
    }

    /// Takes a batch off the roster and publishes its last counts.
    #[inline]
    pub(crate) fn remove(&self, roster_key: RosterKey, counts: &Unpublished) {
        let extra = self.change(roster_key.shard(), |state| {
            counts.add_to(&mut state.counts);
            let extra = state.entries[roster_key.entry as usize].remove();
            state.vacant.push(roster_key.entry);
            if state.vacant.len() > KEPT_ENTRIES {
                state.give_back();
            }
            extra
        });
        // It may be the last that has the inbox, whose context is the user's: it goes when nothing is locked.
        Extra::drop(extra);
    }

    /// How long ago a batch was handed over.
    pub(crate) fn age(&self, roster_key: RosterKey) -> Duration {
        let now = Instant::now_without_cache_update();
        self.lock(roster_key.shard()).entries[roster_key.entry as usize].age(now)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.total(&self.lock_all())
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
        let all = self.lock_all();
        (self.total(&all).pending() > 0).then(|| NextEpoch::new(&self.drained))
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
        let all = self.lock_all();
        let now = Instant::now_without_cache_update();
        let entries = || all.iter().flat_map(|state| &state.entries);
        let mut unfinished: Vec<_> = entries().flat_map(|entry| entry.unfinished(now)).collect();
        let inboxes: Vec<_> = entries().filter_map(|entry| entry.inbox(now)).collect();
        let total = self.total(&all);
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
