//! One poll of one task.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use super::task_time::expire;
use crate::{
    report::{self, TaskStarted},
    runner::Registry,
    task::{BoxedTask, End, Times},
};

/// Polls a task; `None` while it is pending.
#[inline]
pub(super) fn poll(registry: &Registry, task: &mut BoxedTask, cx: &mut Context<'_>) -> Option<End> {
    if task.options().is_some() {
        return poll_watched(registry, task, cx);
    }
    poll_plain(task, cx)
}

#[inline]
pub(super) fn poll_plain(task: &mut BoxedTask, cx: &mut Context<'_>) -> Option<End> {
    match report::catch(|| task.as_mut().poll_task(cx)) {
        Ok(Poll::Pending) => None,
        Ok(Poll::Ready(end)) => Some(end),
        Err(payload) => Some(End::Panicked(payload)),
    }
}

/// Polls a task on the slow path. Nothing of ours is taken out.
#[cold]
pub(super) fn poll_watched(
    registry: &Registry,
    task: &mut BoxedTask,
    cx: &mut Context<'_>,
) -> Option<End> {
    tell_started(registry, task);
    let begun = match task.as_mut().options_mut() {
        Some(options) if options.times.is_some() => Some(Instant::now()),
        _ => None,
    };
    let mut end = poll_plain(task, cx);
    if let Some(options) = task.as_mut().options_mut() {
        if let (Some(times), Some(begun), None) = (&mut options.times, begun, &options.blocking) {
            times.longest_poll = times.longest_poll.max(begun.elapsed());
        }
        if let (true, Some(late)) = (options.overdue, &mut end) {
            // It was reported at its limit: how it ends is told to nobody, and an error's destructor is the user's code.
            let late = std::mem::replace(late, End::Overdue);
            if let Err(payload) = report::catch(|| drop(late)) {
                report::forget_payload(payload);
            }
        }
    }
    if end.is_none() {
        end = expire(registry, task, cx);
    }
    end
}

fn tell_started(registry: &Registry, task: &mut BoxedTask) {
    let waits = |times: &Times| times.started.is_none();
    let times = task.options().and_then(|options| options.times.as_ref());
    if !times.is_some_and(waits) {
        return;
    }
    let label = task.label();
    let Some(options) = task.as_mut().options_mut() else {
        return;
    };
    let blocking = options.blocking.is_some();
    let Some(times) = &mut options.times else {
        return;
    };
    let now = Instant::now();
    times.started = Some(now);
    let opened = registry.peek(|state| state.extras()?.opened).flatten();
    let ready = opened.map_or(times.ready, |opened| opened.max(times.ready));
    let waited = now.saturating_duration_since(ready);
    let outcome = registry.outcome();
    registry.runner().get().observers.tell(|observer| {
        observer.started(&TaskStarted {
            task: label.info(outcome, blocking),
            waited,
        });
    });
}
