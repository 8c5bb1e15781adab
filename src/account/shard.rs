//! The shards of an account, one of which a thread uses: what they hold, and how they are locked.

use std::num::NonZeroU32;

use coarsetime::Instant;

use super::{
    counts::Counts,
    roster::{Extra, RosterEntry},
};
use crate::{
    sync::{
        self, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::Queue,
};

/// The shards, by number. A power of two.
pub(super) struct Shards {
    shards: Box<[Shard]>,
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

/// What is under the lock of a shard.
#[derive(Default)]
pub(super) struct ShardState {
    pub(super) counts: Counts,
    entries: Vec<RosterEntry>,
    vacant: Vec<u32>,
}

/// The shards that were used, by number. The first ones need no memory, which would be dearer than their locks.
#[derive(Default)]
pub(super) struct LockedShards<'a> {
    first: [Option<MutexGuard<'a, ShardState>>; 8],
    others: Vec<MutexGuard<'a, ShardState>>,
}

impl LockedShards<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &ShardState> {
        let first = self.first.iter().map_while(Option::as_ref);
        first.chain(&self.others).map(|state| &**state)
    }

    pub(super) fn get_mut(&mut self, shard: usize) -> &mut ShardState {
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
    pub(super) fn entries(&self) -> &[RosterEntry] {
        &self.entries
    }

    #[inline]
    pub(super) fn entry(&mut self, roster_key: RosterKey) -> &mut RosterEntry {
        &mut self.entries[roster_key.entry as usize]
    }

    /// Its place is free again. What it gives back is to be dropped without the lock.
    #[inline]
    #[must_use]
    pub(super) fn remove(&mut self, roster_key: RosterKey) -> Option<Box<Extra>> {
        let extra = self.entry(roster_key).remove();
        self.vacant.push(roster_key.entry);
        if self.vacant.len() > KEPT_ENTRIES {
            self.give_back();
        }
        extra
    }

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
    pub(super) fn shard(self) -> usize {
        self.shard.get() as usize - 1
    }
}

/// The roster of a shard, while it is locked.
pub(crate) struct OpenRoster<'a> {
    since: Instant,
    shard: NonZeroU32,
    state: &'a mut ShardState,
}

impl<'a> OpenRoster<'a> {
    pub(super) fn new(state: &'a mut ShardState, shard: usize, since: Instant) -> Self {
        OpenRoster {
            since,
            shard: NonZeroU32::MIN.saturating_add(shard as u32),
            state,
        }
    }

    #[inline(always)]
    pub(crate) fn register(&mut self, tasks: &Queue, extra: Option<Box<Extra>>) -> RosterKey {
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

impl Shards {
    pub(super) fn new() -> Self {
        let shards = (sync::parallelism() * 2).next_power_of_two().min(64);
        Shards {
            shards: (0..shards).map(|_| Shard::default()).collect(),
        }
    }

    /// That of this thread.
    pub(super) fn own(&self) -> usize {
        sync::thread_number() & (self.shards.len() - 1)
    }

    pub(super) fn lock(&self, shard: usize) -> MutexGuard<'_, ShardState> {
        sync::lock(&self.shards[shard].state)
    }

    /// Locks all shards that were used: the first ones, because threads are numbered as they come.
    ///
    /// A thread whose shard is not among them gets its number after the last look at the numbers. So it sees what was done
    /// before that look, as if it had waited for a lock of ours. The last look is under the locks: what was published under
    /// one of them before was counted by threads that have numbers.
    pub(super) fn lock_all(&self) -> LockedShards<'_> {
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

    pub(super) fn total(&self, all: &LockedShards<'_>) -> Counts {
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
    pub(super) fn open(&self) {
        match self.shards.get(sync::thread_number()) {
            Some(own) => {
                // Relaxed, here and below: the locks of the shards order these with `total`.
                let opened = own.opened_by_owner.load(Ordering::Relaxed);
                own.opened_by_owner.store(opened + 1, Ordering::Relaxed);
            }
            None => {
                let shared = &self.shards[self.own()];
                shared.opened.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
