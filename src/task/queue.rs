//! The queue of tasks: a linked list that owns its nodes, so that n tasks cost n allocations.

use std::{mem, pin::Pin};

use super::cell::{BoxedTask, PollTask, TaskCell};

/// A stack of tasks. Its `Drop` is a loop: dropping a list of nodes recursively would overflow the thread's stack.
#[derive(Default)]
pub(crate) struct Stack {
    top: Option<BoxedTask>,
}

impl Stack {
    #[inline]
    pub(crate) fn push(&mut self, task: BoxedTask) {
        put_in(&mut self.top, task);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<BoxedTask> {
        cut_out(&mut self.top)
    }

    /// The top one, if it has a higher number.
    pub(crate) fn pop_after(&mut self, sequence: u64) -> Option<BoxedTask> {
        let later = self.top.as_ref()?.sequence() > sequence;
        later.then(|| self.pop()).flatten()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskCell<dyn PollTask>> {
        let mut next = self.top.as_deref();
        std::iter::from_fn(move || {
            let task = next?;
            next = task.next.as_deref();
            Some(task)
        })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// First in, first out, from two stacks: a singly linked list has no safe pointer to its tail.
#[derive(Default)]
pub(crate) struct Queue {
    front: Stack,
    back: Stack,
    len: usize,
}

impl Queue {
    /// From a stack with the first of its `len` tasks on top.
    #[inline]
    pub(crate) fn from_ordered(front: Stack, len: usize) -> Self {
        Queue {
            front,
            back: Stack::default(),
            len,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes out those that `remove` chooses, in order; the others keep theirs.
    pub(crate) fn extract(&mut self, remove: impl Fn(&TaskCell<dyn PollTask>) -> bool) -> Queue {
        if !self.any(&remove) {
            return Queue::default();
        }
        let (removed, kept) = mem::take(self).into_iter().partition(|task| remove(task));
        *self = kept;
        removed
    }

    /// Whether `what` is true of a task.
    #[inline]
    pub(crate) fn any(&self, what: impl Fn(&TaskCell<dyn PollTask>) -> bool) -> bool {
        self.front.iter().any(&what) || self.back.iter().any(&what)
    }

    /// Takes out all but so many.
    pub(crate) fn split_off(&mut self, first: usize) -> Queue {
        if first >= self.len {
            return Queue::default();
        }
        let mut rest = mem::take(self);
        while self.len < first {
            let Some(task) = rest.pop_front() else { break };
            self.push_back(task);
        }
        rest
    }

    #[inline]
    pub(crate) fn append(&mut self, mut other: Queue) {
        if self.is_empty() {
            // Nothing is there to be dropped.
            mem::forget(mem::replace(self, other));
            return;
        }
        while let Some(task) = other.pop_front() {
            self.push_back(task);
        }
    }

    #[inline]
    pub(crate) fn push_back(&mut self, task: BoxedTask) {
        self.len += 1;
        // What is alone need not be turned round.
        match self.len {
            1 => self.front.push(task),
            _ => self.back.push(task),
        }
    }

    pub(crate) fn push_front(&mut self, task: BoxedTask) {
        self.len += 1;
        self.front.push(task);
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<BoxedTask> {
        if self.front.is_empty() {
            self.turn_round();
        }
        let task = self.front.pop()?;
        self.len -= 1;
        Some(task)
    }

    #[inline]
    fn turn_round(&mut self) {
        while let Some(task) = self.back.pop() {
            self.front.push(task);
        }
    }

    /// The tasks from the next one to the last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskCell<dyn PollTask>> {
        // Nearly always `front` has them all.
        let mut back = Vec::new();
        if !self.back.is_empty() {
            back.extend(self.back.iter());
            back.reverse();
        }
        self.front.iter().chain(back)
    }

    #[inline]
    pub(crate) fn front(&mut self) -> Option<&TaskCell<dyn PollTask>> {
        if self.front.is_empty() {
            self.turn_round();
        }
        self.front.top.as_deref()
    }

    /// Calls `f` with each, in no order.
    pub(crate) fn for_each_mut(&mut self, mut f: impl FnMut(Pin<&mut TaskCell<dyn PollTask>>)) {
        for stack in [&mut self.front, &mut self.back] {
            let mut next = stack.top.as_mut();
            while let Some(task) = next {
                f(task.as_mut());
                next = task.as_mut().project().next.as_mut();
            }
        }
    }

    /// As `iter`, without setting up an iterator for the plain case. Not inlined, so that `f` is.
    #[inline(never)]
    pub(crate) fn for_each<'a>(&'a self, mut f: impl FnMut(&'a TaskCell<dyn PollTask>)) {
        if self.back.is_empty() {
            let mut next = self.front.top.as_deref();
            while let Some(task) = next {
                f(task);
                next = task.next.as_deref();
            }
        } else {
            self.for_each_of_both(&mut f);
        }
    }

    // Apart, and of one kind, so that what `f` does is built into the loop above.
    #[cold]
    fn for_each_of_both<'a>(&'a self, f: &mut dyn FnMut(&'a TaskCell<dyn PollTask>)) {
        self.iter().for_each(f);
    }
}

/// Takes out the task to which `link` leads.
///
/// What was taken out of a link leaves nothing there: to look for something to drop would cost more than the rest. Here and
/// below.
#[inline]
fn cut_out(link: &mut Option<BoxedTask>) -> Option<BoxedTask> {
    let mut task = link.take()?;
    let gap = mem::replace(link, task.as_mut().project().next.take());
    mem::forget(gap);
    Some(task)
}

/// Puts a task, which is in no list, before the one to which `link` leads.
#[inline]
fn put_in(link: &mut Option<BoxedTask>, mut task: BoxedTask) {
    let gap = mem::replace(task.as_mut().project().next, link.take());
    debug_assert!(gap.is_none(), "it is in a list already");
    mem::forget(gap);
    let gap = link.replace(task);
    mem::forget(gap);
}

/// A walk along the tasks of a queue, which stay where they are.
pub(crate) struct Walk {
    /// How many tasks are before this one.
    position: usize,
    steps: usize,
}

impl Walk {
    /// From this position, so many tasks at most.
    pub(crate) fn new(position: usize, steps: usize) -> Self {
        Walk { position, steps }
    }
}

/// What becomes of a task that a walk has come to.
pub(crate) enum Step<S> {
    Keep,
    Drop,
    /// It is to be taken out: see [`Queue::take_at`].
    Stop(S),
}

impl Queue {
    /// Goes on with a walk, to its end or until it stops.
    ///
    /// If `visit` panics, the walk stands at its task; if the task's destructor does, behind it.
    #[inline]
    pub(crate) fn walk<S>(
        &mut self,
        walk: &mut Walk,
        mut visit: impl FnMut(Pin<&mut TaskCell<dyn PollTask>>) -> Step<S>,
    ) -> Option<S> {
        if self.front.is_empty() {
            self.turn_round();
        }
        let Queue { front, back, len } = self;
        let mut link = &mut front.top;
        for _ in 0..walk.position {
            link = link.as_mut()?.as_mut().project().next;
        }
        while walk.steps > 0 {
            if link.is_none() {
                while let Some(last) = back.pop() {
                    put_in(link, last);
                }
            }
            walk.steps -= usize::from(link.is_some());
            match visit(link.as_mut()?.as_mut()) {
                Step::Keep => {
                    walk.position += 1;
                    link = link.as_mut()?.as_mut().project().next;
                }
                Step::Drop => {
                    let task = cut_out(link)?;
                    *len -= 1;
                    drop(task);
                }
                Step::Stop(stop) => return Some(stop),
            }
        }
        None
    }

    /// Takes out the task at which a walk has stopped.
    pub(crate) fn take_at(&mut self, walk: &Walk) -> Option<BoxedTask> {
        let mut link = &mut self.front.top;
        for _ in 0..walk.position {
            link = link.as_mut()?.as_mut().project().next;
        }
        let task = cut_out(link)?;
        self.len -= 1;
        Some(task)
    }

    /// Puts it back, behind the walk.
    pub(crate) fn put_at(&mut self, walk: &mut Walk, task: BoxedTask) {
        let mut link = &mut self.front.top;
        for _ in 0..walk.position {
            match link {
                Some(before) => link = before.as_mut().project().next,
                None => break,
            }
        }
        put_in(link, task);
        self.len += 1;
        walk.position += 1;
    }

    /// Those that stand before its end go behind the others, if there are any.
    pub(crate) fn put_behind(&mut self, walk: &Walk) {
        if walk.position < self.len {
            for _ in 0..walk.position {
                if let Some(task) = self.pop_front() {
                    self.push_back(task);
                }
            }
        }
    }
}

impl FromIterator<BoxedTask> for Queue {
    fn from_iter<I: IntoIterator<Item = BoxedTask>>(tasks: I) -> Self {
        let mut queue = Queue::default();
        queue.extend(tasks);
        // At once, so that `iter` need not.
        if let Some(first) = queue.front.pop() {
            queue.turn_round();
            queue.front.push(first);
        }
        queue
    }
}

impl Extend<BoxedTask> for Queue {
    fn extend<I: IntoIterator<Item = BoxedTask>>(&mut self, tasks: I) {
        tasks.into_iter().for_each(|task| self.push_back(task));
    }
}

pub(crate) struct IntoIter {
    queue: Queue,
}

/// From the next one to the last, each taken out when its turn comes.
impl Iterator for IntoIter {
    type Item = BoxedTask;

    fn next(&mut self) -> Option<BoxedTask> {
        self.queue.pop_front()
    }
}

impl IntoIterator for Queue {
    type Item = BoxedTask;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { queue: self }
    }
}
