//! What a report says of unfinished batches: one entry each, in the account's shards.

use std::{panic::Location, time::Duration};

use coarsetime::Instant;

use crate::{
    node::{Node, Queue, Work},
    stats::Unfinished,
};

/// One unfinished batch. A vacant entry keeps its memory for the next.
#[derive(Default)]
pub(crate) struct Entry {
    since: Option<Instant>,
    /// In ascending order of `sequence`; what has finished is marked, and removed when it is more than half.
    tasks: Vec<Named>,
    finished: usize,
}

struct Named {
    sequence: u64,
    name: &'static str,
    location: &'static Location<'static>,
    finished: bool,
}

impl Named {
    #[inline]
    fn new(node: &Node<dyn Work>) -> Self {
        Named {
            sequence: node.sequence(),
            name: node.name(),
            location: node.location(),
            finished: false,
        }
    }
}

/// An entry with room for more tasks than this gives its memory back.
const KEPT_CAPACITY: usize = 64;

impl Entry {
    #[inline]
    pub(crate) fn occupy(&mut self, since: Instant, tasks: &Queue) {
        self.since = Some(since);
        self.join(tasks);
    }

    #[inline]
    pub(crate) fn join(&mut self, tasks: &Queue) {
        if self.tasks.is_empty() {
            // Of a million scopes with one task each, four places would be most of the memory.
            self.tasks.reserve_exact(tasks.len());
        } else {
            self.tasks.reserve(tasks.len());
        }
        tasks.for_each(|node| self.tasks.push(Named::new(node)));
    }

    pub(crate) fn finish(&mut self, finished: impl Iterator<Item = u64>) {
        for sequence in finished {
            if let Ok(index) = self
                .tasks
                .binary_search_by_key(&sequence, |task| task.sequence)
            {
                self.tasks[index].finished = true;
                self.finished += 1;
            }
        }
        if self.finished > KEPT_CAPACITY && self.finished > self.tasks.len() / 2 {
            self.tasks.retain(|task| !task.finished);
            self.tasks.shrink_to(KEPT_CAPACITY);
            self.finished = 0;
        }
    }

    #[inline]
    pub(crate) fn vacate(&mut self) {
        self.since = None;
        self.finished = 0;
        self.tasks.clear();
        if self.tasks.capacity() > KEPT_CAPACITY {
            self.tasks = Vec::new();
        }
    }

    /// Since the hand-over; nothing for a vacant entry.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| now.duration_since(since).into())
    }

    pub(crate) fn unfinished(&self, now: Instant) -> impl Iterator<Item = Unfinished> {
        let age = self.age(now);
        self.tasks
            .iter()
            .filter(|task| !task.finished)
            .map(move |task| Unfinished {
                name: task.name,
                location: task.location,
                age,
            })
    }
}
