//! Tasks that wait for the hand-over, or, deferred by a running task, for the next turn.

use std::collections::HashMap;

use super::{
    node::Link,
    queue::{Queue, Stack},
};
use crate::report::{Key, Label};

type Keyed = HashMap<Key, Link>;

/// Tasks in the order of deferral, of which those with a key can be taken back.
///
/// A singly linked stack gives nothing back from its middle, so keyed tasks stand apart until the order is asked for.
#[derive(Default)]
pub(crate) struct Collected {
    newest: Stack,
    keyed: Option<Box<Keyed>>,
    len: usize,
    next_sequence: u64,
}

impl Collected {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What would be taken now, in the order of deferral.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let keyed = self.keyed.iter().flat_map(|keyed| keyed.iter());
        let keyed = keyed.map(|(key, node)| (node.sequence(), node.label().with_key(key)));
        let others = self.newest.iter();
        let others = others.map(|node| (node.sequence(), node.label()));
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
    pub(crate) fn push(&mut self, mut node: Link) {
        self.number(&mut node);
        self.newest.push(node);
    }

    /// The task with the same key that this one replaces is given back: dropping it is the user's code.
    pub(crate) fn push_keyed(&mut self, key: Key, mut node: Link) -> Option<(Key, Link)> {
        self.number(&mut node);
        let of_replaced = key.clone();
        let replaced = self.keyed.get_or_insert_default().insert(key, node)?;
        self.len -= 1;
        Some((of_replaced, replaced))
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<(Key, Link)> {
        let removed = self.keyed.as_mut()?.remove_entry(key)?;
        self.len -= 1;
        Some(removed)
    }

    #[inline]
    fn number(&mut self, node: &mut Link) {
        node.as_mut().set_sequence(self.next_sequence);
        self.next_sequence += 1;
        self.len += 1;
    }

    /// Takes everything, in the order of deferral.
    #[inline]
    pub(crate) fn take(&mut self) -> Queue {
        let len = std::mem::take(&mut self.len);
        let mut ordered = Stack::default();
        if self.keyed.is_none() {
            while let Some(node) = self.newest.pop() {
                ordered.push(node);
            }
        } else {
            self.merge_into(&mut ordered);
        }
        Queue::from_ordered(ordered, len)
    }

    #[cold]
    fn merge_into(&mut self, ordered: &mut Stack) {
        let mut keyed: Vec<Link> = self
            .keyed
            .take()
            .map(|keyed| keyed.into_iter().map(with_key).collect())
            .unwrap_or_default();
        keyed.sort_unstable_by_key(|node| node.sequence());
        while let Some(node) = self.newest.pop() {
            while keyed
                .last()
                .is_some_and(|last| last.sequence() > node.sequence())
            {
                if let Some(node) = keyed.pop() {
                    ordered.push(node);
                }
            }
            ordered.push(node);
        }
        while let Some(node) = keyed.pop() {
            ordered.push(node);
        }
    }
}

/// From here on it can't be taken back by its key, which is for reports and observers.
fn with_key((key, mut node): (Key, Link)) -> Link {
    if node.key().is_none() {
        node.as_mut().give_key(key);
    }
    node
}
