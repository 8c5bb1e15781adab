//! Which tasks have ended in a turn, for the roster.

use crate::turn::MOST_POLLS;

/// The sequence numbers of the tasks that ended in this turn, while the batch has not.
#[derive(Default)]
pub(crate) struct Finished {
    // Made by the first: a batch of one task never needs it.
    sequences: Option<[u64; MOST_POLLS]>,
    len: usize,
    /// A time limit may end more than a turn polls.
    more: Vec<u64>,
}

impl Finished {
    #[inline]
    pub(crate) fn push(&mut self, sequence: u64) {
        match self
            .sequences
            .get_or_insert([0; MOST_POLLS])
            .get_mut(self.len)
        {
            Some(place) => {
                *place = sequence;
                self.len += 1;
            }
            None => self.more.push(sequence),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = u64> {
        let len = std::mem::take(&mut self.len);
        let sequences = self.sequences.take().unwrap_or([0; MOST_POLLS]);
        let more = std::mem::take(&mut self.more);
        sequences.into_iter().take(len).chain(more)
    }
}
