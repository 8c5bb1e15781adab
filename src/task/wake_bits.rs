//! Which tasks of a batch were woken: a bit for each, in blocks of 64.
//!
//! To wake a task sets its bit. If its block had none, whoever set the first sets the block's bit too, and if that was the
//! first, wakes the batch. The batch takes the bits the other way round: the block's, then those of its tasks. So a wake-up
//! costs one atomic operation as long as others are to be looked at anyway, and no lock ever.
//!
//! The first block has no bit and wakes the batch itself: nearly all batches have no other.
//!
//! The next 63 blocks have theirs in the batch's own word. That word's first bit says that there is more: the blocks from
//! the 64th on have their bits in [`LaterBlocks`], in words of 64 with a bit each in another word, and so on. So a wake-up
//! costs a few words on its way up and on its way down, however many tasks there are.

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

use crate::{
    report::{KeptWaker, drop_waker, wake, wake_by_ref},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        lock,
    },
};

/// Bits in a word: tasks in a block, blocks in a word of blocks. A model has few, so that it reaches all levels.
pub(crate) const BLOCK: usize = match cfg!(after_loom) {
    false => 64,
    true => 4,
};

/// All bits of a word.
pub(crate) const ALL: u64 = u64::MAX >> (u64::BITS as usize - BLOCK);

/// The bit of the batch's word that stands for the later blocks: the first block needs none.
pub(crate) const LATER: u64 = 1;

/// What the wakers of one batch share.
pub(crate) struct WakeBits {
    blocks: AtomicU64,
    /// Wakes the batch, unless `moved`.
    first: KeptWaker,
    /// Whether the batch is polled with another waker by now.
    moved: AtomicBool,
    later: Mutex<KeptWaker>,
}

/// The bits of a block.
pub(crate) struct BlockBits {
    tasks: AtomicU64,
    /// This block's bit; 0 for the first.
    bit: u64,
    /// Where that bit is, if not in the batch's own word.
    word: Option<Arc<Word>>,
    batch: Arc<WakeBits>,
}

/// The bits of 64 later blocks, or of 64 such words.
struct Word {
    bits: AtomicU64,
    /// This word's own bit, in the word above; `None` for the batch's.
    bit: u64,
    above: Option<Arc<Word>>,
}

/// The words of the blocks from the 64th on. They stay until the batch ends: a word for 4,096 tasks.
#[derive(Default)]
pub(crate) struct LaterBlocks {
    levels: Vec<Level>,
}

/// Words of blocks, or, on a higher level, of the words one level below.
struct Level {
    /// Bits of the first 64 words of this level, but for the first: what that stands for is on the level below. Its first
    /// bit says that there is more on the level above.
    top: Arc<Word>,
    /// By number.
    words: Vec<Option<Arc<Word>>>,
}

/// Wakes one task.
struct TaskWaker {
    bit: u64,
    block: Arc<BlockBits>,
}

impl WakeBits {
    pub(crate) fn new(waker: Waker) -> Arc<WakeBits> {
        let mut first = KeptWaker::default();
        let none = first.replace(waker);
        debug_assert!(none.is_none());
        Arc::new(WakeBits {
            blocks: AtomicU64::new(0),
            first,
            moved: AtomicBool::new(false),
            later: Mutex::default(),
        })
    }

    fn later(&self) -> MutexGuard<'_, KeptWaker> {
        lock(&self.later)
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
        // Relaxed: the `swap` in `take`, which comes after this, carries it to whoever marks after that.
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

    /// The bits of the blocks that were marked, and [`LATER`].
    #[inline]
    pub(crate) fn take(&self) -> u64 {
        // `mark` wakes the batch after it has set a bit, so a bit that `any` does not see yet is seen in the poll that this
        // brings. AcqRel, with the `fetch_or` in `mark`: who takes a bit sees what was done before the wake-up. Once
        // the waker has moved it must be a read-modify-write: a `mark` that comes after it reads it, and so sees
        // `moved`, which `watch` has set before.
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

impl Word {
    fn new(number: usize, above: Option<Arc<Word>>) -> Arc<Word> {
        Arc::new(Word {
            bits: AtomicU64::new(0),
            bit: 1 << (number % BLOCK),
            above,
        })
    }

    /// Returns whether the batch is to be woken.
    fn mark(&self, bit: u64, batch: &WakeBits) -> bool {
        if self.bits.fetch_or(bit, Ordering::AcqRel) != 0 {
            return false;
        }
        match &self.above {
            Some(above) => above.mark(self.bit, batch),
            None => batch.blocks.fetch_or(self.bit, Ordering::AcqRel) == 0,
        }
    }

    fn take(&self) -> u64 {
        // AcqRel, with the `fetch_or` in `mark`.
        self.bits.swap(0, Ordering::AcqRel)
    }
}

impl LaterBlocks {
    /// The word with this number, of blocks or of words one level below, made if need be.
    fn word(&mut self, level: usize, number: usize) -> Arc<Word> {
        if self.levels.len() == level {
            let below = self.levels.last().map(|level| level.top.clone());
            self.levels.push(Level {
                top: Word::new(0, below),
                words: Vec::new(),
            });
        }
        if let Some(Some(word)) = self.levels[level].words.get(number) {
            return word.clone();
        }
        let above = match number < BLOCK {
            true => self.levels[level].top.clone(),
            false => self.word(level + 1, number / BLOCK),
        };
        let word = Word::new(number, Some(above));
        let words = &mut self.levels[level].words;
        if words.len() <= number {
            words.resize_with(number + 1, || None);
        }
        words[number] = Some(word.clone());
        word
    }

    /// Calls `f` with the numbers of the blocks that were marked.
    #[cold]
    pub(crate) fn take(&self, mut f: impl FnMut(usize)) {
        for (level, Level { top, .. }) in self.levels.iter().enumerate() {
            let marked = top.take();
            for_each_bit(marked & !LATER, |number| {
                self.take_word(level, number, &mut f)
            });
            if marked & LATER == 0 {
                return;
            }
        }
    }

    fn take_word(&self, level: usize, number: usize, f: &mut dyn FnMut(usize)) {
        let Some(Some(word)) = self.levels[level].words.get(number) else {
            return;
        };
        for_each_bit(word.take(), |bit| {
            let below = number * BLOCK + bit;
            match level {
                0 => f(below),
                _ => self.take_word(level - 1, below, f),
            }
        });
    }
}

/// Calls `f` with the numbers of the bits that are set.
#[inline]
pub(crate) fn for_each_bit(mut bits: u64, mut f: impl FnMut(usize)) {
    while bits != 0 {
        f(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

impl BlockBits {
    pub(crate) fn new(
        batch: &Arc<WakeBits>,
        later: &mut LaterBlocks,
        number: usize,
    ) -> Arc<BlockBits> {
        let bit = match number {
            0 => 0,
            _ => 1 << (number % BLOCK),
        };
        Arc::new(BlockBits {
            tasks: AtomicU64::new(0),
            bit,
            word: (number >= BLOCK).then(|| later.word(0, number / BLOCK)),
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
        // As in `WakeBits::take`.
        if self.tasks.load(Ordering::Relaxed) == 0 && !self.batch.has_moved() {
            return 0;
        }
        self.tasks.swap(0, Ordering::AcqRel)
    }

    /// Before the poll of a task: it sees all that was done before it was woken, also if that was after `take`.
    #[inline]
    pub(crate) fn clear(&self, task: usize) {
        let bit = 1 << task;
        // Relaxed, because a bit that is set later brings a poll of its own. AcqRel, with the `fetch_or` in `mark`.
        if self.tasks.load(Ordering::Relaxed) & bit != 0 {
            self.tasks.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    fn mark(&self, task: u64) {
        // A read-modify-write also where the bit is set already: the `swap` in `take` must see what was done before this
        // wake-up too. AcqRel, with that `swap`: see `WakeBits::take`.
        if self.tasks.fetch_or(task, Ordering::AcqRel) != 0 {
            return;
        }
        let batch = &*self.batch;
        let first = match &self.word {
            _ if self.bit == 0 => true,
            None => batch.blocks.fetch_or(self.bit, Ordering::AcqRel) == 0,
            Some(word) => word.mark(self.bit, batch),
        };
        if first {
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
