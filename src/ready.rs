//! A waker for each task of a batch, for batches that are woken often and have many tasks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError},
    task::{Wake, Waker},
};

use crate::{
    node::{Link, Node, Queue, Work},
    signal::{Kept, drop_waker, wake},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// The tasks of a batch, of which those are polled whose wakers were woken.
pub(crate) struct Ready {
    // A tree gives the memory of what has ended back.
    tasks: BTreeMap<u64, Task>,
    shared: Arc<Shared>,
    turns: usize,
    /// All tasks with a lower number have been polled.
    fresh: u64,
}

struct Task {
    /// `None` while it is polled.
    node: Option<Link>,
    waker: Arc<TaskWaker>,
}

/// What the wakers of one batch share.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order of waking.
    woken: VecDeque<u64>,
    /// Wakes the batch.
    batch: Kept,
}

struct TaskWaker {
    sequence: u64,
    /// Whether it stands in `woken`.
    queued: AtomicBool,
    shared: Arc<Shared>,
}

/// Which tasks to poll now.
#[derive(Default)]
pub(crate) struct Polls {
    pub(crate) sequences: Vec<u64>,
    /// Whether others are waiting.
    pub(crate) more: bool,
}

impl Ready {
    /// All of them are polled at first: who knows which was woken last.
    pub(crate) fn new(tasks: Queue, fresh: u64) -> Self {
        let mut ready = Ready {
            tasks: BTreeMap::new(),
            shared: Arc::default(),
            turns: 0,
            fresh,
        };
        ready.extend(tasks);
        ready
    }

    pub(crate) fn extend(&mut self, mut tasks: Queue) {
        while let Some(node) = tasks.pop_front() {
            let sequence = node.sequence();
            self.shared.lock().woken.push_back(sequence);
            let waker = Arc::new(TaskWaker {
                sequence,
                queued: AtomicBool::new(true),
                shared: self.shared.clone(),
            });
            let node = Some(node);
            self.tasks.insert(sequence, Task { node, waker });
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node<dyn Work>> {
        self.tasks.values().filter_map(|task| task.node.as_deref())
    }

    /// Takes out those that `remove` chooses.
    pub(crate) fn extract(&mut self, mut remove: impl FnMut(&mut Link) -> bool) -> Queue {
        let mut removed = Queue::default();
        let chosen: Vec<u64> = self
            .tasks
            .iter_mut()
            .filter_map(|(sequence, task)| {
                task.node
                    .as_mut()
                    .is_some_and(&mut remove)
                    .then_some(*sequence)
            })
            .collect();
        for sequence in chosen {
            if let Some(node) = self.tasks.remove(&sequence).and_then(|task| task.node) {
                removed.push_back(node);
            }
        }
        removed
    }

    pub(crate) fn into_tasks(self) -> Queue {
        let mut tasks = Queue::default();
        for task in self.tasks.into_values() {
            if let Some(node) = task.node {
                tasks.push_back(node);
            }
        }
        tasks
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Of those that were woken at most `most`. Each turn starts one further on than the last: see `turn`.
    pub(crate) fn next_turn(&mut self, most: usize) -> Polls {
        let mut state = self.shared.lock();
        let taken = state.woken.len().min(most);
        let woken: Vec<u64> = state.woken.drain(..taken).collect();
        let more = !state.woken.is_empty();
        drop(state);
        // Those that were polled before take turns at being the first; new ones start in their order.
        let (mut sequences, new): (Vec<u64>, Vec<u64>) =
            woken.into_iter().partition(|task| *task < self.fresh);
        if !sequences.is_empty() {
            let first = self.turns % sequences.len();
            sequences.rotate_left(first);
        }
        self.turns = self.turns.wrapping_add(1);
        if let Some(last) = new.last() {
            self.fresh = last + 1;
        }
        sequences.extend(new);
        Polls { sequences, more }
    }

    pub(crate) fn take(&mut self, sequence: u64) -> Option<(Link, Waker)> {
        let task = self.tasks.get_mut(&sequence)?;
        // Before the poll, so that a wake-up during it queues the task again. Acquire, with the AcqRel in `wake_by_ref`:
        // the poll sees what the waker's thread did before it woke.
        task.waker.queued.swap(false, Ordering::Acquire);
        let node = task.node.take()?;
        Some((node, Waker::from(task.waker.clone())))
    }

    pub(crate) fn put_back(&mut self, sequence: u64, node: Link) {
        if let Some(task) = self.tasks.get_mut(&sequence) {
            task.node = Some(node);
        }
    }

    pub(crate) fn remove(&mut self, sequence: u64) {
        self.tasks.remove(&sequence);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on whoever wakes a task wakes the batch through `waker`.
    pub(crate) fn watch(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = self.lock().batch.replace(waker);
        drop_waker(before);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.shared.lock();
        state.woken.push_back(self.sequence);
        // Taken: the batch sets it again when it looks, and until then one wake-up is enough.
        let batch = state.batch.take();
        drop(state);
        if let Some(batch) = batch {
            wake(batch);
        }
    }
}
