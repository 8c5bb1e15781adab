//! The time limit of all tasks of one request together.

use std::{task::Context, time::Duration};

use super::{end, finish::finish, task_time::may_end};
use crate::{
    account::Finished,
    report::drop_waker,
    runner::{Core, Registry},
    task::{End, Queue},
};

/// Ends everything, if the time of the scope is over: what waits for a permit too, without one, and what destructors defer
/// until nothing is left.
pub(super) fn expire(
    registry: &Registry,
    core: &Core,
    cx: &mut Context<'_>,
    finished: &mut Finished,
) {
    let Some(limit) = core.scope_timeout else {
        return;
    };
    let time = registry.peek(|active| active.look_uncommon()?.time.as_ref()?.watch());
    if !time
        .flatten()
        .is_some_and(|time| time.poll(limit, cx, |payload| core.timer_broken(payload)))
    {
        return;
    }
    // Once: closures that have begun may stay by the thousand, and each that returns brings a turn.
    registry.peek(|active| {
        if let Some(time) = &mut active.uncommon().time {
            time.seen = true;
        }
    });
    end_waiting(registry, core, limit, finished);
    let stays = end_expired(registry, registry.take_running(), limit, finished);
    registry.peek(|active| {
        active.queue.append(stays);
        // The queue has changed: this turn begins a round of its own.
        active.round = 0;
    });
    // What destructors have deferred has no permit to give on, and is not on the roster.
    loop {
        let mut tasks = registry.take_collected();
        if let Some(inbox) = registry.inbox() {
            tasks.append(inbox.batch_runs());
        }
        if tasks.is_empty() {
            break;
        }
        for node in tasks {
            end::finish(registry, core, node, End::TimedOut(limit));
        }
    }
}

/// Ends the tasks that wait for a permit.
fn end_waiting(registry: &Registry, core: &Core, limit: Duration, finished: &mut Finished) {
    let waiting = registry
        .peek(|active| {
            let permits = active.uncommon_if_any()?.permits.as_mut()?;
            Some((
                std::mem::take(&mut permits.entry),
                std::mem::take(&mut permits.waiting),
            ))
        })
        .flatten();
    let (Some(line), Some((entry, waiting))) = (&core.limit, waiting) else {
        return;
    };
    let (wakers, own) = line.withdraw(&entry, waiting.len(), 0);
    drop_waker(own);
    wakers.wake();
    for node in waiting {
        finished.push(node.sequence());
        end::finish(registry, core, node, End::TimedOut(limit));
    }
}

/// Ends tasks at the scope's limit; gives back blocking work that has begun, which can't be stopped.
fn end_expired(
    registry: &Registry,
    tasks: Queue,
    limit: Duration,
    finished: &mut Finished,
) -> Queue {
    let mut stays = Queue::default();
    for mut node in tasks {
        match may_end(&mut node, limit) {
            true => finish(registry, node, End::TimedOut(limit), finished),
            false => stays.push_back(node),
        }
    }
    stays
}
