//! The tasks of a batch once each has a waker of its own: only those are polled that were woken.
//!
//! A task has a place in a block of 64, and [`marks`](super::marks) a bit for each place. A block whose tasks have ended goes,
//! with its memory, and the next one to be made takes its number. New tasks go where the lowest free place is.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
    task::Waker,
};

use super::{
    marks::{ALL, BLOCK, BlockMarks, LATER, LaterBlocks, Marks, for_each_bit},
    node::{Link, Node, Work},
    queue::Queue,
};

/// Polls of a batch in one turn, between two visits to the runtime's queue.
pub(crate) const MOST_POLLS: usize = 32;

/// The tasks of a batch, of which those are polled whose wakers were woken.
pub(crate) struct Ready {
    marks: Arc<Marks>,
    /// By number; `None` where one has gone.
    blocks: Vec<Option<Block>>,
    /// Numbers of blocks with woken tasks that have not been polled since, in turn.
    line: VecDeque<u32>,
    /// Bits of the first blocks with room, those included that are not there.
    room: u64,
    /// What only batches of more than 64 blocks have.
    later: Later,
    /// Without a place yet: they have not been polled with a waker of their own.
    new: Queue,
    /// Tasks with a place.
    placed: usize,
    turns: usize,
}

/// The blocks from the 64th on.
#[derive(Default)]
struct Later {
    marks: LaterBlocks,
    /// Numbers of those with room, and of some that have gone.
    room: BinaryHeap<Reverse<usize>>,
}

struct Block {
    marks: Arc<BlockMarks>,
    /// `None` for a free place.
    tasks: Vec<Option<(Link, Waker)>>,
    /// Bits of the places that are taken.
    taken: u64,
    /// Bits of the tasks that were woken and have not been polled since.
    woken: u64,
    /// Which of them comes first.
    next: u32,
}

/// Which tasks a turn polls.
#[derive(Default)]
pub(crate) struct Polls {
    places: [u32; MOST_POLLS],
    /// How many places there are, and the next of them.
    len: usize,
    next: usize,
    /// How many of those without a place come after them.
    new: usize,
    /// Whether others are waiting.
    pub(crate) more: bool,
}

impl Block {
    fn new(marks: Arc<BlockMarks>, room: usize) -> Block {
        Block {
            marks,
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

impl Ready {
    /// All of them are polled at first: who knows which was woken last. `waker` is the one that the batch is polled with.
    pub(crate) fn new(tasks: Queue, waker: Waker) -> Self {
        Ready {
            marks: Marks::new(waker),
            blocks: Vec::new(),
            line: VecDeque::new(),
            room: ALL,
            later: Later::default(),
            new: tasks,
            placed: 0,
            turns: 0,
        }
    }

    #[inline]
    pub(crate) fn marks(&self) -> &Arc<Marks> {
        &self.marks
    }

    pub(crate) fn extend(&mut self, tasks: Queue) {
        self.new.append(tasks);
    }

    pub(crate) fn len(&self) -> usize {
        self.placed + self.new.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node<dyn Work>> {
        let tasks = self.blocks.iter().flatten().flat_map(|block| &block.tasks);
        let placed = tasks.flatten().map(|(node, _)| &**node);
        placed.chain(self.new.iter())
    }

    pub(crate) fn into_tasks(self) -> Queue {
        let mut tasks = Queue::default();
        for (node, _) in self
            .blocks
            .into_iter()
            .flatten()
            .flat_map(|block| block.tasks)
            .flatten()
        {
            tasks.push_back(node);
        }
        tasks.append(self.new);
        tasks
    }

    #[inline]
    fn block(&mut self, number: usize) -> Option<&mut Block> {
        self.blocks.get_mut(number)?.as_mut()
    }

    /// The task with this place, to be polled with its waker.
    #[inline]
    pub(crate) fn polled(&mut self, place: u32) -> Option<&mut (Link, Waker)> {
        let task = place as usize % BLOCK;
        let block = self.block(place as usize / BLOCK)?;
        // Woken again since the turn began: this poll is for that too.
        block.marks.clear(task);
        block.tasks.get_mut(task)?.as_mut()
    }

    /// The place of the task that was woken, if nothing else is to be polled: nearly always it is one, of the first block.
    #[inline]
    pub(crate) fn only(&mut self) -> Option<u32> {
        if !self.line.is_empty() || !self.new.is_empty() {
            return None;
        }
        let block = self.blocks.first_mut()?.as_mut()?;
        let woken = block.marks.take() & block.taken;
        if woken.is_power_of_two() && !self.marks.any() {
            return Some(woken.trailing_zeros());
        }
        block.woken = woken;
        if woken != 0 {
            self.line.push_back(0);
        }
        None
    }

    /// The tasks that were woken, and new ones, [`MOST_POLLS`] together at most.
    ///
    /// Blocks take turns, and within one the places do, so that many busy tasks starve none; with new ones waiting, only half
    /// of the turn is for those that have been polled. Each turn starts one further on than the last: see `turn`.
    pub(crate) fn begin_turn(&mut self) -> Polls {
        let mut polls = Polls::default();
        self.gather();
        let new = self.new.len().min(MOST_POLLS / 2);
        let most = MOST_POLLS - new;
        while polls.len < most {
            let Some(number) = self.line.pop_front() else {
                break;
            };
            let Some(block) = self.block(number as usize) else {
                continue;
            };
            while block.woken != 0 && polls.len < most {
                let step = block.woken.rotate_right(block.next).trailing_zeros();
                let place = (block.next + step) % BLOCK as u32;
                block.woken &= !(1 << place);
                block.next = (place + 1) % BLOCK as u32;
                polls.places[polls.len] = number * BLOCK as u32 + place;
                polls.len += 1;
            }
            if block.woken != 0 {
                self.line.push_back(number);
            } else {
                block.next = 0;
            }
        }
        if polls.len > 1 {
            let first = self.turns % polls.len;
            polls.places[..polls.len].rotate_left(first);
        }
        self.turns = self.turns.wrapping_add(1);
        polls.new = self.new.len().min(MOST_POLLS - polls.len);
        polls.more = !self.line.is_empty() || polls.new < self.new.len();
        polls
    }

    /// Looks which tasks were woken.
    #[inline]
    fn gather(&mut self) {
        self.gather_block(0);
        let marked = self.marks.take();
        for_each_bit(marked & !LATER, |number| self.gather_block(number));
        if marked & LATER != 0 {
            self.gather_later();
        }
    }

    #[cold]
    fn gather_later(&mut self) {
        let later = std::mem::take(&mut self.later.marks);
        later.take(|number| self.gather_block(number));
        self.later.marks = later;
    }

    #[inline]
    fn gather_block(&mut self, number: usize) {
        let Some(block) = self.block(number) else {
            return;
        };
        let before = block.woken;
        block.woken |= block.marks.take() & block.taken;
        if before == 0 && block.woken != 0 {
            self.line.push_back(number as u32);
        }
    }

    /// The place of the next task of the turn; nothing may be there any more.
    pub(crate) fn next(&mut self, polls: &mut Polls) -> Option<u32> {
        if polls.next < polls.len {
            polls.next += 1;
            return Some(polls.places[polls.next - 1]);
        }
        polls.new = polls.new.checked_sub(1)?;
        self.place_new()
    }

    /// The first of those without a place gets one.
    #[cold]
    fn place_new(&mut self) -> Option<u32> {
        let node = self.new.pop_front()?;
        let number = self.number_with_room();
        if number == self.blocks.len() {
            self.blocks.push(None);
        }
        let new = self.new.len();
        let (marks, later) = (&self.marks, &mut self.later);
        let block = self.blocks[number].get_or_insert_with(|| {
            Block::new(BlockMarks::new(marks, &mut later.marks, number), new + 1)
        });
        let place = block.taken.trailing_ones() as usize;
        block.taken |= 1 << place;
        if block.tasks.len() <= place {
            block.tasks.push(None);
        }
        block.tasks[place] = Some((node, block.marks.waker(place)));
        if block.is_full() {
            self.lose_room(number);
        }
        self.placed += 1;
        Some((number * BLOCK + place) as u32)
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
    pub(crate) fn leave(&mut self, place: u32) -> Option<Link> {
        let (number, place) = (place as usize / BLOCK, place as usize % BLOCK);
        let block = self.block(number)?;
        let (node, _waker) = block.tasks.get_mut(place)?.take()?;
        let was_full = block.is_full();
        block.taken &= !(1 << place);
        block.woken &= !(1 << place);
        let empty = block.taken == 0;
        self.placed -= 1;
        if was_full {
            self.gain_room(number);
        }
        if empty {
            self.blocks[number] = None;
            while let Some(None) = self.blocks.last() {
                self.blocks.pop();
            }
        }
        Some(node)
    }
}
