//! Which tasks have ended in a turn, for the roster.

use std::ops::Range;

use crate::task::MOST_POLLS;

/// The sequence numbers of the tasks that ended in this turn, while the batch has not.
#[derive(Default)]
pub(crate) struct EndedSet {
    /// A run of numbers, `first..first + run`: nearly always this is all.
    first: u64,
    run: u64,
    // Those outside the run. Made by the first of them: most batches never need it.
    others: Option<[u64; MOST_POLLS]>,
    len: usize,
    /// A time limit may end more than a turn polls.
    more: Vec<u64>,
}

impl EndedSet {
    #[inline]
    pub(crate) fn push(&mut self, sequence: u64) {
        if self.run == 0 {
            self.first = sequence;
        }
        if sequence == self.first + self.run {
            self.run += 1;
        } else if sequence + 1 == self.first {
            // Behind the others, because the round began one further on.
            self.first = sequence;
            self.run += 1;
        } else {
            self.push_other(sequence);
        }
    }

    fn push_other(&mut self, sequence: u64) {
        let others = self.others.get_or_insert([0; MOST_POLLS]);
        match others.get_mut(self.len) {
            Some(place) => {
                *place = sequence;
                self.len += 1;
            }
            None => self.more.push(sequence),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.run == 0
    }

    /// As ranges of sequence numbers, none of which is empty.
    #[inline]
    pub(crate) fn for_each(&self, mut f: impl FnMut(Range<u64>)) {
        if self.run > 0 {
            f(self.first..self.first + self.run);
        }
        let others = self.others.iter().flatten().take(self.len);
        others
            .chain(&self.more)
            .for_each(|&sequence| f(sequence..sequence + 1));
    }
}

impl FromIterator<u64> for EndedSet {
    fn from_iter<I: IntoIterator<Item = u64>>(sequences: I) -> Self {
        let mut ended_set = EndedSet::default();
        sequences
            .into_iter()
            .for_each(|sequence| ended_set.push(sequence));
        ended_set
    }
}
