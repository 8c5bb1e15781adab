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
    runner::Registry,
    task::{BoxedTask, End, PastLimit},
};

/// How a task ends that was polled and is pending, if its time is over. Called with the state in its place: sleeps are the
/// user's code.
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
    end_at_limit(task, limit, cx)
}

/// A task is past its limit, or its scope is: returns how it ends. Blocking work that has begun can't be stopped: it is
/// reported, once, and goes on.
pub(super) fn end_at_limit(
    task: &mut BoxedTask,
    limit: Duration,
    cx: &mut Context<'_>,
) -> Option<End> {
    let (mut stays, mut reported) = (false, false);
    if let Some(options) = task.as_mut().options_mut() {
        // Its own time has no meaning any more, and a sleep that has fired must not be polled again.
        options.timeout = None;
        drop(options.sleep.take());
        stays = options
            .blocking
            .as_ref()
            .is_some_and(|shared| !shared.abandon());
        reported = stays && std::mem::replace(&mut options.overdue, true);
    }
    if reported {
        return None;
    }
    let past = PastLimit { limit, stays };
    let report = task.as_mut().report_limit(past, cx);
    if !stays {
        return Some(End::TimedOut(limit));
    }
    if !report.made {
        past.report(&task.label());
    }
    report.over.then_some(End::Overdue)
}

fn make(registry: &Registry, limit: Duration) -> Sleep {
    let runtime = registry.peek(|state| match state.inbox() {
        Some(inbox) => inbox.runtime(),
        None => state.runtime.clone(),
    });
    let runner = registry.runner();
    let core = runner.get();
    core.sleep(core.serving_runtime(runtime.unwrap_or_default()), limit)
}
