//! A scope that has been used: one box, made by the first use, that becomes its batch.

use std::{mem, sync::Arc};

use super::{
    attachment::Attachment, core::RunnerRef, extras::Extras, gate::Gate, inbox::Inbox,
    permits::Permits, runtime::DetectedRuntime, spare, values::Values, wait_group::WaitGroup,
};
use crate::{
    account::{Counts, FewCounts, RosterKey, Unpublished},
    limit::Place,
    platform::Instant,
    report::Outcome,
    task::{Backlog, BoxedTask, MOST_POLLS, Order, PollTask, Queue, ReadySet, TaskCell},
};

/// A scope that has been used, from the first defer to the end of its batch.
///
/// What each batch needs is here, in 144 bytes: a million of them may wait. The rest is in [`Extras`].
///
/// Flat: one struct for what an inbox holds too, or one for what the account does not know yet, would be padded to whole
/// words, 8 bytes each, and 400 for a waiting request is a promise that has 5 left.
pub(crate) struct ScopeState {
    pub(crate) runner: RunnerRef,
    /// Where the batch will go, if that was known at the first defer.
    pub(crate) runtime: DetectedRuntime,
    /// Deferred, and not in `queue` yet. Unused once there is an inbox.
    pub(crate) backlog: Backlog,
    /// Handed over, and not ended. Out of here while a round polls it; the only task of a batch leaves its place.
    pub(crate) queue: Queue,
    /// In place of the queue, once each task has a waker of its own. Out of here while its tasks are polled.
    pub(crate) ready: Option<Box<ReadySet>>,
    pub(crate) roster_key: Option<RosterKey>,
    extras: Option<Box<Extras>>,
    /// What the account does not know yet; all else is in `extras`.
    pub(crate) few: FewCounts,
    discarded: u16,
    /// Polls that are left before each task gets a waker of its own: some for each that has joined, as far as they go into a
    /// byte.
    pub(crate) polls_left: u8,
    /// Polls left before a new round over the queue begins.
    pub(crate) round: u32,
    /// Whether the round takes more than one turn: what was woken in one is not seen in the next.
    pub(crate) long_round: bool,
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
    pub(crate) on_account: bool,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<ScopeState>() <= 144);

/// Batches that were split off, in their boxes, in which they go on.
#[allow(clippy::vec_box)]
pub(crate) type SpawnedBatches = Vec<Box<ScopeState>>;

/// Polls for each task before tasks get wakers of their own. A waker costs as much as three polls of a task that
/// does nothing in them, and a poll for nothing of one that does something costs more.
const POLLS_A_TASK: usize = 3;

impl ScopeState {
    pub(crate) fn new() -> ScopeState {
        ScopeState {
            // Not looked at, or it would be made: there may be others alone.
            runner: RunnerRef::global(),
            runtime: DetectedRuntime::Nothing,
            backlog: Backlog::default(),
            queue: Queue::default(),
            ready: None,
            roster_key: None,
            extras: None,
            few: FewCounts::default(),
            discarded: 0,
            polls_left: 0,
            round: 0,
            long_round: false,
            outcome: None,
            order: Order::default(),
            started: false,
            released: false,
            slow_path: false,
            keyed: false,
            on_account: false,
        }
    }

    #[inline]
    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_with(spare::take_extras)
    }

    #[inline]
    pub(crate) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    pub(crate) fn attachment(&mut self) -> Option<&mut Attachment> {
        self.extras_if_any()?.attached.as_mut()
    }

    pub(super) fn take_extras(&mut self) -> Option<Box<Extras>> {
        self.extras.take()
    }

    pub(crate) fn take_place(&mut self) -> Option<Place> {
        self.extras.as_mut()?.place.take()
    }

    pub(crate) fn extras_if_any(&mut self) -> Option<&mut Extras> {
        self.extras.as_deref_mut()
    }

    #[inline]
    pub(crate) fn inbox(&self) -> Option<&Arc<Inbox>> {
        self.extras()?.inbox.as_ref()
    }

    #[inline]
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.extras()?.gate.as_ref()
    }

    pub(crate) fn take_gate(&mut self) -> Option<Arc<Gate>> {
        self.extras.as_mut()?.gate.take()
    }

    pub(crate) fn context(&self) -> Values {
        let extras = self.extras();
        extras.map_or_else(Values::default, |extras| extras.context.clone())
    }

    pub(crate) fn set_context(&mut self, context: Values) {
        if !context.is_empty() {
            self.extras_mut().context = context;
        }
    }

    /// Its values' destructors are the user's code.
    #[inline]
    pub(crate) fn take_context(&mut self) -> Values {
        match &mut self.extras {
            Some(extras) => mem::take(&mut extras.context),
            None => Values::default(),
        }
    }

    pub(crate) fn spawned(&self) -> &[Box<ScopeState>] {
        self.extras().map_or(&[], |extras| &extras.spawned)
    }

    pub(crate) fn take_spawned(&mut self) -> SpawnedBatches {
        let extras = self.extras.as_mut();
        extras.map_or_else(Vec::new, |extras| mem::take(&mut extras.spawned))
    }

    /// Its gate is open: what it holds was ready from now on. For observers.
    pub(crate) fn open_at(&mut self, now: Instant) {
        let extras = self.extras_mut();
        extras.opened = Some(now);
        for batch in &mut extras.spawned {
            batch.open_at(now);
        }
    }

    /// So many tasks are in the queue that were not.
    #[inline]
    pub(crate) fn allow_polls(&mut self, tasks: usize) {
        let polls = usize::from(self.polls_left) + tasks.min(MOST_POLLS) * POLLS_A_TASK;
        self.polls_left = u8::try_from(polls).unwrap_or(u8::MAX);
    }

    /// A task is discarded, and the account is told of it later.
    pub(crate) fn count_discarded(&mut self) {
        if self.discarded == u16::MAX {
            // A loop that replaces one task by another may go on for ever. Nobody is woken by this: the task is pending.
            // Those that have completed are told with the change of the roster.
            let unpublished = Unpublished {
                few: self.few.split_deferred(),
                discarded: mem::take(&mut self.discarded),
                ..Unpublished::default()
            };
            self.runner.get().account.publish(&unpublished);
        }
        self.discarded += 1;
    }

    /// What is counted besides tasks that were deferred, have completed or were discarded.
    pub(crate) fn other_counts(&mut self) -> &mut Counts {
        self.extras_mut().unpublished.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn has_unpublished(&self) -> bool {
        !self.few.is_empty()
            || self.discarded != 0
            || self
                .extras()
                .is_some_and(|extras| extras.unpublished.is_some())
    }

    #[inline]
    pub(crate) fn take_unpublished(&mut self) -> Unpublished {
        Unpublished {
            few: mem::take(&mut self.few),
            discarded: mem::take(&mut self.discarded),
            others: match &mut self.extras {
                Some(extras) => extras.unpublished.take(),
                None => None,
            },
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
        match self.on_account {
            true => self.few.add_deferred(),
            false => {
                self.backlog.begin();
                self.open_account();
            }
        }
        self.backlog.push(task);
    }

    /// As `collect`, for a task that may have options, among them a key: then the task that it replaces is given back, and
    /// counted. Given back itself if there is an inbox.
    #[inline]
    pub(crate) fn collect_unless_shared(
        &mut self,
        task: BoxedTask,
    ) -> Result<Option<BoxedTask>, (Arc<Inbox>, BoxedTask)> {
        if let Some(inbox) = self.inbox() {
            return Err((inbox.clone(), task));
        }
        self.slow_path |= task.needs_slow_path();
        if task.key().is_some() {
            return Ok(self.collect_keyed(task));
        }
        self.collect(task);
        Ok(None)
    }

    fn collect_keyed(&mut self, task: BoxedTask) -> Option<BoxedTask> {
        self.keyed = true;
        match self.on_account {
            true => self.few.add_deferred(),
            false => self.open_account(),
        }
        let replaced = self.backlog.push_keyed(task);
        if replaced.is_some() {
            self.count_discarded();
        }
        replaced
    }

    /// How the request has ended, wherever that is kept.
    #[inline]
    pub(crate) fn outcome_now(&self) -> Option<Outcome> {
        match self.inbox() {
            Some(inbox) => inbox.outcome(),
            None => self.outcome,
        }
    }

    /// Takes back what has this key, and counts it.
    pub(crate) fn forget(&mut self, key: &str) -> Option<BoxedTask> {
        let removed = self.backlog.remove(key)?;
        self.count_discarded();
        Some(removed)
    }

    /// The first defer: from here on the scope is pending, and the spawner is looked for while a runtime is current.
    fn open_account(&mut self) {
        self.on_account = true;
        if self.runtime.is_nothing() {
            self.runtime = self.runner.get().current_runtime();
        }
        // Its first task is published by this; the others follow in a group.
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
            self.take_context(),
            self.outcome,
            self.order,
        ));
        self.extras_mut().inbox = Some(inbox.clone());
        if let Some(roster_key) = self.roster_key {
            self.runner
                .get()
                .account
                .give_inbox(roster_key, inbox.clone());
        }
        inbox
    }

    /// The request has ended. If no handle is left, nothing comes from elsewhere, and the batch goes on as if there had been
    /// none.
    pub(crate) fn give_up_inbox_if_alone(&mut self) {
        let Some(extras) = self.extras.as_mut() else {
            return;
        };
        let Some(inbox) = extras.inbox.take() else {
            return;
        };
        match Arc::try_unwrap(inbox) {
            Ok(inbox) => {
                (self.backlog, extras.context) = inbox.give_up();
                // The account knows of each of them.
                self.on_account = !self.backlog.is_empty();
                self.keyed |= self.backlog.has_keys();
            }
            Err(shared) => extras.inbox = Some(shared),
        }
    }

    /// Whether a batch needs anything but the fast path.
    pub(crate) fn needs_slow_path(&self) -> bool {
        self.runner.get().slow_path
            || self.order == Order::Parallel
            || self.extras().is_some_and(Extras::need_slow_path)
            || self.queue.iter().any(TaskCell::needs_slow_path)
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
        self.unfinished() == 0 && self.backlog.is_empty()
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
