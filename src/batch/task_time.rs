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
    task::{End, Link},
};

/// How a task ends that was polled and is pending, if its time is over. Called with nothing of ours taken out: sleeps are
/// the user's code.
pub(super) fn expire(registry: &Registry, node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    let rare = node.as_mut().rare_mut()?;
    let limit = rare.timeout?;
    // No time is over when the first poll is, whatever the timer's resolution.
    if !limit.is_zero() {
        let sleep = rare.sleep.get_or_insert_with(|| make(registry, limit));
        if !poll_sleep(sleep, limit, cx, |payload| {
            registry.runner().get().timer_broken(payload);
        }) {
            return None;
        }
    }
    may_end(node, limit).then_some(End::TimedOut(limit))
}

/// A task is past its limit, or its scope is: returns whether it can be stopped. Blocking work that has begun can't: it is
/// reported, once, and goes on.
pub(super) fn may_end(node: &mut Link, limit: Duration) -> bool {
    let Some(rare) = node.as_mut().rare_mut() else {
        return true;
    };
    // Its own time has no meaning any more, and a sleep that has fired must not be polled again.
    rare.timeout = None;
    drop(rare.sleep.take());
    if rare.blocking.as_ref().is_none_or(|slot| slot.abandon()) {
        return true;
    }
    if !std::mem::replace(&mut rare.overdue, true) {
        report::overdue(&node.label(), limit);
    }
    false
}

fn make(registry: &Registry, limit: Duration) -> Sleep {
    let found = registry.peek(|active| match &active.inbox {
        Some(inbox) => inbox.found(),
        None => active.found.clone(),
    });
    let runner = registry.runner();
    let core = runner.get();
    core.sleep(core.serving_runtime(found.unwrap_or_default()), limit)
}
