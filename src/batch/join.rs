//! Tasks that join a running batch: deferred by one of its tasks, or through a handle.

use super::{
    end::end_task,
    hand_over::{decide, extract_spawned, spawned_batches},
    permits,
    release::release_spawned,
};
use crate::{
    account::EndedSet,
    limit::ScopeDeadline,
    runner::{Core, Registry},
    task::{End, Queue},
};

/// Takes in what was deferred meanwhile, by a batch on the slow path.
pub(super) fn join_on_slow_path(
    registry: &Registry,
    core: &Core,
    joined: Queue,
    ended_set: &mut EndedSet,
) {
    let joined = at_join(registry, core, joined);
    take_in(registry, core, joined, ended_set);
}

pub(super) fn take_in(registry: &Registry, core: &Core, joined: Queue, ended_set: &mut EndedSet) {
    let published = registry.peek(|state| !state.has_unpublished());
    if joined.is_empty() && ended_set.is_empty() && published == Some(true) {
        return;
    }
    registry.record(ended_set, &joined);
    if !joined.is_empty() {
        permits::queue_for_permits(registry, core, joined);
    }
}

/// Tasks that join a running batch. `registry` is current; what of them stays in the batch is given back, to be queued.
pub(super) fn at_join(registry: &Registry, core: &Core, tasks: Queue) -> Queue {
    let state = registry.peek(|state| {
        let deadline = state.extras().and_then(|extras| extras.deadline.as_ref());
        let over = deadline.is_some_and(ScopeDeadline::is_over);
        (state.outcome, state.order, over)
    });
    let Some((Some(outcome), order, over)) = state else {
        return tasks;
    };
    if let (true, Some(limit)) = (over, core.scope_timeout) {
        for task in tasks {
            end_task(registry, core, task, End::TimedOut(limit));
        }
        return Queue::default();
    }
    let mut kept = decide(registry, core, outcome, tasks);
    let spawned = extract_spawned(&mut kept, order);
    if let Some(spawned) = spawned {
        release_spawned(registry, spawned_batches(registry, spawned));
    }
    kept
}
