//! The time limit of all tasks of one request together.

use std::{task::Context, time::Duration};

use super::{end, finish::finish, task_time::end_at_limit};
use crate::{
    account::EndedSet,
    report::drop_waker,
    runner::{Core, Registry, RunnerRef},
    task::{End, Queue},
};

/// Ends everything, if the time of the scope is over: what waits for a permit too, without one, and what destructors defer
/// until nothing is left.
pub(super) fn expire(
    registry: &Registry,
    runner: &RunnerRef,
    cx: &mut Context<'_>,
    ended_set: &mut EndedSet,
) {
    let core = runner.get();
    let Some(limit) = core.scope_timeout else {
        return;
    };
    let deadline = registry.peek(|state| state.extras()?.deadline.as_ref()?.watch());
    if !deadline
        .flatten()
        .is_some_and(|deadline| deadline.poll(limit, cx, |payload| core.timer_broken(payload)))
    {
        return;
    }
    // Once: closures that have begun may stay by the thousand, and each that returns brings a turn.
    registry.peek(|state| {
        if let Some(deadline) = &mut state.extras_mut().deadline {
            deadline.seen = true;
        }
    });
    end_waiting(registry, core, limit, ended_set);
    let stays = end_expired(registry, runner, limit, cx, ended_set);
    registry.peek(|state| {
        state.queue.extend(stays);
        // The queue has changed: this turn begins a round of its own.
        state.round = 0;
    });
    // What destructors have deferred has no permit to give on, and is not on the roster.
    loop {
        let mut tasks = registry.take_backlog();
        if let Some(inbox) = registry.inbox() {
            tasks.extend(inbox.batch_runs());
        }
        if tasks.is_empty() {
            break;
        }
        for task in tasks {
            end::end_task(registry, core, task, End::TimedOut(limit));
        }
    }
}

/// Ends the tasks that wait for a permit.
fn end_waiting(registry: &Registry, core: &Core, limit: Duration, ended_set: &mut EndedSet) {
    let waiting = registry
        .peek(|state| {
            let permits = state.extras_if_any()?.permits.as_mut()?;
            Some((
                std::mem::take(&mut permits.waiter),
                std::mem::take(&mut permits.waiting),
            ))
        })
        .flatten();
    let (Some(permits), Some((waiter, waiting))) = (&core.limit, waiting) else {
        return;
    };
    let (wakers, own) = permits.cancel(waiter.as_deref(), waiting.len(), 0);
    drop_waker(own);
    wakers.wake();
    for task in waiting {
        ended_set.push(task.sequence());
        end::end_task(registry, core, task, End::TimedOut(limit));
    }
}

/// Ends tasks at the scope's limit; gives back blocking work that has begun, which can't be stopped.
fn end_expired(
    registry: &Registry,
    runner: &RunnerRef,
    limit: Duration,
    cx: &mut Context<'_>,
    ended_set: &mut EndedSet,
) -> Queue {
    let mut stays = Queue::default();
    for mut task in registry.take_running() {
        match end_at_limit(&mut task, limit, cx) {
            Some(end) => finish(registry, Some(runner), task, end.into(), ended_set),
            None => stays.push_back(task),
        }
    }
    stays
}
