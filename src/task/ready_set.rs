//! The tasks of a batch once each has a waker of its own: only those are polled that were woken.
//!
//! A task has a slot in a block of 64, and [`wake_bits`](super::wake_bits) a bit for each slot. A block whose tasks
//! have ended goes, with its memory, and the next one to be made takes its number. New tasks go where the lowest free
//! slot is.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    mem,
    sync::Arc,
    task::Waker,
};

use super::{
    cell::{BoxedTask, PollTask, TaskCell},
    queue::Queue,
    wake_bits::{ALL, BLOCK, BlockBits, LATER, LaterBlocks, WakeBits, for_each_bit},
};

/// Polls of a batch in one turn, between two visits to the runtime's queue.
pub(crate) const MOST_POLLS: usize = 32;

/// The tasks of a batch, of which those are polled whose wakers were woken.
pub(crate) struct ReadySet {
    bits: Arc<WakeBits>,
    /// By number; `None` where one has gone.
    blocks: Vec<Option<Block>>,
    /// Numbers of blocks with woken tasks that have not been polled since, in turn.
    woken_blocks: VecDeque<u32>,
    /// Bits of the first blocks with room, those included that are not there.
    room: u64,
    /// What only batches of more than 64 blocks have.
    later: Later,
    /// Without a place yet: they have not been polled with a waker of their own.
    new: Queue,
    /// Tasks with a place.
    admitted: usize,
    turns: usize,
}

/// The blocks from the 64th on.
#[derive(Default)]
struct Later {
    bits: LaterBlocks,
    /// Numbers of those with room, and of some that have gone.
    room: BinaryHeap<Reverse<usize>>,
}

struct Block {
    bits: Arc<BlockBits>,
    /// `None` for a free place.
    tasks: Vec<Option<(BoxedTask, Waker)>>,
    /// Bits of the places that are taken.
    taken: u64,
    /// Bits of the tasks that were woken and have not been polled since.
    woken: u64,
    /// Which of them comes first.
    next: u32,
}

/// Which tasks a turn polls.
#[derive(Default)]
pub(crate) struct TurnList {
    slots: [u32; MOST_POLLS],
    /// How many places there are, and the next of them.
    len: usize,
    next: usize,
    /// How many of those without a place come after them.
    new: usize,
    /// Whether others are waiting.
    pub(crate) more: bool,
}

impl Block {
    fn new(bits: Arc<BlockBits>, room: usize) -> Block {
        Block {
            bits,
            tasks: Vec::with_capacity(room.min(BLOCK)),
            taken: 0,
            woken: 0,
            next: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.taken == ALL
    }
}

impl ReadySet {
    /// All of them are polled at first: who knows which was woken last. `waker` is the one that the batch is polled with.
    pub(crate) fn new(tasks: Queue, waker: Waker) -> Self {
        ReadySet {
            bits: WakeBits::new(waker),
            blocks: Vec::new(),
            woken_blocks: VecDeque::new(),
            room: ALL,
            later: Later::default(),
            new: tasks,
            admitted: 0,
            turns: 0,
        }
    }

    #[inline]
    pub(crate) fn bits(&self) -> &Arc<WakeBits> {
        &self.bits
    }

    pub(crate) fn extend(&mut self, tasks: Queue) {
        self.new.append(tasks);
    }

    pub(crate) fn len(&self) -> usize {
        self.admitted + self.new.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskCell<dyn PollTask>> {
        let tasks = self.blocks.iter().flatten().flat_map(|block| &block.tasks);
        let admitted = tasks.flatten().map(|(task, _)| &**task);
        admitted.chain(self.new.iter())
    }

    pub(crate) fn into_tasks(self) -> Queue {
        let blocks = self.blocks.into_iter().flatten();
        let admitted = blocks.flat_map(|block| block.tasks).flatten();
        admitted.map(|(task, _)| task).chain(self.new).collect()
    }

    #[inline]
    fn block(&mut self, number: usize) -> Option<&mut Block> {
        self.blocks.get_mut(number)?.as_mut()
    }

    /// The task with this place, to be polled with its waker.
    #[inline]
    pub(crate) fn polled(&mut self, slot: u32) -> Option<&mut (BoxedTask, Waker)> {
        let task = slot as usize % BLOCK;
        let block = self.block(slot as usize / BLOCK)?;
        // Woken again since the turn began: this poll is for that too.
        block.bits.clear(task);
        block.tasks.get_mut(task)?.as_mut()
    }

    /// The place of the task that was woken, if nothing else is to be polled: nearly always it is one, of the first block.
    #[inline]
    pub(crate) fn only(&mut self) -> Option<u32> {
        if !self.woken_blocks.is_empty() || !self.new.is_empty() {
            return None;
        }
        if let Some(Some(block)) = self.blocks.first_mut() {
            let woken = block.bits.take() & block.taken;
            if woken.is_power_of_two() && !self.bits.any() {
                return Some(woken.trailing_zeros());
            }
            block.woken = woken;
            if woken != 0 {
                self.woken_blocks.push_back(0);
            }
        }
        self.only_of_all()
    }

    /// As `only`, when the first block was looked at.
    #[inline(never)]
    fn only_of_all(&mut self) -> Option<u32> {
        self.gather_others();
        let number = *self.woken_blocks.front()?;
        let block = self.blocks[number as usize].as_mut()?;
        if self.woken_blocks.len() > 1 || !block.woken.is_power_of_two() {
            return None;
        }
        self.woken_blocks.clear();
        let slot = mem::take(&mut block.woken).trailing_zeros();
        Some(number * BLOCK as u32 + slot)
    }

    /// The tasks that were woken, and new ones, [`MOST_POLLS`] together at most.
    ///
    /// Blocks take turns, and within one the places do, so that many busy tasks starve none; with new ones waiting,
    /// only half of the turn is for those that have been polled. Each turn starts one further on than the last: see `turn`.
    pub(crate) fn begin_turn(&mut self) -> TurnList {
        let mut list = TurnList::default();
        self.gather();
        let new = self.new.len().min(MOST_POLLS / 2);
        let most = MOST_POLLS - new;
        while list.len < most {
            let Some(number) = self.woken_blocks.pop_front() else {
                break;
            };
            let Some(block) = self.block(number as usize) else {
                continue;
            };
            while block.woken != 0 && list.len < most {
                let step = block.woken.rotate_right(block.next).trailing_zeros();
                let slot = (block.next + step) % BLOCK as u32;
                block.woken &= !(1 << slot);
                block.next = (slot + 1) % BLOCK as u32;
                list.slots[list.len] = number * BLOCK as u32 + slot;
                list.len += 1;
            }
            if block.woken != 0 {
                self.woken_blocks.push_back(number);
            } else {
                block.next = 0;
            }
        }
        if list.len > 1 {
            let first = self.turns % list.len;
            list.slots[..list.len].rotate_left(first);
        }
        self.turns = self.turns.wrapping_add(1);
        list.new = self.new.len().min(MOST_POLLS - list.len);
        list.more = !self.woken_blocks.is_empty() || list.new < self.new.len();
        list
    }

    /// Looks which tasks were woken.
    #[inline]
    fn gather(&mut self) {
        gather_block(&mut self.blocks, &mut self.woken_blocks, 0);
        self.gather_others();
    }

    #[inline]
    fn gather_others(&mut self) {
        let (blocks, woken) = (&mut self.blocks, &mut self.woken_blocks);
        let marked = self.bits.take();
        for_each_bit(marked & !LATER, |number| {
            gather_block(blocks, woken, number)
        });
        if marked & LATER != 0 {
            let later = &self.later.bits;
            later.take(|number| gather_block(blocks, woken, number));
        }
    }

    /// The place of the next task of the turn; nothing may be there any more.
    pub(crate) fn next(&mut self, list: &mut TurnList) -> Option<u32> {
        if list.next < list.len {
            list.next += 1;
            return Some(list.slots[list.next - 1]);
        }
        list.new = list.new.checked_sub(1)?;
        self.admit_new()
    }

    /// The first of those without a place gets one.
    #[cold]
    fn admit_new(&mut self) -> Option<u32> {
        let task = self.new.pop_front()?;
        if self.new.is_empty() {
            // Many may have waited here.
            self.new = Queue::default();
        }
        let number = self.number_with_room();
        if number == self.blocks.len() {
            self.blocks.push(None);
        }
        let new = self.new.len();
        let (bits, later) = (&self.bits, &mut self.later);
        let block = self.blocks[number].get_or_insert_with(|| {
            Block::new(BlockBits::new(bits, &mut later.bits, number), new + 1)
        });
        let slot = block.taken.trailing_ones() as usize;
        block.taken |= 1 << slot;
        if block.tasks.len() <= slot {
            block.tasks.push(None);
        }
        block.tasks[slot] = Some((task, block.bits.waker(slot)));
        if block.is_full() {
            self.lose_room(number);
        }
        self.admitted += 1;
        Some((number * BLOCK + slot) as u32)
    }

    /// The number of the first block with room: one that is there, or has gone, or would be the next.
    fn number_with_room(&mut self) -> usize {
        if self.room != 0 {
            return self.room.trailing_zeros() as usize;
        }
        let blocks = self.blocks.len();
        match self.later.room.peek() {
            Some(&Reverse(number)) if number < blocks => number,
            _ => {
                // Those beyond have gone, and all others are full.
                self.later.room.clear();
                self.later.room.push(Reverse(blocks));
                blocks
            }
        }
    }

    /// The block that had room is full.
    fn lose_room(&mut self, number: usize) {
        match number < BLOCK {
            true => self.room &= !(1 << number),
            // It is the lowest.
            false => drop(self.later.room.pop()),
        }
    }

    /// A full block has room again.
    fn gain_room(&mut self, number: usize) {
        match number < BLOCK {
            true => self.room |= 1 << number,
            false => self.later.room.push(Reverse(number)),
        }
    }

    /// A task that has ended goes.
    pub(crate) fn leave(&mut self, slot: u32) -> Option<BoxedTask> {
        let (number, slot) = (slot as usize / BLOCK, slot as usize % BLOCK);
        let block = self.block(number)?;
        let (task, _waker) = block.tasks.get_mut(slot)?.take()?;
        let was_full = block.is_full();
        block.taken &= !(1 << slot);
        block.woken &= !(1 << slot);
        let empty = block.taken == 0;
        self.admitted -= 1;
        if was_full {
            self.gain_room(number);
        }
        if empty {
            self.blocks[number] = None;
            while let Some(None) = self.blocks.last() {
                self.blocks.pop();
            }
        }
        Some(task)
    }
}

/// Looks which tasks of a block were woken.
#[inline]
fn gather_block(blocks: &mut [Option<Block>], woken_blocks: &mut VecDeque<u32>, number: usize) {
    let Some(Some(block)) = blocks.get_mut(number) else {
        return;
    };
    let before = block.woken;
    block.woken |= block.bits.take() & block.taken;
    if before == 0 && block.woken != 0 {
        woken_blocks.push_back(number as u32);
    }
}
