//! What a report says of unfinished batches: one entry each, in the account's shards.

use std::{
    collections::BTreeMap, iter, mem, ops::Range, panic::Location, ptr, sync::Arc, time::Duration,
};

use coarsetime::Instant;

use super::{ended_set::EndedSet, stats::Unfinished};
use crate::{
    report::{Key, Label},
    task::{PollTask, Queue, TaskCell},
};

/// Where tasks wait that join a batch which has not looked at them yet.
pub(crate) trait Joining: Send + Sync {
    /// Those that wait there now. It may lock, and is not asked under a lock of the account.
    fn labels(&self) -> Vec<Label>;
}

/// One unfinished batch. A vacant entry keeps its memory for the next.
pub(crate) struct RosterEntry {
    /// The hand-over; of the batch before, while it is vacant.
    since: Instant,
    /// The first run of those that have not ended: nearly always this is all. It has ended while the entry is vacant.
    run: Run,
    more: Option<Box<More>>,
}

/// What few batches have.
#[derive(Default)]
struct More {
    /// Behind the first, in ascending order of their own first; what has ended is removed when it is more than half.
    runs: Vec<Run>,
    ended: u32,
    extra: Extra,
}

/// What batches on the fast path don't have.
#[derive(Default)]
pub(crate) struct Extra {
    /// By the sequence of the task. As a rule there are none, and then no map: to drop an empty one costs something.
    keys: Option<BTreeMap<u64, Key>>,
    /// What joins the batch waits here until its next poll.
    inbox: Option<Arc<dyn Joining>>,
}

impl Extra {
    #[inline]
    fn is_some(&self) -> bool {
        self.inbox.is_some() || self.keys.is_some()
    }

    /// When nothing is locked. As a rule there is none, which costs one test.
    #[inline]
    pub(crate) fn drop(extra: Option<Extra>) {
        #[cold]
        fn drop_it(extra: Extra) {
            drop(extra);
        }
        if let Some(extra) = extra {
            drop_it(extra);
        }
    }

    /// To be made before the lock is taken.
    #[cold]
    pub(crate) fn of(tasks: &Queue, inbox: Option<&Arc<impl Joining + 'static>>) -> Option<Extra> {
        let mut keys = None;
        tasks.iter().for_each(|task| {
            if let Some(key) = task.key() {
                let keys: &mut BTreeMap<_, _> = keys.get_or_insert_default();
                keys.insert(task.sequence(), key.clone());
            }
        });
        let inbox = inbox.map(|inbox| inbox.clone() as Arc<dyn Joining>);
        let extra = Extra { keys, inbox };
        extra.is_some().then_some(extra)
    }
}

/// Tasks of one name, deferred one after another from one place: a loop that defers thousands takes a bit for each.
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

/// An entry with room for more runs than this gives its memory back.
const KEPT_CAPACITY: usize = 64;

impl Default for RosterEntry {
    /// A vacant one.
    fn default() -> Self {
        RosterEntry {
            since: Instant::from_ticks(0),
            run: Run::NONE,
            more: None,
        }
    }
}

impl RosterEntry {
    #[inline(always)]
    pub(crate) fn register(&mut self, since: Instant, tasks: &Queue, extra: Option<Extra>) {
        debug_assert!(self.run.has_ended(), "it is not vacant");
        self.since = since;
        if let Some(extra) = extra {
            self.more.get_or_insert_default().extra = extra;
        }
        self.join_from(Run::NONE, tasks);
    }

    pub(crate) fn join(&mut self, tasks: &Queue) {
        if !tasks.is_empty() {
            let last = self.take_last();
            self.join_from(last, tasks);
        }
    }

    /// `run` is the last so far, out of its place while it grows.
    #[inline]
    fn join_from(&mut self, mut run: Run, tasks: &Queue) {
        tasks.iter().for_each(|task| {
            if !run.take_in(task) {
                if !run.has_ended() {
                    self.add(&run);
                }
                run = Run::new(task);
            }
        });
        match &self.more {
            // Nearly always it is the only one.
            None if self.run.has_ended() => self.run = run,
            _ => self.add(&run),
        }
    }

    fn take_last(&mut self) -> Run {
        if let Some(more) = &mut self.more {
            if let Some(run) = more.runs.pop() {
                more.ended -= u32::from(run.has_ended());
                return run;
            }
        }
        mem::replace(&mut self.run, Run::NONE)
    }

    #[inline(never)]
    fn add(&mut self, run: &Run) {
        match &mut self.more {
            Some(more) if !more.runs.is_empty() || !self.run.has_ended() => more.runs.push(*run),
            None if !self.run.has_ended() => {
                self.more.get_or_insert_default().runs.push(*run);
            }
            _ => self.run = *run,
        }
    }

    /// Gives back what is too much, to be dropped without the lock.
    #[must_use]
    pub(crate) fn join_extra(&mut self, extra: Option<Extra>) -> Option<Extra> {
        let mut extra = extra?;
        let own = &mut self.more.get_or_insert_default().extra;
        // Not `append`, which costs as much as both are long.
        if let Some(keys) = extra.keys.take() {
            own.keys.get_or_insert_default().extend(keys);
        }
        if own.inbox.is_none() {
            own.inbox = extra.inbox.take();
        }
        Some(extra)
    }

    pub(crate) fn give_inbox(&mut self, inbox: Arc<dyn Joining>) {
        self.more.get_or_insert_default().extra.inbox = Some(inbox);
    }

    fn extra(&self) -> Option<&Extra> {
        self.more.as_ref().map(|more| &more.extra)
    }

    #[inline]
    pub(crate) fn finish(&mut self, ended_set: &EndedSet) {
        ended_set.for_each(|sequences| {
            self.run.finish(&sequences);
            if let Some(more) = &mut self.more {
                more.finish(sequences);
            }
        });
    }

    #[inline]
    #[must_use]
    pub(crate) fn remove(&mut self) -> Option<Extra> {
        self.run.unfinished = 0;
        self.more.as_mut()?.clear()
    }

    /// Since the hand-over.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.since).into()
    }

    pub(crate) fn unfinished(&self, now: Instant) -> impl Iterator<Item = Unfinished> {
        let age = self.age(now);
        let more = self.more.iter().flat_map(|more| &more.runs);
        iter::once(&self.run).chain(more).flat_map(move |run| {
            let distances = (0..u64::BITS).filter(move |bit| run.unfinished >> bit & 1 == 1);
            distances.map(move |distance| {
                let sequence = run.first + u64::from(distance);
                let extra = self.extra();
                let task = Label {
                    name: run.name,
                    key: extra.and_then(|extra| extra.keys.as_ref()?.get(&sequence).cloned()),
                    location: run.location,
                };
                Unfinished::of(task, age)
            })
        })
    }

    /// With the age of the batch.
    pub(crate) fn inbox(&self, now: Instant) -> Option<(Duration, Arc<dyn Joining>)> {
        let inbox = self.extra()?.inbox.clone()?;
        Some((self.age(now), inbox))
    }
}

impl More {
    fn finish(&mut self, sequences: Range<u64>) {
        if let Some(keys) = &mut self.extra.keys {
            for sequence in sequences.clone() {
                keys.remove(&sequence);
            }
        }
        let after = self
            .runs
            .partition_point(|run| run.first <= sequences.start);
        for run in &mut self.runs[after.saturating_sub(1)..] {
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

    /// Its batch has ended. Gives back what is to be dropped without the lock.
    #[inline]
    fn clear(&mut self) -> Option<Extra> {
        self.ended = 0;
        match self.runs.capacity() > KEPT_CAPACITY {
            true => self.runs = Vec::new(),
            false => self.runs.clear(),
        }
        self.extra.is_some().then(|| mem::take(&mut self.extra))
    }
}
