//! What a turn does for batches that are not plain: first polls and longest polls, time limits, permits, what was split
//! off. Every function is called with nothing of ours taken out, because most of them run the user's code.

use std::{
    task::{Context, Waker},
    time::{Duration, Instant},
};

use crate::{
    admission,
    finished::Finished,
    node::{Link, Queue, Times},
    observer::TaskStarted,
    outcome::Order,
    registry::Registry,
    report,
    runner::Core,
    signal::drop_waker,
    task::End,
    timers, turn,
};

/// Polls a task that is not plain.
#[cold]
pub(crate) fn poll(registry: &Registry, node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    tell_started(registry, node);
    let begun = match node.as_mut().rare_mut() {
        Some(rare) if rare.times.is_some() => Some(Instant::now()),
        _ => None,
    };
    let mut end = turn::poll_plain(node, cx);
    if let Some(rare) = node.as_mut().rare_mut() {
        if let (Some(times), Some(begun), None) = (&mut rare.times, begun, &rare.blocking) {
            times.longest_poll = times.longest_poll.max(begun.elapsed());
        }
        if let (true, Some(late)) = (rare.overdue, &mut end) {
            // It was reported at its limit: how it ends is told to nobody, and an error's destructor is the user's code.
            let late = std::mem::replace(late, End::Overdue);
            if let Err(payload) = report::catch(|| drop(late)) {
                report::forget_payload(payload);
            }
        }
    }
    if end.is_none() {
        end = timers::expire(registry, node, cx);
    }
    end
}

fn tell_started(registry: &Registry, node: &mut Link) {
    let waits = |times: &Times| times.started.is_none();
    let times = node.rare().and_then(|rare| rare.times.as_ref());
    if !times.is_some_and(waits) {
        return;
    }
    let label = node.label();
    let Some(rare) = node.as_mut().rare_mut() else {
        return;
    };
    let blocking = rare.blocking.is_some();
    let Some(times) = &mut rare.times else {
        return;
    };
    let now = Instant::now();
    times.started = Some(now);
    let opened = registry
        .peek(|active| active.look_uncommon()?.opened)
        .flatten();
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

/// Moves tasks that have got a permit from the line to the queue.
pub(crate) fn take_permits(registry: &Registry, waker: &Waker) {
    let entry = registry
        .peek(|active| {
            let permits = active.uncommon_if_any()?.permits.as_ref()?;
            Some(permits.entry.clone())
        })
        .flatten();
    let Some(entry) = entry else { return };
    // Before the look, so that a permit that comes after it wakes.
    entry.watch(waker);
    registry.peek(|active| {
        let uncommon = active.uncommon();
        let mut granted = Queue::default();
        if let Some(permits) = &mut uncommon.permits {
            for _ in 0..permits.entry.take_granted() {
                permits.running += 1;
                if let Some(node) = permits.waiting.pop_front() {
                    granted.push_back(node);
                }
            }
        }
        active.queue_up(granted);
    });
}

/// A task with a permit has ended: the next in line gets it, or the next of this batch if it takes them one by one.
pub(crate) fn give_permit_on(registry: &Registry, core: &Core) {
    let Some(limit) = &core.limit else { return };
    let passed_on = registry
        .peek(|active| {
            let sequential = active.order == Order::Sequential;
            let permits = active.uncommon_if_any()?.permits.as_mut()?;
            match permits.waiting.pop_front() {
                Some(next) if sequential => {
                    active.queue.push_back(next);
                    Some(true)
                }
                next => {
                    if let Some(next) = next {
                        permits.waiting.push_front(next);
                    }
                    permits.running -= 1;
                    Some(false)
                }
            }
        })
        .flatten();
    let wakers = match passed_on {
        Some(true) => limit.pass_on(),
        Some(false) => limit.leave(1),
        None => return,
    };
    wakers.wake();
}

/// Ends everything, if the time of the scope is over: what waits for a permit too, without one, and what destructors defer
/// until nothing is left.
pub(crate) fn expire(
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
        .is_some_and(|time| time.poll(core, limit, cx))
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
            admission::finish(registry, core, node, End::TimedOut(limit));
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
        admission::finish(registry, core, node, End::TimedOut(limit));
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
        match timers::may_end(&mut node, limit) {
            true => turn::finish(registry, node, End::TimedOut(limit), finished),
            false => stays.push_back(node),
        }
    }
    stays
}

/// Whether nothing that was split off is waited for.
pub(crate) fn group_is_done(registry: &Registry, waker: &Waker) -> bool {
    let group = registry
        .peek(|active| {
            let awaited = !active.released;
            let group = active.uncommon_if_any()?.group.clone();
            group.filter(|_| awaited)
        })
        .flatten();
    group.is_none_or(|group| group.is_done(waker))
}
