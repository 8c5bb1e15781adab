//! The after phase: the tasks of one scope, as one future.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    account::Counts,
    active::Active,
    admission::{self, Group},
    closing, current, gate,
    inbox::Inbox,
    limit::{Place, Room},
    node::{Node, Work},
    offer,
    outcome::{Order, Outcome},
    registry::Registry,
    report,
    roster::Extra,
    runner::Runner,
    signal::wake,
    spawner::Found,
    stats::Unfinished,
    turn,
};

/// The tasks of one scope, as one future: `Send + Unpin + 'static`.
///
/// A [`Spawner`](crate::Spawner) gets it to run, and a held scope gives it to its caller, who awaits it or
/// [releases](Batch::release) it. It resolves when all its tasks have ended, those included which they deferred in turn.
///
/// Its first poll starts nothing: it wakes itself and returns, so that whatever stands behind it in the runtime's queue
/// comes first; as a rule that is the connection that writes the response. After that each turn polls at most 32 times
/// before it goes back to the runtime's queue, and each turn starts one task further on than the last.
///
/// # Dropping it
///
/// Its unfinished tasks are dropped, with their scope current, counted as lost and reported. What their destructors
/// defer is lost in turn. This never panics.
///
/// # Leaking it
///
/// A batch that is leaked ([`std::mem::forget`], a cycle of `Arc`s), or kept and never polled again, goes on no more, and its
/// unfinished tasks are never dropped. They stay pending, so [`Runner::drain`] never returns, and a shutdown waits up to
/// its limit and names them. Under [`max_running`](crate::RunnerBuilder::max_running) those of them that have begun keep
/// their permits for good.
#[must_use = "dropping a batch loses its tasks: await it or `release` it"]
pub struct Batch {
    /// `None` when all is done. One pointer: what is moved from scope to spawner to the runtime's cell is this.
    active: Option<Box<Active>>,
}

impl Batch {
    /// Ends a request: what its registry holds becomes a batch, on the roster.
    #[inline]
    pub(crate) fn collect(registry: &Registry, outcome: Outcome, order: Option<Order>) -> Batch {
        match registry.close() {
            None => Batch { active: None },
            Some(active) => Batch::hand_over(active, outcome, order),
        }
    }

    #[inline(never)]
    fn hand_over(mut active: Box<Active>, outcome: Outcome, order: Option<Order>) -> Batch {
        active.outcome = Some(outcome);
        active.order = order.unwrap_or(active.runner.get().order);
        if active.special || active.order == Order::Parallel {
            return Batch::hand_over_specially(active, outcome);
        }
        // It was empty: to look for something to drop would cost more than to put this there.
        let tasks = active.collected.take();
        let gap = mem::replace(&mut active.queue, tasks);
        debug_assert!(gap.is_empty(), "it was handed over before");
        mem::forget(gap);
        active.joined = active.queue.len() as u64;
        if active.queue.is_empty() {
            active.runner.get().account.publish(&active.unpublished);
            return Batch { active: None };
        }
        Batch::seated(active)
    }

    #[cold]
    fn hand_over_specially(mut active: Box<Active>, outcome: Outcome) -> Batch {
        active.special = true;
        let runner = active.runner.clone();
        let registry = Registry::active(active);
        current::enter(&registry, || {
            admission::at_hand_over(&registry, runner.get(), outcome);
        });
        let Some(active) = registry.close() else {
            return Batch { active: None };
        };
        let apart = active.look_uncommon().map_or(0, |rare| rare.apart.len());
        if active.queue.is_empty() {
            // Until its gate is open, handles bring what is handed over with the rest.
            let others = |inbox: &Arc<Inbox>| Arc::strong_count(inbox) > 1;
            let waits = active.gate.is_some() && active.inbox.as_ref().is_some_and(others);
            if apart == 0 && !waits {
                closing::settle(active);
                return Batch { active: None };
            }
            if !waits {
                return Batch {
                    active: Some(active),
                };
            }
        }
        Batch::seated(active)
    }

    /// On the roster, with what is in the queue.
    #[inline]
    pub(crate) fn seated(mut active: Box<Active>) -> Batch {
        let account = &active.runner.get().account;
        // Of a plain batch nothing is looked at.
        let extra = match active.special || active.keyed {
            true => Extra::of(&active.queue, active.inbox.as_ref()),
            false => None,
        };
        active.seat = Some(account.seat(&active.unpublished, &active.queue, extra));
        active.unpublished = Counts::default();
        Batch {
            active: Some(active),
        }
    }

    /// A batch of one for a task that came when its scope's batch was over.
    pub(crate) fn late(active: Box<Active>, outcome: Outcome) -> Batch {
        let order = active.order;
        Batch::hand_over(active, outcome, Some(order))
    }

    /// One that a runtime has refused.
    pub(crate) fn again(active: Box<Active>) -> Batch {
        Batch {
            active: Some(active),
        }
    }

    #[inline]
    pub(crate) fn active(&self) -> Option<&Active> {
        self.active.as_deref()
    }

    /// Whether there is nothing to hand over.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.active.is_none()
    }

    pub(crate) fn open_at(&mut self, now: Instant) {
        if let Some(active) = &mut self.active {
            active.open_at(now);
        }
    }

    pub(crate) fn be_member_of(&mut self, group: &Arc<Group>) {
        if let Some(active) = &mut self.active {
            group.join();
            let uncommon = active.uncommon();
            uncommon.member_of = Some(group.clone());
            uncommon.group = Some(group.clone());
        }
    }

    /// How many tasks a scope asks room for before its answer, if its Runner makes it wait.
    #[inline]
    pub(crate) fn room(&self) -> Option<Room> {
        let active = self.active.as_ref()?;
        if !active.special {
            return None;
        }
        active.runner.get().room(self.len())
    }

    /// As `release`, with the place that its scope has waited for.
    pub(crate) fn release_in(mut self, place: Place) {
        if let Some(active) = &mut self.active {
            active.uncommon().place = Some(place);
        }
        self.release();
    }

    /// The place goes to those that are to stand in line.
    fn take_place(active: &mut Active) {
        let Some(place) = active.uncommon_if_any().and_then(|rare| rare.place.take()) else {
            return;
        };
        let read = active.outcome != Some(Outcome::Cancelled);
        let mut promised = place.redeem(read);
        let first = Batch::first_of_all(active, promised);
        for batch in &mut active.uncommon().apart {
            if let Some(single) = &mut batch.active {
                let has_place = single.tasks().any(|node| node.sequence() < first);
                single.promise(usize::from(has_place));
                promised -= usize::from(has_place);
            }
        }
        active.promise(promised);
    }

    /// Below which number so many tasks are that were deferred first: what the body has deferred has not waited, also if it
    /// goes its own way.
    fn first_of_all(active: &Active, tasks: usize) -> u64 {
        let apart = active.look_uncommon().into_iter();
        let apart = apart.flat_map(|uncommon| &uncommon.apart);
        let apart = apart.filter_map(|batch| batch.active.as_ref());
        let all = apart.map(|single| &**single).chain([active]);
        let mut sequences: Vec<u64> = all
            .flat_map(|active| active.tasks())
            .map(|node| node.sequence())
            .collect();
        match tasks < sequences.len() {
            true => *sequences.select_nth_unstable(tasks).1,
            false => u64::MAX,
        }
    }

    /// Hands it to the Runner's spawner. An empty one is dropped.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async { after::defer(async {}) }).held().await;
    /// batch.release();
    /// # });
    /// ```
    #[inline]
    pub fn release(self) {
        // Apart, so that what is inlined into every request's poll is this one test.
        if self.active.is_some() {
            self.spawn();
        }
    }

    #[inline(never)]
    fn spawn(mut self) {
        let Some(active) = &mut self.active else {
            return;
        };
        active.released = true;
        let gated = active.gate.is_some();
        if active.special && !gated {
            active.begin_time(false);
            Batch::take_place(active);
            let apart = active.take_apart();
            // Before the last of these can end: whoever waits for that finds the values gone.
            let over = !apart.is_empty() && self.is_over();
            for batch in apart {
                batch.release();
            }
            // Also with nothing left: what was promised in excess goes back.
            self.line_up();
            if over {
                return self.end();
            }
        }
        let Some(active) = &mut self.active else {
            return;
        };
        if !gated && active.is_empty() && self.is_over() {
            // All of it was split off, or shed.
            return self.end();
        }
        let Some(active) = &mut self.active else {
            return;
        };
        // Both go out of the batch, because the spawner may drop it before it returns.
        let found = mem::replace(&mut active.found, Found::Nothing);
        let runner = active.runner.clone();
        let Some(spawner) = &runner.get().spawner else {
            return offer::to_runtime(self, found, runner.get());
        };
        let spawned = closing::spawning(|| report::catch(|| spawner.spawn(self)));
        if let Err(payload) = spawned {
            report::spawner_panicked(payload);
        }
    }

    /// Puts the tasks in the line for permits, if there is a limit and they are not in it.
    #[cold]
    fn line_up(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        let runner = active.runner.clone();
        let core = runner.get();
        if core.limit.is_none() || active.is_in_line() {
            self.active = Some(active);
            return;
        }
        let turn = Turn {
            registry: Registry::active(active),
            batch: self,
        };
        let registry = &turn.registry;
        current::enter(registry, || {
            let tasks = registry.peek(|active| mem::take(&mut active.queue));
            admission::line_up(registry, core, tasks.unwrap_or_default());
        });
    }

    /// The first polls of a batch with a gate, until that is open.
    #[cold]
    fn poll_gate(&mut self, cx: &mut Context<'_>) {
        let waker = cx.waker();
        let Some(gate) = self.active.as_ref().and_then(|active| active.gate.clone()) else {
            return;
        };
        if gate::is_opening() {
            // An executor that polls where it is woken.
            let waker = waker.clone();
            return gate::aside(|| wake(waker));
        }
        if !gate.poll(waker) {
            return;
        }
        gate.leave();
        if let Some(active) = &mut self.active {
            active.gate = None;
            active.started = true;
            if active.special {
                if !active.runner.get().observers.is_empty() {
                    active.open_at(Instant::now());
                }
                self.begin_specially();
            }
        }
        waker.wake_by_ref();
    }

    /// The first turn of a batch that was held and is awaited, or had a gate: what is split off goes to the spawner, and if
    /// this one is awaited it is waited for.
    #[cold]
    fn begin_specially(&mut self) {
        let Some(mut active) = self.active.take() else {
            return;
        };
        active.begin_time(true);
        Batch::take_place(&mut active);
        let apart = active.take_apart();
        if !apart.is_empty() {
            let registry = Registry::active(active);
            admission::send_apart(&registry, apart);
            self.active = registry.close();
        } else {
            self.active = Some(active);
        }
        self.line_up();
    }

    /// Whether nothing is left, and no handle can bring more: then its values are dropped.
    #[cold]
    fn is_over(&mut self) -> bool {
        let Some(active) = &mut self.active else {
            return true;
        };
        if !active.is_empty() {
            return false;
        }
        let ended = match active.inbox.clone() {
            Some(inbox) => inbox.ends_if_empty(),
            None => Some(mem::take(&mut active.context)),
        };
        ended.map(drop).is_some()
    }

    /// As dropping it, without a report of what is lost: for who has kept it on purpose, and not run it.
    pub(crate) fn drop_quietly(mut self) {
        if let Some(active) = &mut self.active {
            let uncommon = active.uncommon();
            uncommon.quiet = true;
            for batch in mem::take(&mut uncommon.apart) {
                batch.drop_quietly();
            }
        }
    }

    fn end(mut self) {
        if let Some(active) = self.active.take() {
            closing::settle(active);
        }
    }

    /// How many tasks have not ended.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async { after::defer(async {}) }).held().await;
    /// assert_eq!(batch.len(), 1);
    /// batch.await;
    /// # });
    /// ```
    pub fn len(&self) -> usize {
        self.active.as_ref().map_or(0, |active| {
            let joining = active.inbox.as_ref().map_or(0, |inbox| inbox.len());
            let apart = active.look_uncommon().map_or(0, |rare| rare.apart.len());
            // What the destructors of shed tasks have deferred waits for the next turn.
            active.unfinished() + active.collected.len() + apart + joining
        })
    }

    /// Whether all its tasks have ended, or there were none.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async {}).held().await;
    /// assert!(batch.is_empty());
    /// # drop(batch);
    /// # });
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the tasks that have not ended; before the first poll in the order of deferral.
    ///
    /// Tasks that a [`Handle`](crate::Handle) deferred after the hand-over are not among them before the next poll.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let request = async { after::task("audit").defer(async {}) };
    /// let ((), batch) = after::scope(request).held().await;
    /// assert!(batch.names().eq(["audit"]));
    /// batch.await;
    /// # });
    /// ```
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.tasks().into_iter().map(|node| node.name())
    }

    pub(crate) fn static_names(&self) -> impl Iterator<Item = &'static str> {
        self.tasks().into_iter().map(|node| node.name())
    }

    /// What has not ended, for a report.
    pub(crate) fn unfinished(&self) -> Vec<Unfinished> {
        let age = self.age();
        let tasks = self.tasks().into_iter();
        let unfinished = tasks.map(|node| node.label().unfinished(age));
        unfinished.collect()
    }

    /// A recorder was dropped, and did not run it: as one that was held.
    pub(crate) fn take_back(&mut self) {
        self.set_released(false);
    }

    pub(crate) fn set_released(&mut self, released: bool) {
        if let Some(active) = &mut self.active {
            active.released = released;
        }
    }

    fn age(&self) -> Duration {
        let age = self.active.as_ref().and_then(|active| {
            let account = &active.runner.get().account;
            Some(account.age(active.seat?))
        });
        age.unwrap_or_default()
    }

    /// Whose account it is on, unless it is done.
    pub(crate) fn runner(&self) -> Option<Runner> {
        self.active.as_ref().map(|active| active.runner.runner())
    }

    fn tasks(&self) -> Vec<&Node<dyn Work>> {
        let mut tasks: Vec<_> = self
            .active
            .iter()
            .flat_map(|active| active.tasks())
            .collect();
        let uncommon = self
            .active
            .iter()
            .filter_map(|active| active.look_uncommon());
        for batch in uncommon.flat_map(|uncommon| &uncommon.apart) {
            tasks.extend(batch.active.iter().flat_map(|active| active.tasks()));
        }
        if self.active.as_ref().is_some_and(|active| !active.started) {
            tasks.sort_by_key(|node| node.sequence());
        }
        tasks
    }
}

impl Future for Batch {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut active) = self.active.take() else {
            return Poll::Ready(());
        };
        let special = active.special;
        if !active.started {
            if active.gate.is_some() {
                self.active = Some(active);
                self.poll_gate(cx);
                return Poll::Pending;
            }
            active.started = true;
            self.active = Some(active);
            if special {
                self.begin_specially();
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let plan = active.begin_turn();
        // The tasks run in a registry of their own on this stack; it goes back into the batch, also on unwinding: a
        // waker that panics must not take the tasks along.
        let turn = Turn {
            registry: Registry::active(active),
            batch: &mut self,
        };
        let registry = &turn.registry;
        let done = match special {
            false => current::enter(registry, || turn::run(registry, cx, plan)),
            true => current::enter_tasks(registry, || turn::run(registry, cx, plan)),
        };
        turn.end();
        if !done {
            return Poll::Pending;
        }
        if let Some(active) = self.active.take() {
            closing::settle(active);
        }
        Poll::Ready(())
    }
}

struct Turn<'a> {
    registry: Registry,
    batch: &'a mut Batch,
}

impl Turn<'_> {
    /// What the destructor does, without the ways out that nobody takes: both places are empty.
    #[inline]
    fn end(mut self) {
        self.give_back();
        mem::forget(self);
    }

    #[inline]
    fn give_back(&mut self) {
        let gap = mem::replace(&mut self.batch.active, self.registry.close());
        debug_assert!(gap.is_none(), "it was taken out at the start of the turn");
        mem::forget(gap);
    }
}

impl Drop for Turn<'_> {
    #[cold]
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Drop for Batch {
    #[inline]
    fn drop(&mut self) {
        if let Some(active) = self.active.take() {
            if gate::is_opening() {
                return gate::aside(|| closing::lose(active));
            }
            closing::lose(active);
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `len` would lock the inbox; `Debug` does not.
        let unfinished = self.active.as_ref().map_or(0, |active| active.unfinished());
        f.debug_struct("Batch")
            .field("unfinished", &unfinished)
            .finish_non_exhaustive()
    }
}
