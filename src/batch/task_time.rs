//! The time limits of tasks.
//!
//! A task's limit is a sleep among its own options. It is made when the task's first poll has left it pending. From then
//! on it is polled after the task, with the same context, whenever the task is polled and still pending. So the sleep wakes
//! what wakes the task, and a limit costs a poll for each poll of its own task, however many siblings have limits too.
//!
//! "Expired" means that the sleep has fired, never a comparison with a clock: a runtime's paused clock is obeyed exactly.

use std::{task::Context, time::Duration};

use crate::{
    limit::{Sleep, poll_sleep},
    report,
    runner::Registry,
    task::{BoxedTask, End},
};

/// How a task ends that was polled and is pending, if its time is over. Called with nothing of ours taken out: sleeps are
/// the user's code.
pub(super) fn expire(
    registry: &Registry,
    task: &mut BoxedTask,
    cx: &mut Context<'_>,
) -> Option<End> {
    let options = task.as_mut().options_mut()?;
    let limit = options.timeout?;
    // No time is over when the first poll is, whatever the timer's resolution.
    if !limit.is_zero() {
        let sleep = options.sleep.get_or_insert_with(|| make(registry, limit));
        if !poll_sleep(sleep, limit, cx, |payload| {
            registry.runner().get().timer_broken(payload);
        }) {
            return None;
        }
    }
    may_end(task, limit).then_some(End::TimedOut(limit))
}

/// A task is past its limit, or its scope is: returns whether it can be stopped. Blocking work that has begun can't: it is
/// reported, once, and goes on.
pub(super) fn may_end(task: &mut BoxedTask, limit: Duration) -> bool {
    let Some(options) = task.as_mut().options_mut() else {
        return true;
    };
    // Its own time has no meaning any more, and a sleep that has fired must not be polled again.
    options.timeout = None;
    drop(options.sleep.take());
    if options
        .blocking
        .as_ref()
        .is_none_or(|shared| shared.abandon())
    {
        return true;
    }
    if !std::mem::replace(&mut options.overdue, true) {
        report::overdue(&task.label(), limit);
    }
    false
}

fn make(registry: &Registry, limit: Duration) -> Sleep {
    let runtime = registry.peek(|state| match &state.inbox {
        Some(inbox) => inbox.runtime(),
        None => state.runtime.clone(),
    });
    let runner = registry.runner();
    let core = runner.get();
    core.sleep(core.serving_runtime(runtime.unwrap_or_default()), limit)
}
