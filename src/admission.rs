//! Tasks that become part of a batch: at the hand-over, and later, when they were deferred by a task or through a handle.
//!
//! Only for batches that need it ([`Active::special`]): with conditions, tasks that go their own way, time limits,
//! observers, limits on how many run. Conditions are decided first; then those that go their own way are split off; then
//! the rest stand in line for permits, if there is a limit.
//!
//! [`Active::special`]: crate::active::Active

use std::{
    sync::{Arc, PoisonError},
    task::Waker,
    time::Instant,
};

use crate::{
    active::Active,
    batch::Batch,
    ending::Ended,
    finished::Finished,
    losses::Loss,
    node::{Link, Queue},
    outcome::{Order, Outcome},
    registry::Registry,
    report,
    runner::Core,
    scope_time::Member,
    signal::{Kept, drop_waker, wake},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::End,
};

/// The batches that were split off one that waits for them.
#[derive(Default)]
pub(crate) struct Group {
    left: AtomicUsize,
    waker: Mutex<Kept>,
}

impl Group {
    pub(crate) fn join(&self) {
        // Relaxed: by the batch itself, or by a member of the group, so that the count is not zero.
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        // AcqRel, with the Acquire in `is_done`: who waits sees what the last member did.
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let waker = self.lock().take();
            if let Some(waker) = waker {
                wake(waker);
            }
        }
    }

    /// Whether all have left; otherwise the last to leave wakes `waker`.
    pub(crate) fn is_done(&self, waker: &Waker) -> bool {
        if self.left.load(Ordering::Acquire) == 0 {
            return true;
        }
        let waker = waker.clone();
        let before = self.lock().replace(waker);
        drop_waker(before);
        // The last may have left before it could see the waker.
        self.left.load(Ordering::Acquire) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a request: decides which of its tasks run, and where. `registry` is current.
pub(crate) fn at_hand_over(registry: &Registry, core: &Core, outcome: Outcome) {
    let since = Instant::now();
    let inbox = registry.inbox();
    let (found, order, gated) = registry
        .peek(|active| (active.found.clone(), active.order, active.gate.is_some()))
        .unwrap_or_default();
    let mut kept = Queue::default();
    let mut tasks = match &inbox {
        Some(inbox) => registry.take_back(inbox.hand_over(outcome, order, &found, gated)),
        None => registry.take_collected(),
    };
    loop {
        kept.append(decide(registry, core, outcome, tasks, Some(since)));
        // What the destructors of the discarded have deferred is of this request too.
        tasks = match &inbox {
            Some(inbox) if kept.is_empty() && !gated => registry.take_back(inbox.batch_ends()),
            Some(inbox) => inbox.batch_runs(),
            None => registry.take_collected(),
        };
        if tasks.is_empty() {
            break;
        }
    }
    let apart = split(&mut kept, order);
    if core.scope_timeout.is_some() {
        registry.peek(|active| active.uncommon().time = Some(Member::new()));
    }
    // Before any of those that are split off can end. What is left is published with the batch's seat, or, if that is
    // nothing, when its context is gone: who waits for the account is woken by it.
    if !apart.is_empty() {
        registry.publish();
    }
    let apart: Vec<Batch> = apart
        .into_iter()
        .filter_map(|node| single(registry, node))
        .collect();
    registry.peek(|active| {
        active.joined = kept.len() as u64;
        active.queue = kept;
        if !apart.is_empty() {
            active.uncommon().apart = apart;
        }
    });
}

/// Tasks that join a running batch. `registry` is current; what of them stays in the batch is given back, to be queued.
pub(crate) fn at_join(registry: &Registry, core: &Core, tasks: Queue) -> Queue {
    let state = registry.peek(|active| {
        let time = active.look_uncommon().and_then(|rare| rare.time.as_ref());
        let over = time.is_some_and(Member::is_over);
        (active.outcome, active.order, over)
    });
    let Some((Some(outcome), order, over)) = state else {
        return tasks;
    };
    if let (true, Some(limit)) = (over, core.scope_timeout) {
        for node in tasks {
            finish(registry, core, node, End::TimedOut(limit));
        }
        return Queue::default();
    }
    let mut kept = decide(registry, core, outcome, tasks, None);
    let apart = split(&mut kept, order);
    if !apart.is_empty() {
        registry.publish();
        let batches = apart
            .into_iter()
            .filter_map(|node| single(registry, node))
            .collect();
        send_apart(registry, batches);
    }
    kept
}

/// Decides the conditions, and drops those that are not to run.
fn decide(
    registry: &Registry,
    core: &Core,
    outcome: Outcome,
    tasks: Queue,
    since: Option<Instant>,
) -> Queue {
    let mut kept = Queue::default();
    for mut node in tasks {
        let mut condition = None;
        if let Some(rare) = node.as_mut().rare_mut() {
            condition = rare.condition.take();
            if let (Some(times), Some(since)) = (&mut rare.times, since) {
                times.ready = since;
            }
        }
        let holds = condition.map(|condition| report::catch(|| (condition.holds)(outcome)));
        match holds.unwrap_or(Ok(true)) {
            Ok(true) => kept.push_back(node),
            Ok(false) => finish(registry, core, node, End::Discarded),
            Err(payload) => finish(registry, core, node, End::Panicked(payload)),
        }
    }
    kept
}

/// Takes out those that are batches of their own.
fn split(tasks: &mut Queue, order: Order) -> Queue {
    tasks.extract(|node| order == Order::Parallel || node.rare().is_some_and(|rare| rare.apart))
}

/// A batch of one, with the scope's outcome and context. Its task is on the account already.
fn single(registry: &Registry, node: Link) -> Option<Batch> {
    let context = registry.context();
    registry.peek(|active| {
        let mut single = Active::of_one(active.runner.clone(), active.found.clone(), node);
        single.outcome = active.outcome;
        single.order = active.order;
        single.context = context;
        if let Some(time) = active.look_uncommon().and_then(|rare| rare.time.as_ref()) {
            single.uncommon().time = Some(time.share());
        }
        Batch::seated(single)
    })
}

/// Hands batches that were split off to the spawner; if this batch is awaited, they are waited for.
pub(crate) fn send_apart(registry: &Registry, batches: Vec<Batch>) {
    let group = registry
        .peek(|active| {
            let awaited = !active.released;
            let uncommon = active.uncommon();
            if awaited && uncommon.group.is_none() {
                uncommon.group = Some(Arc::default());
            }
            uncommon.group.clone()
        })
        .flatten();
    for mut batch in batches {
        if let Some(group) = &group {
            batch.be_member_of(group);
        }
        batch.release();
    }
}

/// Puts tasks that are on the roster in the line for permits, behind all others of the Runner; sheds those for which there
/// is no room.
///
/// Leaves it to the next turn to watch for the permits, which the caller sees to: a waker is the user's code, and must not
/// run while the tasks are taken out.
pub(crate) fn line_up(registry: &Registry, core: &Core, mut tasks: Queue) {
    let Some(limit) = &core.limit else {
        registry.peek(|active| active.queue_up(tasks));
        return;
    };
    let state = registry.peek(|active| {
        let one_by_one = active.order == Order::Sequential;
        let permits = active.uncommon().permits.get_or_insert_default();
        permits.entered = true;
        let wanted = match one_by_one {
            false => tasks.len(),
            true => usize::from(permits.waiting.is_empty() && permits.running == 0),
        };
        let promised = std::mem::take(&mut permits.promised);
        (permits.entry.clone(), promised, wanted)
    });
    let Some((entry, promised, wanted)) = state else {
        return;
    };
    let (accepted, wakers) = limit.enter(&entry, tasks.len(), promised, wanted);
    let mut position = 0;
    let shed = tasks.extract(|_| {
        position += 1;
        position > accepted
    });
    registry.peek(|active| {
        active
            .uncommon()
            .permits
            .get_or_insert_default()
            .waiting
            .append(tasks);
    });
    wakers.wake();
    if shed.is_empty() {
        return;
    }
    let mut gone: Finished = shed.iter().map(|node| node.sequence()).collect();
    lose(registry, core, Loss::Shed, shed);
    registry.record(&mut gone, &Queue::default());
}

/// Gathers losses, so that they are reported together, and drops what is lost.
pub(crate) fn lose(registry: &Registry, core: &Core, why: Loss, mut tasks: Queue) {
    let runner = registry.runner();
    // A closure that has returned, and whose batch has not heard of it, is not lost.
    let returned = tasks.extract(|node| {
        let slot = node.rare().and_then(|rare| rare.blocking.as_ref());
        slot.is_some_and(|slot| slot.has_ended())
    });
    for node in returned {
        let slot = node.rare().and_then(|rare| rare.blocking.clone());
        let end = slot.and_then(|slot| slot.take_end());
        let end = end.unwrap_or(End::Lost(why));
        if let End::Lost(why) = end {
            // Its pool has dropped it.
            let lost = std::iter::once(node.label());
            core.account.lose(&runner, why, lost);
        }
        finish(registry, core, node, end);
    }
    if tasks.is_empty() {
        return;
    }
    let quiet = registry.peek(|active| active.look_uncommon().is_some_and(|rare| rare.quiet));
    if quiet != Some(true) || why == Loss::Shed {
        let lost = tasks.iter().map(|node| node.label());
        core.account.lose(&runner, why, lost);
    }
    for node in tasks {
        let end = match why {
            Loss::Shed => End::Shed,
            why => End::Lost(why),
        };
        finish(registry, core, node, end);
    }
}

/// Ends a task that does not run, or not to its end.
pub(crate) fn finish(registry: &Registry, core: &Core, node: Link, end: End) {
    let ended = Ended::of(node, end);
    let outcome = registry.peek(|active| {
        ended.count(&mut active.unpublished);
        active.outcome
    });
    ended.tell(core, outcome.flatten());
}
