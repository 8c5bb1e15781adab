//! Who waits for permits and room, in order; leaving before one's turn takes constant time.

use std::collections::VecDeque;

/// Members in their order, of whom some leave before their turn: they stay where they are until they come to the front, or
/// are more than half.
pub(crate) struct WaitQueue<M> {
    members: VecDeque<M>,
    left: usize,
}

pub(crate) trait Member {
    /// Changed and read under the limit's lock alone, so every order will do.
    fn has_left(&self) -> bool;
}

impl<M> Default for WaitQueue<M> {
    fn default() -> Self {
        WaitQueue {
            members: VecDeque::new(),
            left: 0,
        }
    }
}

impl<M: Member> WaitQueue<M> {
    pub(crate) fn len(&self) -> usize {
        self.members.len() - self.left
    }

    pub(crate) fn push(&mut self, member: M) {
        self.members.push_back(member);
    }

    /// The first that has not left.
    pub(crate) fn first(&mut self) -> Option<&mut M> {
        while self.members.front()?.has_left() {
            self.members.pop_front();
            self.left -= 1;
        }
        self.members.front_mut()
    }

    /// Takes out what `first` has found.
    pub(crate) fn pop(&mut self) -> Option<M> {
        self.members.pop_front()
    }

    /// So many members have left that were there.
    pub(crate) fn leaves(&mut self, members: usize) {
        self.left += members;
        if self.left > self.members.len() / 2 {
            self.members.retain(|member| !member.has_left());
            self.left = 0;
        }
    }
}
