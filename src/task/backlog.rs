//! Tasks that wait for the hand-over, or, deferred by a running task, for the next turn.

use std::{collections::HashMap, mem};

use super::{
    cell::BoxedTask,
    queue::{Queue, Stack},
};
use crate::report::{Key, Label};

/// Tasks that can be taken back by their key. As a rule they are few, and then a table of them would cost more than the
/// looks at all of them.
#[derive(Default)]
struct Keyed {
    few: [Option<(Key, BoxedTask)>; FEW],
    many: HashMap<Key, BoxedTask>,
}

const FEW: usize = 4;

impl Keyed {
    fn iter(&self) -> impl Iterator<Item = (&Key, &BoxedTask)> {
        let few = self.few.iter().flatten().map(|(key, task)| (key, task));
        few.chain(&self.many)
    }

    fn into_iter(self) -> impl Iterator<Item = (Key, BoxedTask)> {
        self.few.into_iter().flatten().chain(self.many)
    }

    fn insert(&mut self, key: Key, task: BoxedTask) -> Option<(Key, BoxedTask)> {
        let replaced = self.remove(key.as_str());
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                let gap = place.replace((key, task));
                mem::forget(gap);
            }
            None => {
                self.many.insert(key, task);
            }
        }
        replaced
    }

    fn remove(&mut self, key: &str) -> Option<(Key, BoxedTask)> {
        let has_it = |(of, _): &mut (Key, BoxedTask)| of.as_str() == key;
        let found = self.few.iter_mut().find_map(|place| place.take_if(has_it));
        match found {
            None if !self.many.is_empty() => self.many.remove_entry(key),
            found => found,
        }
    }
}

/// Tasks in the order of deferral, of which those with a key can be taken back.
///
/// A singly linked stack gives nothing back from its middle, so keyed tasks stand apart until the order is asked for.
#[derive(Default)]
pub(crate) struct Backlog {
    newest: Stack,
    keyed: Option<Box<Keyed>>,
    len: usize,
    next_sequence: u64,
}

impl Backlog {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What would be taken now, in the order of deferral.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let keyed = self.keyed.iter().flat_map(|keyed| keyed.iter());
        let keyed = keyed.map(|(key, task)| (task.sequence(), task.label().with_key(key)));
        let others = self.newest.iter();
        let others = others.map(|task| (task.sequence(), task.label()));
        let mut tasks: Vec<_> = keyed.chain(others).collect();
        tasks.sort_unstable_by_key(|(sequence, _)| *sequence);
        tasks.into_iter().map(|(_, label)| label).collect()
    }

    /// Numbers on from a task that was numbered elsewhere.
    pub(crate) fn continue_after(&mut self, sequence: u64) {
        self.next_sequence = sequence + 1;
    }

    /// Numbers from the beginning again. For what is empty.
    pub(crate) fn restart(&mut self) {
        self.next_sequence = 0;
    }

    #[inline]
    pub(crate) fn push(&mut self, mut task: BoxedTask) {
        self.number(&mut task);
        self.newest.push(task);
    }

    /// The task with the same key that this one replaces is given back: dropping it is the user's code.
    pub(crate) fn push_keyed(&mut self, key: Key, mut task: BoxedTask) -> Option<(Key, BoxedTask)> {
        self.number(&mut task);
        let replaced = self.keyed.get_or_insert_default().insert(key, task)?;
        self.len -= 1;
        Some(replaced)
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<(Key, BoxedTask)> {
        let removed = self.keyed.as_mut()?.remove(key)?;
        self.len -= 1;
        Some(removed)
    }

    #[inline]
    fn number(&mut self, task: &mut BoxedTask) {
        task.as_mut().set_sequence(self.next_sequence);
        self.next_sequence += 1;
        self.len += 1;
    }

    /// Takes everything, in the order of deferral.
    #[inline]
    pub(crate) fn take(&mut self) -> Queue {
        let len = mem::take(&mut self.len);
        let mut ordered = Stack::default();
        if let Some(keyed) = self.keyed.take() {
            self.merge_into(&mut ordered, *keyed);
        }
        while let Some(task) = self.newest.pop() {
            ordered.push(task);
        }
        Queue::from_ordered(ordered, len)
    }

    #[cold]
    fn merge_into(&mut self, ordered: &mut Stack, keyed: Keyed) {
        let mut keyed: Vec<BoxedTask> = keyed.into_iter().map(with_key).collect();
        keyed.sort_unstable_by_key(|task| task.sequence());
        while let Some(last) = keyed.pop() {
            while let Some(later) = self.newest.pop_after(last.sequence()) {
                ordered.push(later);
            }
            ordered.push(last);
        }
    }
}

/// From here on it can't be taken back by its key, which is for reports and observers.
fn with_key((key, mut task): (Key, BoxedTask)) -> BoxedTask {
    if task.key().is_none() {
        task.as_mut().give_key(key);
    }
    task
}
