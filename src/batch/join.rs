//! Tasks that join a running batch: deferred by one of its tasks, or through a handle.

use super::{
    end::finish,
    hand_over::{decide, single, split},
    permits,
    release::send_apart,
};
use crate::{
    account::Finished,
    limit::Member,
    runner::{Core, Registry},
    task::{End, Queue},
};

/// Takes in what was deferred meanwhile, by a batch that is not plain.
pub(super) fn join_specially(
    registry: &Registry,
    core: &Core,
    joined: Queue,
    finished: &mut Finished,
) {
    let joined = at_join(registry, core, joined);
    take_in(registry, core, joined, finished);
}

pub(super) fn take_in(registry: &Registry, core: &Core, joined: Queue, finished: &mut Finished) {
    let published = registry.peek(|active| active.unpublished.is_empty());
    if joined.is_empty() && finished.is_empty() && published == Some(true) {
        return;
    }
    registry.record(finished, &joined);
    if !joined.is_empty() {
        permits::line_up(registry, core, joined);
    }
}

/// Tasks that join a running batch. `registry` is current; what of them stays in the batch is given back, to be queued.
pub(super) fn at_join(registry: &Registry, core: &Core, tasks: Queue) -> Queue {
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
