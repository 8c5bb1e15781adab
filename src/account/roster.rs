//! What a report says of unfinished batches: one entry each, in the account's shards.

use std::{
    collections::BTreeMap, iter, mem, ops::Range, panic::Location, ptr, sync::Arc, time::Duration,
};

use coarsetime::Instant;

use super::{ended_set::EndedSet, stats::Unfinished};
use crate::{
    pool::Pool,
    report::{Key, Label},
    task::{PollTask, Queue, TaskCell},
};

/// Where tasks wait that join a batch which has not looked at them yet.
pub(crate) trait Joining: Send + Sync {
    /// Those that wait there now. It may lock, and is not asked under a lock of the account.
    fn labels(&self) -> Vec<Label>;
}

/// One unfinished batch.
pub(crate) struct RosterEntry {
    /// The hand-over; of the batch before, while it is vacant.
    since: Instant,
    /// The first run of those that have not ended: nearly always this is all. It has ended while the entry is vacant.
    run: Run,
    extra: Option<Box<Extra>>,
}

/// What few batches have.
#[derive(Default)]
pub(crate) struct Extra {
    /// Behind the first, in ascending order of their own first; what has ended is removed when it is more than half.
    runs: Vec<Run>,
    ended: u32,
    /// By the sequence of the task.
    keys: BTreeMap<u64, Key>,
    /// What joins the batch waits here until its next poll.
    inbox: Option<Arc<dyn Joining>>,
}

thread_local! {
    /// About 1 kB, and up to 40 more for their runs: a request whose handle outlives it needs one.
    static SPARES: Pool<Extra, 16> = const { Pool::new() };
}

impl Extra {
    fn new() -> Box<Extra> {
        // An error where this thread's locals are being destroyed.
        let spare = SPARES.try_with(Pool::take);
        spare.ok().flatten().unwrap_or_default()
    }

    /// When nothing is locked: what is in it may be the last of the user's values.
    #[cold]
    pub(crate) fn give_up(mut self: Box<Self>) {
        self.inbox = None;
        self.keys.clear();
        self.runs.clear();
        self.ended = 0;
        if self.runs.capacity() <= KEPT_CAPACITY {
            let _ = SPARES.try_with(|spares| spares.keep(self));
        }
    }

    /// To be made before the lock is taken.
    #[cold]
    pub(crate) fn of(
        tasks: &Queue,
        inbox: Option<&Arc<impl Joining + 'static>>,
    ) -> Option<Box<Extra>> {
        let mut extra: Option<Box<Extra>> = None;
        if let Some(inbox) = inbox {
            extra.get_or_insert_with(Extra::new).inbox = Some(inbox.clone());
        }
        for task in tasks.iter() {
            if let Some(key) = task.key() {
                let keys = &mut extra.get_or_insert_with(Extra::new).keys;
                keys.insert(task.sequence(), key.clone());
            }
        }
        extra
    }
}

/// Tasks of one name, deferred one after another from one place: a loop that defers thousands takes a bit for each. A count
/// would be simpler, but a report names each task's key, which is found by the number of the task.
#[derive(Clone, Copy)]
struct Run {
    /// The sequence of the first task.
    first: u64,
    /// A bit for each task that has not ended, by its distance from the first.
    unfinished: u64,
    name: &'static str,
    location: &'static Location<'static>,
}

impl Run {
    /// Of no task.
    const NONE: Run = Run {
        first: 0,
        unfinished: 0,
        name: "",
        location: Location::caller(),
    };

    #[inline]
    fn new(task: &TaskCell<dyn PollTask>) -> Self {
        Run {
            first: task.sequence(),
            unfinished: 1,
            name: task.name(),
            location: task.location(),
        }
    }

    /// The bit of a task that comes within its reach.
    #[inline]
    fn bit(&self, sequence: u64) -> Option<u64> {
        let distance = sequence.checked_sub(self.first)?;
        (distance < u64::from(u64::BITS)).then(|| 1 << distance)
    }

    /// Takes in a task that comes after all of its own, if it is of their kind.
    #[inline(always)]
    fn take_in(&mut self, task: &TaskCell<dyn PollTask>) -> bool {
        let same = ptr::eq(self.location, task.location()) && ptr::eq(self.name, task.name());
        match self.bit(task.sequence()) {
            // One that has ended is counted as such.
            Some(bit) if same && self.unfinished != 0 => {
                self.unfinished |= bit;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn finish(&mut self, sequences: &Range<u64>) {
        let begin = sequences.start.saturating_sub(self.first);
        let end = sequences.end.saturating_sub(self.first);
        let below = |end: u64| {
            1u64.checked_shl(end.min(64) as u32)
                .map_or(u64::MAX, |bit| bit - 1)
        };
        self.unfinished &= below(begin) | !below(end);
    }

    fn has_ended(&self) -> bool {
        self.unfinished == 0
    }
}

/// With room for more runs than this none is kept for the next batch.
const KEPT_CAPACITY: usize = 64;

impl Default for RosterEntry {
    /// A vacant one.
    fn default() -> Self {
        RosterEntry {
            since: Instant::from_ticks(0),
            run: Run::NONE,
            extra: None,
        }
    }
}

impl RosterEntry {
    #[inline(always)]
    pub(crate) fn register(&mut self, since: Instant, tasks: &Queue, extra: Option<Box<Extra>>) {
        debug_assert!(self.run.has_ended(), "it is not vacant");
        self.since = since;
        if extra.is_some() {
            self.extra = extra;
        }
        self.join(tasks);
    }

    /// Each run grows in its place: one that is built elsewhere, word by word, and copied as a whole is waited for.
    // Always, so that the hand-over calls nothing for it.
    #[inline(always)]
    pub(crate) fn join(&mut self, tasks: &Queue) {
        for task in tasks.iter() {
            match &mut self.extra {
                // Nearly always it is the only one.
                None if self.run.has_ended() => self.run = Run::new(task),
                None if self.run.take_in(task) => {}
                _ => self.add(task),
            }
        }
    }

    #[inline(never)]
    fn add(&mut self, task: &TaskCell<dyn PollTask>) {
        let extra = self.extra.get_or_insert_with(Extra::new);
        let last = extra.runs.last_mut();
        let in_extra = last.is_some();
        let last = last.unwrap_or(&mut self.run);
        if last.has_ended() {
            *last = Run::new(task);
            extra.ended -= u32::from(in_extra);
        } else if !last.take_in(task) {
            extra.runs.push(Run::new(task));
        }
    }

    /// Gives back what is too much, to be dropped without the lock.
    #[must_use]
    pub(crate) fn join_extra(&mut self, extra: Option<Box<Extra>>) -> Option<Box<Extra>> {
        let mut extra = extra?;
        let own = self.extra.get_or_insert_with(Extra::new);
        // Not `append`, which costs as much as both are long.
        own.keys.extend(mem::take(&mut extra.keys));
        if own.inbox.is_none() {
            own.inbox = extra.inbox.take();
        }
        Some(extra)
    }

    pub(crate) fn give_inbox(&mut self, inbox: Arc<dyn Joining>) {
        self.extra.get_or_insert_with(Extra::new).inbox = Some(inbox);
    }

    #[inline]
    pub(crate) fn finish(&mut self, ended_set: &EndedSet) {
        ended_set.for_each(|sequences| {
            self.run.finish(&sequences);
            if let Some(extra) = &mut self.extra {
                extra.finish(sequences);
            }
        });
    }

    /// Its batch has ended. Gives back what is to be dropped without the lock.
    #[inline]
    #[must_use]
    pub(crate) fn remove(&mut self) -> Option<Box<Extra>> {
        self.run.unfinished = 0;
        self.extra.take()
    }

    /// Since the hand-over.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.since).into()
    }

    pub(crate) fn unfinished(&self, now: Instant) -> impl Iterator<Item = Unfinished> {
        let age = self.age(now);
        let extra = self.extra.as_deref();
        let others = extra.into_iter().flat_map(|extra| &extra.runs);
        iter::once(&self.run).chain(others).flat_map(move |run| {
            let distances = (0..u64::BITS).filter(move |bit| run.unfinished >> bit & 1 == 1);
            distances.map(move |distance| {
                let sequence = run.first + u64::from(distance);
                let task = Label {
                    name: run.name,
                    key: extra.and_then(|extra| extra.keys.get(&sequence).cloned()),
                    location: run.location,
                };
                Unfinished::of(task, age)
            })
        })
    }

    /// With the age of the batch.
    pub(crate) fn inbox(&self, now: Instant) -> Option<(Duration, Arc<dyn Joining>)> {
        let inbox = self.extra.as_ref()?.inbox.clone()?;
        Some((self.age(now), inbox))
    }
}

impl Extra {
    /// The place of the last run that begins at this number or before, or of the first run.
    fn place_of(&self, sequence: u64) -> usize {
        // Of many tasks as a rule all are of one kind, and their runs are full: then this is where it stands. To search for it
        // is a tenth of what a task costs in a batch of 10,000.
        let first = self.runs.first().map_or(0, |run| run.first);
        let guess = (sequence.saturating_sub(first) / u64::from(u64::BITS)) as usize;
        let begins = |place: usize| {
            self.runs
                .get(place)
                .is_some_and(|run| run.first <= sequence)
        };
        if begins(guess) && !begins(guess + 1) {
            return guess;
        }
        let after = self.runs.partition_point(|run| run.first <= sequence);
        after.saturating_sub(1)
    }

    fn finish(&mut self, sequences: Range<u64>) {
        if !self.keys.is_empty() {
            for sequence in sequences.clone() {
                self.keys.remove(&sequence);
            }
        }
        let place = self.place_of(sequences.start);
        for run in &mut self.runs[place..] {
            if run.first >= sequences.end {
                break;
            }
            if run.unfinished != 0 {
                run.finish(&sequences);
                self.ended += u32::from(run.has_ended());
            }
        }
        let ended = self.ended as usize;
        if ended > KEPT_CAPACITY && ended > self.runs.len() / 2 {
            self.runs.retain(|run| !run.has_ended());
            self.runs.shrink_to(KEPT_CAPACITY);
            self.ended = 0;
        }
    }
}
