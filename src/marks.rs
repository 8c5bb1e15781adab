//! Which tasks of a batch were woken: a bit for each, in blocks of 64.
//!
//! To wake a task sets its bit. If its block had none, whoever set the first sets the block's bit too, and if that was the
//! first, wakes the batch. The batch takes the bits the other way round: the block's, then those of its tasks. So a wake-up
//! costs one atomic operation as long as others are to be looked at anyway, and no lock ever.
//!
//! The first block has no bit and wakes the batch itself: nearly all batches have no other.

use std::{
    sync::{Arc, PoisonError},
    task::{Wake, Waker},
};

use crate::{
    signal::{Kept, drop_waker, wake, wake_by_ref},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Tasks in a block, and blocks that have a bit of their own: beyond, they share it.
pub(crate) const BLOCK: usize = 64;

/// What the wakers of one batch share.
pub(crate) struct Marks {
    blocks: AtomicU64,
    /// Wakes the batch, unless `moved`.
    first: Kept,
    /// Whether the batch is polled with another waker by now.
    moved: AtomicBool,
    later: Mutex<Kept>,
}

/// The bits of a block.
pub(crate) struct BlockMarks {
    tasks: AtomicU64,
    /// This block's bit; 0 for the first.
    bit: u64,
    batch: Arc<Marks>,
}

/// Wakes one task.
struct TaskWaker {
    bit: u64,
    block: Arc<BlockMarks>,
}

impl Marks {
    pub(crate) fn new(waker: Waker) -> Arc<Marks> {
        let mut first = Kept::default();
        let none = first.replace(waker);
        debug_assert!(none.is_none());
        Arc::new(Marks {
            blocks: AtomicU64::new(0),
            first,
            moved: AtomicBool::new(false),
            later: Mutex::default(),
        })
    }

    fn later(&self) -> MutexGuard<'_, Kept> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether who wakes a task from now on wakes the batch through `waker`.
    #[inline]
    pub(crate) fn is_watched_by(&self, waker: &Waker) -> bool {
        match self.has_moved() {
            false => self.first.will_wake(waker),
            true => self.later().will_wake(waker),
        }
    }

    /// Sees to it that it does. Runs the user's code.
    #[cold]
    pub(crate) fn watch(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = self.later().replace(waker);
        self.moved.store(true, Ordering::Relaxed);
        drop_waker(before);
    }

    /// Whether the batch has another waker than it began with.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed)
    }

    /// Whether any block is marked.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.blocks.load(Ordering::Relaxed) != 0 || self.has_moved()
    }

    /// The bits of the blocks that were marked.
    #[inline]
    pub(crate) fn take(&self) -> u64 {
        // Who marks a block wakes the batch after it: what is not seen here is seen by the poll that this brings. Once the
        // waker has moved, it must be a read-modify-write: who marks after it then sees `moved`.
        if !self.any() {
            return 0;
        }
        self.blocks.swap(0, Ordering::AcqRel)
    }

    fn wake(&self) {
        if !self.moved.load(Ordering::Relaxed) {
            if let Some(waker) = self.first.get() {
                wake_by_ref(waker);
            }
            return;
        }
        // Taken, because to clone it is the user's code. The batch sets it again before it looks at the bits, and until
        // then one wake-up is enough.
        let waker = self.later().take();
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl BlockMarks {
    pub(crate) fn new(batch: &Arc<Marks>, index: usize) -> Arc<BlockMarks> {
        let bit = match index {
            0 => 0,
            _ => 1 << (index % BLOCK),
        };
        Arc::new(BlockMarks {
            tasks: AtomicU64::new(0),
            bit,
            batch: batch.clone(),
        })
    }

    /// A waker for the task with this number.
    pub(crate) fn waker(self: &Arc<Self>, task: usize) -> Waker {
        let bit = 1 << task;
        let block = self.clone();
        Waker::from(Arc::new(TaskWaker { bit, block }))
    }

    /// The bits of the tasks that were woken.
    #[inline]
    pub(crate) fn take(&self) -> u64 {
        // As in `Marks::take`.
        if self.tasks.load(Ordering::Relaxed) == 0 && !self.batch.has_moved() {
            return 0;
        }
        self.tasks.swap(0, Ordering::AcqRel)
    }

    /// Before the poll of a task: it sees all that was done before it was woken, also if that was after `take`.
    #[inline]
    pub(crate) fn clear(&self, task: usize) {
        let bit = 1 << task;
        if self.tasks.load(Ordering::Relaxed) & bit != 0 {
            self.tasks.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    fn mark(&self, task: u64) {
        // A read-modify-write also where the bit is set already: what was done before it must be seen by who takes it.
        // AcqRel: see `Marks::take`.
        if self.tasks.fetch_or(task, Ordering::AcqRel) != 0 {
            return;
        }
        let batch = &*self.batch;
        if self.bit == 0 || batch.blocks.fetch_or(self.bit, Ordering::AcqRel) == 0 {
            batch.wake();
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.block.mark(self.bit);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.block.mark(self.bit);
    }
}
