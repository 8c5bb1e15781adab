//! The end of a task that was polled.

use std::borrow::Cow;

use super::{
    end::{complete_task, end_task},
    permits::give_permit_on,
};
use crate::{
    account::EndedSet,
    report,
    runner::{Registry, RunnerRef},
    task::{BoxedTask, End, Ended},
};

/// Drops a task that has completed; returns whether that was all. If its destructor has panicked, that is counted and
/// reported here.
#[inline]
pub(super) fn drop_completed(registry: &Registry, task: BoxedTask) -> bool {
    let label = task.label();
    match report::catch(|| drop(task)) {
        Ok(()) => true,
        Err(payload) => {
            registry.peek(|state| state.other_counts().panicked += 1);
            report::destructor_panicked(&label, payload);
            false
        }
    }
}

/// Drops, counts and reports a task that has ended.
#[cold]
pub(super) fn finish(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    task: BoxedTask,
    how: Ended,
    ended_set: &mut EndedSet,
) {
    ended_set.push(task.sequence());
    let runner = runner_of(registry, runner);
    let core = runner.get();
    match how {
        // As a rule: nobody is told.
        Ended::Completed if core.observers.is_empty() => {
            if drop_completed(registry, task) {
                registry.peek(|state| state.few.add_completed(true));
            }
        }
        Ended::Completed => complete_task(registry, core, task),
        Ended::Otherwise(end) => {
            if let End::Lost(why) = *end {
                let lost = std::iter::once(task.label());
                core.account.lose(&*runner, why, lost);
            }
            end_task(registry, core, task, *end);
        }
    }
    give_permit_on(registry, core);
}

/// What a turn on the slow path knows, and one on the fast path as a rule need not know.
pub(super) fn runner_of<'a>(
    registry: &Registry,
    runner: Option<&'a RunnerRef>,
) -> Cow<'a, RunnerRef> {
    runner.map_or_else(|| Cow::Owned(registry.runner()), Cow::Borrowed)
}
