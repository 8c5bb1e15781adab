//! Tasks that wait for the hand-over, or, deferred by a running task, for the next turn.

use std::collections::HashMap;

use super::{
    cell::BoxedTask,
    queue::{Queue, Stack},
};
use crate::report::{Key, Label};

type Keyed = HashMap<Key, BoxedTask>;

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
        let of_replaced = key.clone();
        let replaced = self.keyed.get_or_insert_default().insert(key, task)?;
        self.len -= 1;
        Some((of_replaced, replaced))
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<(Key, BoxedTask)> {
        let removed = self.keyed.as_mut()?.remove_entry(key)?;
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
        let len = std::mem::take(&mut self.len);
        let mut ordered = Stack::default();
        if self.keyed.is_none() {
            while let Some(task) = self.newest.pop() {
                ordered.push(task);
            }
        } else {
            self.merge_into(&mut ordered);
        }
        Queue::from_ordered(ordered, len)
    }

    #[cold]
    fn merge_into(&mut self, ordered: &mut Stack) {
        let mut keyed: Vec<BoxedTask> = self
            .keyed
            .take()
            .map(|keyed| keyed.into_iter().map(with_key).collect())
            .unwrap_or_default();
        keyed.sort_unstable_by_key(|task| task.sequence());
        while let Some(task) = self.newest.pop() {
            while keyed
                .last()
                .is_some_and(|last| last.sequence() > task.sequence())
            {
                if let Some(task) = keyed.pop() {
                    ordered.push(task);
                }
            }
            ordered.push(task);
        }
        while let Some(task) = keyed.pop() {
            ordered.push(task);
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
