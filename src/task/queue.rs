//! The queue of tasks: each is a box, and two words here.

use std::mem;

use super::cell::{BoxedTask, PollTask, TaskCell};

/// The memory of a queue.
pub(super) type Slots = Vec<Option<BoxedTask>>;

/// Tasks, first in, first out.
///
/// Not a `VecDeque`: its fields are written one by one and moved together, for which the processor waits each time; and to
/// give its memory on takes longer than the rest.
#[derive(Default)]
pub(crate) struct Queue {
    /// Empty before `first`, and where a task is [taken out](Queue::first_slots), of which `len` and `is_empty` don't know.
    slots: Slots,
    first: usize,
}

/// A queue with room for more than this gives memory back as its tasks end.
const KEPT_CAPACITY: usize = 64;

impl Queue {
    #[inline]
    pub(super) fn of(slots: Slots) -> Self {
        Queue { slots, first: 0 }
    }

    /// The memory, when nothing is left.
    #[inline]
    pub(super) fn take_memory(&mut self) -> Slots {
        mem::take(&mut self.slots)
    }

    #[inline]
    pub(crate) fn has_memory(&self) -> bool {
        self.slots.capacity() != 0
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.first
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[inline]
    pub(crate) fn push_back(&mut self, task: BoxedTask) {
        if self.slots.len() == self.slots.capacity() && self.first > self.len() / 16 {
            self.drop_vacant();
        }
        self.slots.push(Some(task));
    }

    pub(crate) fn push_front(&mut self, task: BoxedTask) {
        match self.first.checked_sub(1) {
            Some(before) => {
                self.first = before;
                self.slots[before] = Some(task);
            }
            None => self.slots.insert(0, Some(task)),
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<BoxedTask> {
        let task = self.slots.get_mut(self.first)?.take();
        self.first += 1;
        self.reset_if_empty();
        task
    }

    #[inline]
    fn reset_if_empty(&mut self) {
        if self.first == self.slots.len() {
            self.clear();
        }
    }

    /// The places of the first tasks, so many or all. What is taken out leaves a gap, until [`close_up`](Queue::close_up).
    #[inline]
    pub(crate) fn first_slots(&mut self, tasks: usize) -> &mut [Option<BoxedTask>] {
        let slots = &mut self.slots[self.first..];
        let tasks = tasks.min(slots.len());
        &mut slots[..tasks]
    }

    /// The first one, whose place becomes a gap.
    #[inline]
    pub(crate) fn lend_first(&mut self) -> Option<BoxedTask> {
        self.slots.get_mut(self.first)?.take()
    }

    /// Puts it back.
    #[inline]
    pub(crate) fn put_first(&mut self, task: BoxedTask) {
        if let Some(slot) = self.slots.get_mut(self.first) {
            let gap = slot.replace(task);
            debug_assert!(gap.is_none(), "it was not lent");
            mem::forget(gap);
        }
    }

    /// Closes so many gaps among the first places.
    // Always, so that a round calls nothing for it.
    #[inline(always)]
    pub(crate) fn close_up(&mut self, places: usize, gaps: usize) {
        if gaps == 0 {
            return;
        }
        if gaps < places {
            let mut free = places;
            let slots = self.first_slots(places);
            for place in (0..slots.len()).rev() {
                if slots[place].is_some() {
                    free -= 1;
                    slots.swap(free, place);
                }
            }
        }
        self.first += gaps;
        self.reset_if_empty();
    }

    /// Puts the first ones behind the others.
    #[inline]
    pub(crate) fn put_behind(&mut self, tasks: usize) {
        for _ in 0..tasks {
            if let Some(task) = self.pop_front() {
                self.push_back(task);
            }
        }
    }

    #[inline]
    pub(crate) fn front(&self) -> Option<&TaskCell<dyn PollTask>> {
        self.slots.get(self.first)?.as_deref()
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskCell<dyn PollTask>> {
        let tasks = self.slots[self.first..].iter();
        tasks.filter_map(|task| task.as_deref())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut BoxedTask> {
        self.slots[self.first..].iter_mut().flatten()
    }

    #[inline]
    pub(crate) fn append(&mut self, other: Queue) {
        match self.is_empty() {
            true if other.is_empty() => {}
            true => *self = other,
            false => self.extend(other),
        }
    }

    /// Takes out all but so many.
    pub(crate) fn split_off(&mut self, first: usize) -> Queue {
        if first >= self.len() {
            return Queue::default();
        }
        // Nearly always few of many stay.
        let kept = (0..first).filter_map(|_| self.pop_front()).collect();
        mem::replace(self, kept)
    }

    /// Takes out those that `remove` chooses, in order, if there are any; the others keep theirs.
    #[inline]
    pub(crate) fn extract(
        &mut self,
        remove: impl Fn(&TaskCell<dyn PollTask>) -> bool,
    ) -> Option<Queue> {
        let all = self.len();
        match self.iter().filter(|task| remove(task)).count() {
            0 => return None,
            chosen if chosen == all => return Some(mem::take(self)),
            _ => {}
        }
        let mut removed = Queue::default();
        for slot in self.first_slots(all) {
            removed.extend(slot.take_if(|task| remove(task)));
        }
        self.close_up(all, removed.len());
        Some(removed)
    }

    /// Drops all.
    pub(crate) fn clear(&mut self) {
        self.first = 0;
        self.slots.clear();
    }

    /// Many may have ended: keeps no memory for more than four times those that are left.
    #[inline]
    pub(crate) fn give_back(&mut self) {
        if self.slots.capacity() > KEPT_CAPACITY && self.len() < self.slots.capacity() / 4 {
            self.drop_vacant();
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    fn drop_vacant(&mut self) {
        self.slots.drain(..mem::take(&mut self.first));
    }
}

impl Extend<BoxedTask> for Queue {
    fn extend<I: IntoIterator<Item = BoxedTask>>(&mut self, tasks: I) {
        // Each by itself: so what is empty in front is used again.
        tasks.into_iter().for_each(|task| self.push_back(task));
    }
}

impl FromIterator<BoxedTask> for Queue {
    fn from_iter<I: IntoIterator<Item = BoxedTask>>(tasks: I) -> Self {
        Queue::of(tasks.into_iter().map(Some).collect())
    }
}

impl IntoIterator for Queue {
    type Item = BoxedTask;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Option<BoxedTask>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.slots.into_iter().flatten()
    }
}
