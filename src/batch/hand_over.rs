//! The end of a request: what its scope has collected becomes a batch.
//!
//! For batches that need it ([`Active::special`]), with conditions, tasks that go their own way, time limits, observers,
//! limits on how many run: conditions are decided first; then those that go their own way are split off. The rest stands in
//! line for permits at the release, if there is a limit.

use std::{mem, sync::Arc, time::Instant};

use super::{batch::Batch, close, end::finish};
use crate::{
    account::{Counts, Extra},
    limit::Member,
    report::{self, Outcome},
    runner::{Active, Apart, Core, Found, Inbox, Late, Registry, RunnerRef, current, spare},
    task::{End, Link, Order, Queue},
};

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
            at_hand_over(&registry, runner.get(), outcome);
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
                close::settle(active);
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
    fn seated(mut active: Box<Active>) -> Batch {
        seat(&mut active);
        Batch::of(active)
    }

    /// For a task that came when its scope's batch was over.
    pub(crate) fn late(late: Late) -> Batch {
        let Late {
            runner,
            found,
            order,
            context,
            outcome,
            node,
        } = late;
        let mut active = spare::active(runner);
        active.found = found;
        active.order = order;
        active.context = context;
        active.special = true;
        active.collect(node);
        Batch::hand_over(active, outcome, Some(order))
    }
}

/// Puts it on the roster, with what is in the queue.
#[inline]
fn seat(active: &mut Active) {
    let account = &active.runner.get().account;
    // Of a plain batch nothing is looked at.
    let extra = match active.special || active.keyed {
        true => Extra::of(&active.queue, active.inbox.as_ref()),
        false => None,
    };
    active.seat = Some(account.seat(&active.unpublished, &active.queue, extra));
    active.unpublished = Counts::default();
}

/// The end of a request: decides which of its tasks run, and where. `registry` is current.
fn at_hand_over(registry: &Registry, core: &Core, outcome: Outcome) {
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
    let apart: Apart = apart
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

/// Decides the conditions, and drops those that are not to run.
pub(super) fn decide(
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
pub(super) fn split(tasks: &mut Queue, order: Order) -> Queue {
    tasks.extract(|node| order == Order::Parallel || node.rare().is_some_and(|rare| rare.apart))
}

/// A batch of one, with the scope's outcome and context. Its task is on the account already.
pub(super) fn single(registry: &Registry, node: Link) -> Option<Box<Active>> {
    let context = registry.context();
    registry.peek(|active| {
        let mut single = of_one(active.runner.clone(), active.found.clone(), node);
        single.outcome = active.outcome;
        single.order = active.order;
        single.context = context;
        if let Some(time) = active.look_uncommon().and_then(|rare| rare.time.as_ref()) {
            single.uncommon().time = Some(time.share());
        }
        seat(&mut single);
        single
    })
}

/// A batch of one that is on the account already.
fn of_one(runner: RunnerRef, found: Found, node: Link) -> Box<Active> {
    let mut active = spare::active(runner);
    active.found = found;
    active.special = true;
    active.on_account = true;
    active.joined = 1;
    // It keeps its number, and what it defers must not get the same.
    active.collected.continue_after(node.sequence());
    active.queue.push_back(node);
    active
}
