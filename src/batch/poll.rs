//! One poll of one task.

use std::task::{Context, Poll};

use super::{finish::runner_of, task_time::expire};
use crate::{
    platform::Instant,
    report::{self, TaskStarted},
    runner::{Registry, RunnerRef},
    task::{BoxedTask, End, Ended, PollTask, TaskCell},
};

/// Polls a task.
#[inline]
pub(super) fn poll(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    task: &mut BoxedTask,
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    match task.options() {
        None => poll_plain(task, cx),
        Some(_) => poll_watched(registry, runner, task, cx),
    }
}

/// As `poll`, of a task without options.
#[inline]
pub(super) fn poll_plain(task: &mut BoxedTask, cx: &mut Context<'_>) -> Poll<Ended> {
    match report::catch(|| task.as_mut().poll_task(cx)) {
        Ok(polled) => polled,
        Err(payload) => Poll::Ready(End::Panicked(payload).into()),
    }
}

/// Polls a task with options. The state is in its place.
#[cold]
pub(super) fn poll_watched(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    task: &mut BoxedTask,
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    let times = task.options().and_then(|options| options.times.as_ref());
    let begun = times.map(|times| times.started).map(|started| {
        let begun = Instant::now();
        if started.is_none() {
            tell_started(registry, runner, task, begun);
        }
        (started.unwrap_or(begun), begun)
    });
    let mut polled = poll_plain(task, cx);
    if let Some(options) = task.as_mut().options_mut() {
        if let (Some(times), Some((started, begun))) = (&mut options.times, begun) {
            let now = Instant::now();
            times.started = Some(started);
            let took = now.saturating_duration_since(begun);
            // As a rule this was its first poll.
            times.ran = match started == begun {
                true => took,
                false => now.saturating_duration_since(started),
            };
            if options.blocking.is_none() {
                times.longest_poll = times.longest_poll.max(took);
            }
        }
        if let (true, Poll::Ready(late)) = (options.overdue, &mut polled) {
            // It was reported at its limit: how it ends is told to nobody, and an error's destructor is the user's code.
            let late = std::mem::replace(late, End::Overdue.into());
            report::drop_silently(late);
        }
    }
    match polled {
        Poll::Pending => {
            expire(registry, task, cx).map_or(Poll::Pending, |end| Poll::Ready(end.into()))
        }
        ended => ended,
    }
}

#[cold]
fn tell_started(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    task: &TaskCell<dyn PollTask>,
    now: Instant,
) {
    let opened = registry.peek(|state| {
        let opened = state.extras().and_then(|extras| extras.opened);
        (opened, state.outcome)
    });
    let Some((opened, outcome)) = opened else {
        return;
    };
    let options = task.options();
    let times = options.and_then(|options| options.times.as_ref());
    let ready = opened.max(times.and_then(|times| times.could_start));
    let waited = ready.map(|ready| now.saturating_duration_since(ready));
    let blocking = options.is_some_and(|options| options.blocking.is_some());
    let label = task.label();
    runner_of(registry, runner)
        .get()
        .observers
        .tell(|observer| {
            observer.started(&TaskStarted {
                task: label.info(outcome, blocking),
                waited: waited.unwrap_or_default(),
            });
        });
}
