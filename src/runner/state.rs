//! A scope that has been used: one box, made by the first use, that becomes its batch.

use std::{sync::Arc, time::Instant};

use super::{
    attachment::Attachment, core::RunnerRef, gate::Gate, group::Group, inbox::Inbox,
    permits::Permits, runtime::Found, values::Context,
};
use crate::{
    account::{Counts, Seat},
    limit::{Member, Place},
    report::{Key, Outcome},
    task::{Collected, Link, Node, Order, Queue, Ready, Work},
};

/// A scope that has been used, from the first defer to the end of its batch.
pub(crate) struct Active {
    pub(crate) runner: RunnerRef,
    /// Where the batch will go, if that was known at the first defer.
    pub(crate) found: Found,
    /// Deferred, and not in `queue` yet. Unused once there is an inbox.
    pub(crate) collected: Collected,
    /// Handed over, and not finished, but for the one that is being polled.
    pub(crate) queue: Queue,
    /// In place of the queue, once each task has a waker of its own. Out of here while its tasks are polled.
    pub(crate) ready: Option<Box<Ready>>,
    /// Polls left before a new round over the queue begins.
    pub(crate) round: usize,
    /// Whether the round takes more than one turn: what was woken in one is not seen in the next.
    pub(crate) split: bool,
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
    /// Whether anything but the plain path is needed: the Runner has limits, observers or a hook, a task has a condition,
    /// a time limit or a closure, the order is Parallel, or there is an inbox.
    pub(crate) special: bool,
    /// Whether a task had a key: the roster is told of it.
    pub(crate) keyed: bool,
    /// What the account does not know yet.
    pub(crate) unpublished: Counts,
    pub(crate) seat: Option<Seat>,
    /// With the spawner, and not to start before this is open.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) context: Context,
    /// Made by the first `handle()`; from then on it holds what is collected, and the context.
    pub(crate) inbox: Option<Arc<Inbox>>,
    pub(crate) uncommon: Option<Box<Uncommon>>,
    pub(crate) on_account: bool,
    /// While this is not in use: see `spare`.
    pub(crate) next_spare: Option<Box<Active>>,
}

/// Batches that were split off, in their boxes, in which they go on.
#[allow(clippy::vec_box)]
pub(crate) type Apart = Vec<Box<Active>>;

/// What few batches have.
#[derive(Default)]
pub(crate) struct Uncommon {
    /// Split off at the hand-over, and not handed to the spawner yet.
    pub(crate) apart: Apart,
    /// Split off and waited for.
    pub(crate) group: Option<Arc<Group>>,
    /// This one was split off, and somebody waits for it.
    pub(crate) member_of: Option<Arc<Group>>,
    /// What the scope has waited for, until the batch stands in line.
    pub(crate) place: Option<Place>,
    pub(crate) permits: Option<Permits>,
    /// The time of all tasks of the request, if its Runner limits it.
    pub(crate) time: Option<Member>,
    /// When the gate was opened: nothing could start before.
    pub(crate) opened: Option<Instant>,
    /// This is the registry of code that a handle has brought along.
    pub(crate) attached: Option<Attachment>,
    /// What is lost with it is counted, and not reported.
    pub(crate) quiet: bool,
}

impl Active {
    pub(crate) fn new(runner: RunnerRef) -> Active {
        Active {
            special: runner.get().special,
            runner,
            found: Found::Nothing,
            collected: Collected::default(),
            queue: Queue::default(),
            ready: None,
            round: 0,
            split: false,
            polls: 0,
            joined: 0,
            fresh: 0,
            outcome: None,
            order: Order::default(),
            started: false,
            released: false,
            keyed: false,
            unpublished: Counts::default(),
            seat: None,
            gate: None,
            context: Context::default(),
            inbox: None,
            uncommon: None,
            on_account: false,
            next_spare: None,
        }
    }

    #[inline]
    pub(crate) fn uncommon(&mut self) -> &mut Uncommon {
        self.uncommon.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn look_uncommon(&self) -> Option<&Uncommon> {
        self.uncommon.as_deref()
    }

    pub(crate) fn attachment(&mut self) -> Option<&mut Attachment> {
        self.uncommon_if_any()?.attached.as_mut()
    }

    pub(crate) fn uncommon_if_any(&mut self) -> Option<&mut Uncommon> {
        self.uncommon.as_deref_mut()
    }

    pub(crate) fn take_apart(&mut self) -> Apart {
        let uncommon = self.uncommon.as_mut();
        uncommon.map_or_else(Apart::new, |uncommon| std::mem::take(&mut uncommon.apart))
    }

    /// Its gate is open: what it holds was ready from now on. For observers.
    pub(crate) fn open_at(&mut self, now: Instant) {
        let uncommon = self.uncommon();
        uncommon.opened = Some(now);
        for batch in &mut uncommon.apart {
            batch.open_at(now);
        }
    }

    pub(crate) fn take_permits(&mut self) -> Option<Permits> {
        self.uncommon.as_mut()?.permits.take()
    }

    pub(crate) fn is_in_line(&self) -> bool {
        let permits = self.look_uncommon().and_then(|rare| rare.permits.as_ref());
        permits.is_some_and(|permits| permits.entered)
    }

    /// Room for so many tasks was promised.
    pub(crate) fn promise(&mut self, tasks: usize) {
        let permits = &mut self.uncommon().permits;
        permits.get_or_insert_default().promised = tasks;
    }

    #[inline]
    pub(crate) fn leave_group(&mut self) -> Option<Arc<Group>> {
        self.uncommon.as_mut()?.member_of.take()
    }

    #[inline]
    pub(crate) fn collect(&mut self, node: Link) {
        self.collected.push(node);
        self.unpublished.deferred += 1;
        if !self.on_account {
            self.open_account();
        }
    }

    pub(crate) fn collect_keyed(&mut self, key: Key, node: Link) -> Option<(Key, Link)> {
        let replaced = self.collected.push_keyed(key, node);
        self.keyed = true;
        self.unpublished.deferred += 1;
        self.unpublished.discarded += u64::from(replaced.is_some());
        if !self.on_account {
            self.open_account();
        }
        replaced
    }

    /// The first defer: from here on the scope is pending, and the spawner is looked for while a runtime is current.
    fn open_account(&mut self) {
        self.on_account = true;
        if self.found.is_nothing() {
            self.found = self.runner.get().current_runtime();
        }
        // Its first task is published by this; the others follow in a group.
        self.unpublished.deferred -= 1;
        self.runner.get().account.open();
    }

    /// Makes the inbox. The account must know of everything that goes into it, because the inbox counts for itself.
    pub(crate) fn make_inbox(&mut self) -> Arc<Inbox> {
        if self.found.is_nothing() {
            // From now on other threads may defer, also where no runtime is current: look while this one can.
            self.found = self.runner.get().current_runtime();
        }
        self.on_account = true;
        self.special = true;
        let inbox = Arc::new(Inbox::new(
            self.runner.clone(),
            self.found.clone(),
            std::mem::take(&mut self.collected),
            std::mem::take(&mut self.context),
            self.outcome,
            self.order,
        ));
        self.inbox = Some(inbox.clone());
        if let Some(seat) = self.seat {
            self.runner.get().account.give_inbox(seat, inbox.clone());
        }
        inbox
    }

    #[inline]
    pub(crate) fn unfinished(&self) -> usize {
        let ready = self.ready.as_ref().map_or(0, |ready| ready.len());
        let permits = self.look_uncommon().and_then(|rare| rare.permits.as_ref());
        let waiting = permits.map_or(0, |line| line.waiting.len());
        self.queue.len() + ready + waiting
    }

    /// Whether there is nothing to run, and nothing was deferred that is to join.
    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished() == 0 && self.collected.len() == 0
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Node<dyn Work>> {
        let ready = self.ready.iter().flat_map(|ready| ready.iter());
        let permits = self.look_uncommon().and_then(|rare| rare.permits.as_ref());
        let waiting = permits.into_iter().flat_map(|line| line.waiting.iter());
        self.queue.iter().chain(ready).chain(waiting)
    }

    pub(crate) fn queue_up(&mut self, joined: Queue) {
        match &mut self.ready {
            Some(ready) => ready.extend(joined),
            None => self.queue.append(joined),
        }
    }
}
