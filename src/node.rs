//! The boxed unit of work, and the queue of them: a linked list that owns its nodes, so that n tasks cost n allocations.

use std::{
    future::Future,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
};

use crate::task::{End, TaskResult, sealed::Sealed as _};

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

pin_project_lite::pin_project! {
    /// A task in its box, with what is said of it in reports and the link to the next one.
    pub(crate) struct Node<W: ?Sized> {
        next: Option<Link>,
        name: &'static str,
        location: &'static Location<'static>,
        // The place in the order of one scope; unique within it, and so the task's key on the roster.
        sequence: u64,
        #[pin]
        work: W,
    }
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
        Box::pin(Node {
            next: None,
            name,
            location,
            sequence: 0,
            work,
        })
    }
}

impl Node<dyn Work> {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn set_sequence(self: Pin<&mut Self>, sequence: u64) {
        *self.project().sequence = sequence;
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
        *node.as_mut().project().next = self.top.take();
        self.top = Some(node);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Link> {
        let mut node = self.top.take()?;
        self.top = node.as_mut().project().next.take();
        Some(node)
    }

    fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &Node<dyn Work>> {
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
        self.back.push(node);
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
