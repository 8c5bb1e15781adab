//! The end of a task that was polled.

use super::permits::give_permit_on;
use crate::{
    account::{EndedSet, EndedTask},
    report::{self, Label},
    runner::Registry,
    task::{BoxedTask, End},
};

/// Drops a plain task that has completed; returns whether that was all. If its destructor has panicked, that is counted and
/// reported here.
#[inline]
pub(super) fn drop_completed(
    registry: &Registry,
    task: BoxedTask,
    ended_set: &mut EndedSet,
) -> bool {
    let (name, location) = (task.name(), task.location());
    let sequence = task.sequence();
    match report::catch(|| drop(task)) {
        Ok(()) => true,
        Err(payload) => {
            registry.peek(|state| state.unpublished.panicked += 1);
            ended_set.push(sequence);
            report::destructor_panicked(&Label::plain(name, location), payload);
            false
        }
    }
}

/// Drops, counts and reports a task that has ended.
#[cold]
pub(super) fn finish(registry: &Registry, task: BoxedTask, end: End, ended_set: &mut EndedSet) {
    let sequence = task.sequence();
    ended_set.push(sequence);
    let runner = registry.runner();
    let core = runner.get();
    if let End::Lost(why) = end {
        let lost = std::iter::once(task.label());
        core.account.lose(&runner, why, lost);
    }
    let ended = EndedTask::of(task, end);
    let outcome = registry.peek(|state| {
        ended.count(&mut state.unpublished);
        state.outcome
    });
    ended.tell(&core.observers, outcome.flatten());
    give_permit_on(registry, core);
}
