//! Batches that a recorder runs: each has a waker of its own, so that a wake-up costs a poll of one batch, however many
//! are running.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Wake, Waker},
};

use super::records::KeptBatch;
use crate::{
    report::{ALONE, WaitCell},
    sync::atomic::{AtomicBool, Ordering},
};

/// Batches that are being run.
#[derive(Default)]
pub(super) struct Running {
    /// By number, in the order in which they came.
    batches: BTreeMap<u64, One>,
    next: u64,
    woken: Arc<Woken>,
    turns: usize,
}

/// Which batches were woken. Who polls them waits for more.
type Woken = WaitCell<VecDeque<u64>>;

struct One {
    kept: KeptBatch,
    waker: Arc<WakesOne>,
}

struct WakesOne {
    batch: u64,
    /// Whether it is among the woken.
    is_woken: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for WakesOne {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // AcqRel, with the swap before the poll: that sees what was done before any wake-up that finds the mark set.
        if self.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        self.woken
            .change(|woken| woken.push_back(self.batch))
            .wake();
    }
}

impl Running {
    /// Takes in one more, to be polled in the next turn.
    pub(super) fn add(&mut self, kept: KeptBatch) {
        let number = self.next;
        self.next += 1;
        let waker = Arc::new(WakesOne {
            batch: number,
            is_woken: AtomicBool::new(true),
            woken: self.woken.clone(),
        });
        self.woken.with(|woken| woken.push_back(number));
        self.batches.insert(number, One { kept, waker });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Polls each that was woken once. Those that are woken meanwhile wake `outer`, and wait for the next turn. Gives the
    /// tasks of those that have ended.
    pub(super) fn poll_woken(&mut self, outer: &Waker) -> Vec<Range<usize>> {
        let mut ended = Vec::new();
        let mut woken = self.woken.watch(ALONE, outer, mem::take);
        // Each turn starts one further on: the first may use up what a runtime gives to all.
        if !woken.is_empty() {
            let first = self.turns % woken.len();
            woken.rotate_left(first);
        }
        self.turns = self.turns.wrapping_add(1);
        for number in woken {
            let Some(one) = self.batches.get_mut(&number) else {
                continue;
            };
            // Before the poll: a wake-up during it is for the next turn.
            one.waker.is_woken.swap(false, Ordering::AcqRel);
            let waker = Waker::from(one.waker.clone());
            let polled = Pin::new(&mut one.kept.batch).poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                ended.extend(self.batches.remove(&number).map(|one| one.kept.tasks));
            }
        }
        ended
    }

    /// What has not ended, in the order in which it came.
    pub(super) fn take(&mut self) -> Vec<KeptBatch> {
        self.woken.leave(ALONE);
        let batches = mem::take(&mut self.batches);
        batches.into_values().map(|one| one.kept).collect()
    }
}
