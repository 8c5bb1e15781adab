//! Tasks that wait for the hand-over, or, deferred by a running task, for the next turn.

use std::{collections::HashMap, mem};

use super::{
    cell::BoxedTask,
    queue::{Queue, Stack},
};
use crate::report::{Key, Label};

/// So many tasks with a key are looked through: a table of them would cost more. Others are hashed.
const FEW: usize = 4;

/// Tasks in the order of deferral, of which those with a key can be taken back.
///
/// A singly linked stack gives nothing back from its middle, so keyed tasks stand apart until the order is asked for.
#[derive(Default)]
pub(crate) struct Backlog {
    newest: Stack,
    /// If all of them were taken back, its memory is kept with the scope's box: it is small.
    few: Vec<(Key, BoxedTask)>,
    // Boxed, because each scope has the place of it and hardly one the table.
    #[allow(clippy::box_collection)]
    many: Option<Box<HashMap<Key, BoxedTask>>>,
    len: usize,
    next_sequence: u64,
}

impl Backlog {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What would be taken now, in the order of deferral.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let few = self.few.iter().map(|(key, task)| (key, task));
        let keyed = few.chain(self.many.iter().flat_map(|many| many.iter()));
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
        let replaced = self.remove(key.as_str());
        self.number(&mut task);
        match self.few.len() < FEW {
            true => self.few.push((key, task)),
            false => {
                self.many.get_or_insert_default().insert(key, task);
            }
        }
        replaced
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<(Key, BoxedTask)> {
        let of_few = self.few.iter().position(|(of, _)| of.as_str() == key);
        let removed = match of_few {
            Some(place) => self.few.swap_remove(place),
            None => {
                let removed = self.many.as_mut()?.remove_entry(key)?;
                // A box of a scope may be kept: not with a table in it, however large that has been.
                self.many.take_if(|many| many.is_empty());
                removed
            }
        };
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
        if !self.few.is_empty() || self.many.is_some() {
            self.merge_into(&mut ordered);
        }
        while let Some(task) = self.newest.pop() {
            ordered.push(task);
        }
        Queue::from_ordered(ordered, len)
    }

    #[cold]
    fn merge_into(&mut self, ordered: &mut Stack) {
        let mut keyed = mem::take(&mut self.few);
        keyed.extend(self.many.take().into_iter().flat_map(|many| *many));
        keyed.sort_unstable_by_key(|(_, task)| task.sequence());
        while let Some(last) = keyed.pop() {
            let last = with_key(last);
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
