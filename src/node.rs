//! The boxed unit of work, and the queue of them: a linked list that owns its nodes, so that n tasks cost n allocations.

use std::{
    fmt,
    future::Future,
    mem::{self, ManuallyDrop},
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    blocking::Slot,
    hook::TaskFuture,
    key::Key,
    observer::TaskInfo,
    outcome::{Condition, Outcome},
    spawner::Sleep,
    stats::Unfinished,
    task::{End, TaskResult, sealed::Sealed as _},
};

/// What a node runs. Every future whose output is a [`TaskResult`] is work; `dyn Work` hides its type.
pub(crate) trait Work: Send {
    fn poll_work(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End>;
}

impl<F> Work for F
where
    F: Future + Send,
    F::Output: TaskResult,
{
    #[inline]
    fn poll_work(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        self.poll(cx).map(|output| output.into_end())
    }
}

/// A hook's wrapping of a task knows its end already.
impl Work for Wrapped {
    fn poll_work(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let task = &mut self.get_mut().task;
        Pin::new(task).poll(cx).map(|output| output.end)
    }
}

/// What an `on_defer` hook has made of a task. Not a future itself: its end is not a `TaskResult`.
pub(crate) struct Wrapped {
    pub(crate) task: TaskFuture,
}

pin_project_lite::pin_project! {
    /// A task in its box, with what is said of it in reports and the link to the next one.
    pub(crate) struct Node<W: ?Sized> {
        next: Option<Link>,
        name: &'static str,
        location: &'static Location<'static>,
        // The place in the order of one scope; unique within it, and so the task's key on the roster.
        sequence: u64,
        // `None` for the plain task: nothing of it is looked at then.
        rare: MaybeRare,
        #[pin]
        work: W,
    }
}

/// What reports and events say of a task.
#[derive(Clone)]
pub(crate) struct Label {
    pub(crate) name: &'static str,
    pub(crate) key: Option<Key>,
    pub(crate) location: &'static Location<'static>,
}

impl Label {
    /// Without its key, if it has one.
    pub(crate) fn plain(name: &'static str, location: &'static Location<'static>) -> Self {
        Label {
            name,
            key: None,
            location,
        }
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_ref().map(Key::as_str)
    }

    /// For a task that was not given its key.
    pub(crate) fn with_key(mut self, key: &Key) -> Self {
        self.key.get_or_insert_with(|| key.clone());
        self
    }

    pub(crate) fn unfinished(self, age: Duration) -> Unfinished {
        Unfinished {
            name: self.name,
            key: self.key.map(Key::into_cow),
            location: self.location,
            age,
        }
    }

    pub(crate) fn info(&self, outcome: Option<Outcome>, blocking: bool) -> TaskInfo<'_> {
        TaskInfo {
            name: self.name,
            key: self.key(),
            location: self.location,
            outcome,
            blocking,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Label { name, location, .. } = self;
        match self.key() {
            Some(key) => write!(f, "`{name}` (key `{key}`, {location})"),
            None => write!(f, "`{name}` ({location})"),
        }
    }
}

/// Nothing, for the plain task. Its drop is one test in place: what the compiler makes of a box with so much in it is a call.
#[derive(Default)]
struct MaybeRare(ManuallyDrop<Option<Box<Rare>>>);

impl Drop for MaybeRare {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            drop_rare(self.0.take());
        }
    }
}

#[cold]
fn drop_rare(rare: Option<Box<Rare>>) {
    drop(rare);
}

/// What few tasks have: all that a plain one does not pay for.
#[derive(Default)]
pub(crate) struct Rare {
    /// Given to it at the hand-over, if it has nothing else that is rare: until then it stands under its key.
    pub(crate) key: Option<Key>,
    /// Decided at the hand-over, and taken out then.
    pub(crate) condition: Option<Condition>,
    /// Its time limit, until that has passed.
    pub(crate) timeout: Option<Duration>,
    /// Made when its first poll has left it pending.
    pub(crate) sleep: Option<Sleep>,
    /// Blocking work past its limit, which can't be stopped, and was reported.
    pub(crate) overdue: bool,
    /// A batch of its own.
    pub(crate) apart: bool,
    /// A closure on the blocking pool: where its two halves meet.
    pub(crate) blocking: Option<Arc<Slot>>,
    /// For observers, if there are any.
    pub(crate) times: Option<Times>,
}

pub(crate) struct Times {
    /// Since when it could have started: its hand-over, or its deferral after that.
    pub(crate) ready: Instant,
    pub(crate) started: Option<Instant>,
    pub(crate) longest_poll: Duration,
}

/// An owned task. Two words.
pub(crate) type Link = Pin<Box<Node<dyn Work>>>;

impl Node<()> {
    #[inline]
    pub(crate) fn boxed<W: Work + 'static>(
        work: W,
        name: &'static str,
        location: &'static Location<'static>,
    ) -> Link {
        // Allocated first, and written where it is. `Box::new` would make it on the stack, because it is to be dropped if
        // the allocation unwinds, and copy it in pieces of another size than those it was written in: for that the
        // processor waits until all of it has left its store buffer.
        let node: Box<Node<W>> = Box::write(
            Box::new_uninit(),
            Node {
                next: None,
                name,
                location,
                sequence: 0,
                rare: MaybeRare::default(),
                work,
            },
        );
        Box::into_pin(node)
    }
}

impl Node<dyn Work> {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    #[inline]
    pub(crate) fn key(&self) -> Option<&Key> {
        self.rare.0.as_ref()?.key.as_ref()
    }

    /// What is said of it when it is no more.
    pub(crate) fn label(&self) -> Label {
        Label {
            name: self.name,
            key: self.key().cloned(),
            location: self.location,
        }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn set_sequence(self: Pin<&mut Self>, sequence: u64) {
        *self.project().sequence = sequence;
    }

    #[inline]
    pub(crate) fn rare(&self) -> Option<&Rare> {
        self.rare.0.as_deref()
    }

    pub(crate) fn rare_mut(self: Pin<&mut Self>) -> Option<&mut Rare> {
        self.project().rare.0.as_deref_mut()
    }

    /// Makes it a task with rare things, if it is not one yet.
    pub(crate) fn make_rare(self: Pin<&mut Self>) -> &mut Rare {
        self.project().rare.0.get_or_insert_default()
    }

    /// As `give_key`, if it is, or is to be, a task with rare things anyway.
    pub(crate) fn show_key(self: Pin<&mut Self>, key: Option<&Key>, special: bool) {
        if let (Some(key), true) = (key, special || self.rare.0.is_some()) {
            self.make_rare().key = Some(key.clone());
        }
    }

    pub(crate) fn give_key(self: Pin<&mut Self>, key: Key) {
        self.make_rare().key = Some(key);
    }

    /// Gives it the rare things of the task that its work wraps.
    pub(crate) fn set_rare(self: Pin<&mut Self>, rare: Option<Box<Rare>>) {
        *self.project().rare.0 = rare;
    }

    pub(crate) fn take_rare(self: Pin<&mut Self>) -> Option<Box<Rare>> {
        self.project().rare.0.take()
    }

    #[inline]
    pub(crate) fn poll_work(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        self.project().work.poll_work(cx)
    }
}

/// A stack of tasks. Its `Drop` is a loop: dropping a list of nodes recursively would overflow the thread's stack.
#[derive(Default)]
pub(crate) struct Stack {
    top: Option<Link>,
}

impl Stack {
    #[inline]
    pub(crate) fn push(&mut self, mut node: Link) {
        // What is in no list has no next, and nothing is left on top: to look for something to drop would cost more than to
        // push. Here and below.
        let gap = mem::replace(node.as_mut().project().next, self.top.take());
        debug_assert!(gap.is_none(), "it is in a list already");
        mem::forget(gap);
        let gap = self.top.replace(node);
        mem::forget(gap);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Link> {
        let mut node = self.top.take()?;
        let gap = mem::replace(&mut self.top, node.as_mut().project().next.take());
        mem::forget(gap);
        Some(node)
    }

    fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node<dyn Work>> {
        let mut next = self.top.as_deref();
        std::iter::from_fn(move || {
            let node = next?;
            next = node.next.as_deref();
            Some(node)
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
    pub(crate) fn extract(&mut self, mut remove: impl FnMut(&mut Link) -> bool) -> Queue {
        let mut removed = Queue::default();
        for _ in 0..self.len {
            if let Some(mut node) = self.pop_front() {
                let queue = if remove(&mut node) {
                    &mut removed
                } else {
                    &mut *self
                };
                queue.push_back(node);
            }
        }
        removed
    }

    pub(crate) fn append(&mut self, mut other: Queue) {
        if self.is_empty() {
            *self = other;
            return;
        }
        while let Some(node) = other.pop_front() {
            self.push_back(node);
        }
    }

    #[inline]
    pub(crate) fn push_back(&mut self, node: Link) {
        self.len += 1;
        // What is alone need not be turned round.
        match self.len {
            1 => self.front.push(node),
            _ => self.back.push(node),
        }
    }

    pub(crate) fn push_front(&mut self, node: Link) {
        self.len += 1;
        self.front.push(node);
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Link> {
        if self.front.is_empty() {
            while let Some(node) = self.back.pop() {
                self.front.push(node);
            }
        }
        let node = self.front.pop()?;
        self.len -= 1;
        Some(node)
    }

    /// The tasks from the next one to the last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node<dyn Work>> {
        // Nearly always `front` has them all.
        let mut back = Vec::new();
        if !self.back.is_empty() {
            back.extend(self.back.iter());
            back.reverse();
        }
        self.front.iter().chain(back)
    }

    /// As `iter`, without setting up an iterator for the plain case.
    #[inline]
    pub(crate) fn for_each<'a>(&'a self, mut f: impl FnMut(&'a Node<dyn Work>)) {
        if self.back.is_empty() {
            let mut next = self.front.top.as_deref();
            while let Some(node) = next {
                f(node);
                next = node.next.as_deref();
            }
        } else {
            self.iter().for_each(f);
        }
    }
}

/// From the next one to the last, each taken out when its turn comes.
impl Iterator for IntoIter {
    type Item = Link;

    fn next(&mut self) -> Option<Link> {
        self.queue.pop_front()
    }
}

pub(crate) struct IntoIter {
    queue: Queue,
}

impl IntoIterator for Queue {
    type Item = Link;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { queue: self }
    }
}
