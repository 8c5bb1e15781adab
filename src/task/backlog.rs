//! Tasks that wait for the hand-over, or, deferred by a running task, for the next turn.

use std::{collections::HashMap, mem};

use super::{
    cell::BoxedTask,
    queue::{Queue, Slots},
};
use crate::report::{Key, Label};

/// So many tasks with a key are looked through: a table of them would cost more. Others are hashed.
const FEW: usize = 4;

/// With room for so many tasks an empty list is kept with the box of its scope.
const KEPT_CAPACITY: usize = 32;

/// Tasks in the order of deferral, of which those with a key can be taken back.
///
/// To take one out of the middle of a list moves all behind it, so keyed tasks stand apart until the order is asked for.
#[derive(Default)]
pub(crate) struct Backlog {
    unkeyed: Slots,
    keyed: Option<Box<Keyed>>,
    next_sequence: u64,
}

/// The tasks with a key.
#[derive(Default)]
pub(crate) struct Keyed {
    few: Vec<BoxedTask>,
    many: HashMap<Key, BoxedTask>,
}

impl Backlog {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.unkeyed.is_empty() && !self.has_keys()
    }

    #[inline]
    pub(crate) fn has_keys(&self) -> bool {
        self.keyed.as_ref().is_some_and(|keyed| keyed.len() > 0)
    }

    pub(crate) fn len(&self) -> usize {
        let keyed = self.keyed.as_ref().map_or(0, |keyed| keyed.len());
        keyed + self.unkeyed.len()
    }

    /// What would be taken now, in the order of deferral.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let keyed = self.keyed.iter().flat_map(|keyed| keyed.iter());
        let all = keyed.chain(self.unkeyed.iter().flatten());
        let mut tasks: Vec<_> = all.map(|task| (task.sequence(), task.label())).collect();
        tasks.sort_unstable_by_key(|(sequence, _)| *sequence);
        tasks.into_iter().map(|(_, label)| label).collect()
    }

    /// Numbers on from a task that was numbered elsewhere.
    pub(crate) fn continue_after(&mut self, sequence: u64) {
        self.next_sequence = sequence + 1;
    }

    /// Drops all.
    pub(crate) fn clear(&mut self) {
        self.unkeyed.clear();
        self.keyed = None;
    }

    /// Numbers from the beginning again. For what is empty.
    #[inline]
    pub(crate) fn restart(&mut self) {
        self.next_sequence = 0;
    }

    /// Takes over the memory of a queue that is empty, unless there is some already, or it is large.
    #[inline]
    pub(crate) fn reuse(&mut self, queue: &mut Queue) {
        if queue.has_memory() {
            let memory = queue.take_memory();
            if self.unkeyed.capacity() == 0 && memory.capacity() <= KEPT_CAPACITY {
                self.unkeyed = memory;
            }
        }
    }

    /// The first is to be pushed. A million scopes of one may wait: room for one, unless there is more already.
    #[inline]
    pub(crate) fn begin(&mut self) {
        if self.unkeyed.capacity() == 0 {
            self.unkeyed.reserve_exact(1);
        }
    }

    /// None is left. The box for a few is kept, with that of the scope, and none that is larger, however many there were.
    #[inline]
    fn shrink(&mut self) {
        let large =
            |keyed: &mut Box<Keyed>| keyed.few.capacity() > FEW || keyed.many.capacity() > 0;
        drop(self.keyed.take_if(large));
    }

    #[inline]
    pub(crate) fn push(&mut self, mut task: BoxedTask) {
        self.number(&mut task);
        self.unkeyed.push(Some(task));
    }

    /// As `push`, for a task with a key. The one with the same key that it replaces is given back: dropping it is the user's
    /// code.
    pub(crate) fn push_keyed(&mut self, mut task: BoxedTask) -> Option<BoxedTask> {
        self.number(&mut task);
        let keyed = self.keyed.get_or_insert_default();
        let replaced = task.key().and_then(|key| keyed.remove(key.as_str()));
        match task.key().filter(|_| keyed.few.len() == FEW).cloned() {
            None => keyed.few.push(task),
            Some(key) => drop(keyed.many.insert(key, task)),
        }
        replaced
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<BoxedTask> {
        let keyed = self.keyed.as_mut()?;
        let removed = keyed.remove(key);
        if keyed.len() == 0 {
            self.shrink();
        }
        removed
    }

    #[inline]
    fn number(&mut self, task: &mut BoxedTask) {
        task.as_mut().set_sequence(self.next_sequence);
        self.next_sequence += 1;
    }

    /// Takes everything, in the order of deferral.
    #[inline]
    pub(crate) fn take(&mut self) -> Queue {
        if self.has_keys() {
            self.merge();
        }
        Queue::of(mem::take(&mut self.unkeyed))
    }

    #[cold]
    fn merge(&mut self) {
        if let Some(Keyed { few, many }) = self.keyed.as_deref_mut() {
            let many = many.drain().map(|(_, task)| task);
            self.unkeyed.extend(few.drain(..).chain(many).map(Some));
            // What is in order already is found to be.
            self.unkeyed
                .sort_by_key(|task| task.as_ref().map(|task| task.sequence()));
        }
        self.shrink();
    }
}

impl Keyed {
    fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }

    fn iter(&self) -> impl Iterator<Item = &BoxedTask> {
        self.few.iter().chain(self.many.values())
    }

    fn remove(&mut self, key: &str) -> Option<BoxedTask> {
        let has_key = |task: &BoxedTask| task.key().is_some_and(|of| of.as_str() == key);
        match self.few.iter().position(has_key) {
            Some(place) => Some(self.few.swap_remove(place)),
            // Before it is hashed.
            None if self.many.is_empty() => None,
            None => self.many.remove(key),
        }
    }
}
