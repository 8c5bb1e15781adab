//! A scope that has been used: one box, made by the first use, that becomes its batch.

use std::sync::Arc;

use super::{
    attachment::Attachment, core::RunnerRef, gate::Gate, inbox::Inbox, permits::Permits,
    runtime::DetectedRuntime, values::Values, wait_group::WaitGroup,
};
use crate::{
    account::{Counts, RosterKey},
    limit::{Place, Room, ScopeDeadline},
    platform::Instant,
    report::{Key, Outcome},
    task::{Backlog, BoxedTask, Order, PollTask, Queue, ReadySet, TaskCell},
};

/// A scope that has been used, from the first defer to the end of its batch.
pub(crate) struct ScopeState {
    pub(crate) runner: RunnerRef,
    /// Where the batch will go, if that was known at the first defer.
    pub(crate) runtime: DetectedRuntime,
    /// Deferred, and not in `queue` yet. Unused once there is an inbox.
    pub(crate) backlog: Backlog,
    /// Handed over, and not ended, but for what is being polled: one task, or on the fast path a round of them.
    pub(crate) queue: Queue,
    /// In place of the queue, once each task has a waker of its own. Out of here while its tasks are polled.
    pub(crate) ready: Option<Box<ReadySet>>,
    /// Polls left before a new round over the queue begins.
    pub(crate) round: usize,
    /// Whether the round takes more than one turn: what was woken in one is not seen in the next.
    pub(crate) long_round: bool,
    /// Polls so far, and tasks so far: when the first outgrow the second, every task gets a waker of its own.
    pub(crate) polls: u64,
    pub(crate) joined: u64,
    /// All tasks with a lower number have been polled.
    pub(crate) fresh: u64,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) order: Order,
    pub(crate) started: bool,
    /// Handed to the spawner. One that was held, and is awaited instead, waits for what is split off it.
    pub(crate) released: bool,
    /// Whether anything but the fast path is needed: the Runner has limits, observers or a hook, a task has a condition,
    /// a time limit or a closure, the order is Parallel, or there is an inbox.
    ///
    /// Invariant 5: it is never cleared but at the hand-over, when conditions are decided and nobody else knows this state:
    /// what was looked at once need not be looked at again.
    pub(crate) slow_path: bool,
    /// Whether a task had a key: the roster is told of it.
    pub(crate) keyed: bool,
    /// What the account does not know yet.
    pub(crate) unpublished: Counts,
    pub(crate) roster_key: Option<RosterKey>,
    /// For observers: the hand-over, or when the gate was opened. Nothing could start before.
    pub(crate) could_start: Option<Instant>,
    /// With the spawner, and not to start before this is open.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) context: Values,
    /// Made by the first `handle()`; from then on it holds what is collected, and the context.
    pub(crate) inbox: Option<Arc<Inbox>>,
    /// Split off at the hand-over, and not handed to the spawner yet.
    pub(crate) spawned: SpawnedBatches,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) on_account: bool,
    /// While this is not in use: see `spare`.
    pub(crate) next_spare: Option<Box<ScopeState>>,
}

/// Batches that were split off, in their boxes, in which they go on.
#[allow(clippy::vec_box)]
pub(crate) type SpawnedBatches = Vec<Box<ScopeState>>;

/// A task that was taken out of the backlog, and what is needed to tell observers of it.
pub(crate) type Discarded = (RunnerRef, Option<Outcome>, (Key, BoxedTask));

/// What few batches have.
#[derive(Default)]
pub(crate) struct Extras {
    /// Split off and waited for.
    pub(crate) group: Option<Arc<WaitGroup>>,
    /// This one was split off, and somebody waits for it.
    pub(crate) member_of: Option<Arc<WaitGroup>>,
    /// What the open scope waits for.
    pub(crate) room: Option<Room>,
    /// What the scope has waited for, until the batch stands in the queue.
    pub(crate) place: Option<Place>,
    pub(crate) permits: Option<Permits>,
    /// The time of all tasks of the request, if its Runner limits it.
    pub(crate) deadline: Option<ScopeDeadline>,
    /// This is the registry of code that a handle has brought along.
    pub(crate) attached: Option<Attachment>,
    /// What is lost with it is counted, and not reported.
    pub(crate) unreported: bool,
}

impl Extras {
    /// Whether nothing is waited for: no task that waits for a permit, no batch that was split off.
    pub(crate) fn awaits_nothing(&self) -> bool {
        let permits = self.permits.as_ref();
        self.group.is_none() && permits.is_none_or(|permits| permits.waiting.is_empty())
    }
}

impl ScopeState {
    pub(crate) fn new() -> ScopeState {
        ScopeState {
            slow_path: false,
            // Not looked at, or it would be made: there may be others alone.
            runner: RunnerRef::global(),
            runtime: DetectedRuntime::Nothing,
            backlog: Backlog::default(),
            queue: Queue::default(),
            ready: None,
            round: 0,
            long_round: false,
            polls: 0,
            joined: 0,
            fresh: 0,
            outcome: None,
            order: Order::default(),
            started: false,
            released: false,
            keyed: false,
            unpublished: Counts::default(),
            roster_key: None,
            could_start: None,
            gate: None,
            context: Values::default(),
            inbox: None,
            spawned: SpawnedBatches::new(),
            extras: None,
            on_account: false,
            next_spare: None,
        }
    }

    #[inline]
    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    pub(crate) fn attachment(&mut self) -> Option<&mut Attachment> {
        self.extras_if_any()?.attached.as_mut()
    }

    pub(crate) fn take_place(&mut self) -> Option<Place> {
        self.extras.as_mut()?.place.take()
    }

    pub(crate) fn extras_if_any(&mut self) -> Option<&mut Extras> {
        self.extras.as_deref_mut()
    }

    pub(crate) fn take_spawned(&mut self) -> SpawnedBatches {
        std::mem::take(&mut self.spawned)
    }

    /// Its gate is open: what it holds was ready from now on. For observers.
    pub(crate) fn open_at(&mut self, now: Instant) {
        self.could_start = Some(now);
        for batch in &mut self.spawned {
            batch.open_at(now);
        }
    }

    pub(crate) fn take_permits(&mut self) -> Option<Permits> {
        self.extras.as_mut()?.permits.take()
    }

    pub(crate) fn is_queued(&self) -> bool {
        let permits = self.extras().and_then(|extras| extras.permits.as_ref());
        permits.is_some_and(|permits| permits.queued)
    }

    /// Room for so many tasks was promised.
    pub(crate) fn reserve(&mut self, tasks: usize) {
        let permits = &mut self.extras_mut().permits;
        permits.get_or_insert_default().reserved = tasks;
    }

    #[inline]
    pub(crate) fn leave_group(&mut self) -> Option<Arc<WaitGroup>> {
        self.extras.as_mut()?.member_of.take()
    }

    #[inline]
    pub(crate) fn collect(&mut self, task: BoxedTask) {
        self.backlog.push(task);
        self.unpublished.deferred += 1;
        if !self.on_account {
            self.open_account();
        }
    }

    /// As `collect`, for tasks that may have a key and options. Gives back the task that it replaces, for
    /// `account::discard`.
    pub(crate) fn collect_any(&mut self, key: Option<Key>, task: BoxedTask) -> Option<Discarded> {
        self.slow_path |= task.options().is_some();
        let Some(key) = key else {
            self.collect(task);
            return None;
        };
        let replaced = self.backlog.push_keyed(key, task);
        self.keyed = true;
        self.unpublished.deferred += 1;
        if !self.on_account {
            self.open_account();
        }
        self.discarded(replaced)
    }

    /// How the request has ended, wherever that is kept.
    #[inline]
    pub(crate) fn outcome_now(&self) -> Option<Outcome> {
        match &self.inbox {
            Some(inbox) => inbox.outcome(),
            None => self.outcome,
        }
    }

    /// Takes back what has this key.
    pub(crate) fn forget(&mut self, key: &str) -> Option<Discarded> {
        let removed = self.backlog.remove(key);
        self.discarded(removed)
    }

    fn discarded(&mut self, task: Option<(Key, BoxedTask)>) -> Option<Discarded> {
        self.unpublished.discarded += u64::from(task.is_some());
        Some((self.runner.clone(), self.outcome, task?))
    }

    /// The first defer: from here on the scope is pending, and the spawner is looked for while a runtime is current.
    fn open_account(&mut self) {
        self.on_account = true;
        if self.runtime.is_nothing() {
            self.runtime = self.runner.get().current_runtime();
        }
        // Its first task is published by this; the others follow in a group.
        self.unpublished.deferred -= 1;
        self.runner.get().account.open();
    }

    /// Makes the inbox. The account must know of everything that goes into it, because the inbox counts for itself.
    pub(crate) fn make_inbox(&mut self) -> Arc<Inbox> {
        if self.runtime.is_nothing() {
            // From now on other threads may defer, also where no runtime is current: look while this one can.
            self.runtime = self.runner.get().current_runtime();
        }
        self.on_account = true;
        self.slow_path = true;
        let inbox = Arc::new(Inbox::new(
            self.runner.clone(),
            self.runtime.clone(),
            std::mem::take(&mut self.backlog),
            std::mem::take(&mut self.context),
            self.outcome,
            self.order,
        ));
        self.inbox = Some(inbox.clone());
        if let Some(roster_key) = self.roster_key {
            self.runner
                .get()
                .account
                .give_inbox(roster_key, inbox.clone());
        }
        inbox
    }

    /// Whether a batch needs anything but the fast path.
    pub(crate) fn needs_slow_path(&self) -> bool {
        self.runner.get().slow_path
            || self.order == Order::Parallel
            || self.inbox.is_some()
            || self.extras.is_some()
            || self.queue.any(|task| task.options().is_some())
    }

    #[inline]
    pub(crate) fn unfinished(&self) -> usize {
        let ready = self.ready.as_ref().map_or(0, |ready| ready.len());
        let permits = self.extras().and_then(|extras| extras.permits.as_ref());
        let waiting = permits.map_or(0, |permits| permits.waiting.len());
        self.queue.len() + ready + waiting
    }

    /// Whether there is nothing to run, and nothing was deferred that is to join.
    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished() == 0 && self.backlog.len() == 0
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &TaskCell<dyn PollTask>> {
        let ready = self.ready.iter().flat_map(|ready| ready.iter());
        let permits = self.extras().and_then(|extras| extras.permits.as_ref());
        let waiting = permits
            .into_iter()
            .flat_map(|permits| permits.waiting.iter());
        self.queue.iter().chain(ready).chain(waiting)
    }

    pub(crate) fn queue_up(&mut self, joined: Queue) {
        match &mut self.ready {
            Some(ready) => ready.extend(joined),
            None => self.queue.append(joined),
        }
    }
}
