//! The counts of an account, by how tasks have ended.

use super::stats::Stats;

/// Changes of an account, gathered before they are published.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) deferred: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) panicked: u64,
    pub(crate) timed_out: u64,
    pub(crate) discarded: u64,
    pub(crate) shed: u64,
    pub(crate) lost: u64,
}

impl Counts {
    #[inline]
    pub(crate) fn add(&mut self, other: &Counts) {
        self.deferred += other.deferred;
        self.completed += other.completed;
        self.failed += other.failed;
        self.panicked += other.panicked;
        self.timed_out += other.timed_out;
        self.discarded += other.discarded;
        self.shed += other.shed;
        self.lost += other.lost;
    }

    pub(crate) fn pending(&self) -> u64 {
        let Counts {
            deferred,
            completed,
            failed,
            panicked,
            timed_out,
            discarded,
            shed,
            lost,
        } = self;
        deferred - (completed + failed + panicked + timed_out + discarded + shed + lost)
    }
}

/// Tasks that were deferred and that have completed, in the halves of one word, which is always written and read whole: the
/// processor waits for a half that was just written, when it is read with the other.
///
/// They don't overflow: so many tasks would take 200 GB. Those that are discarded are published before.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FewCounts {
    halves: u64,
}

const COMPLETED: u64 = 1 << 32;

impl FewCounts {
    #[inline]
    pub(crate) fn add_deferred(&mut self) {
        self.halves += 1;
    }

    /// Takes those that were deferred, and leaves the others.
    pub(crate) fn split_deferred(&mut self) -> FewCounts {
        let deferred = self.halves % COMPLETED;
        self.halves -= deferred;
        FewCounts { halves: deferred }
    }

    #[inline]
    pub(crate) fn add_completed(&mut self, completed: bool) {
        self.halves += u64::from(completed) * COMPLETED;
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.halves == 0
    }
}

/// What a scope has not told the account yet. Nearly always `others` is empty, and in a box, so that what is passed on is a
/// few words: the processor waits for what was written word by word, when it is copied in larger pieces.
#[derive(Default)]
pub(crate) struct Unpublished {
    pub(crate) few: FewCounts,
    pub(crate) discarded: u16,
    pub(crate) others: Option<Box<Counts>>,
}

impl Unpublished {
    pub(crate) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.discarded == 0 && self.others.is_none()
    }

    #[inline(always)]
    pub(super) fn add_to(&self, counts: &mut Counts) {
        counts.deferred += self.few.halves % COMPLETED;
        counts.completed += self.few.halves / COMPLETED;
        counts.discarded += u64::from(self.discarded);
        if let Some(others) = &self.others {
            counts.add(others);
        }
    }
}

impl From<Counts> for Stats {
    fn from(counts: Counts) -> Stats {
        Stats {
            deferred: counts.deferred,
            completed: counts.completed,
            failed: counts.failed,
            panicked: counts.panicked,
            timed_out: counts.timed_out,
            discarded: counts.discarded,
            shed: counts.shed,
            lost: counts.lost,
            pending: counts.pending(),
        }
    }
}
