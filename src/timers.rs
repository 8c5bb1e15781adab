//! The time limits of tasks.
//!
//! A task's limit is a sleep among its own options. It is made when the task's first poll has left it pending. From then
//! on it is polled after the task, with the same context, whenever the task is polled and still pending. So the sleep wakes
//! what wakes the task, and a limit costs a poll for each poll of its own task, however many siblings have limits too.
//!
//! "Expired" means that the sleep has fired, never a comparison with a clock: a runtime's paused clock is obeyed exactly.

use std::{any::Any, task::Context, time::Duration};

use crate::{
    node::Link,
    registry::Registry,
    report,
    runner::Core,
    spawner::{self, Found, Sleep},
    sync::atomic::Ordering,
    task::End,
};

type Payload = Box<dyn Any + Send>;

/// How a task ends that was polled and is pending, if its time is over. Called with nothing of ours taken out: sleeps are
/// the user's code.
pub(crate) fn expire(registry: &Registry, node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    let rare = node.as_mut().rare_mut()?;
    let limit = rare.timeout?;
    // No time is over when the first poll is, whatever the timer's resolution.
    if !limit.is_zero() {
        let sleep = rare.sleep.get_or_insert_with(|| make(registry, limit));
        if !poll(sleep, limit, cx, |payload| {
            without_timer(registry.runner().get(), payload);
        }) {
            return None;
        }
    }
    may_end(node, limit).then_some(End::TimedOut(limit))
}

/// A task is past its limit, or its scope is: returns whether it can be stopped. Blocking work that has begun can't: it is
/// reported, once, and goes on.
pub(crate) fn may_end(node: &mut Link, limit: Duration) -> bool {
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
    let found = found.unwrap_or_default().serving(runner.get());
    sleep(runner.get(), found, limit)
}

/// A sleep on the spawner's timer, or, where that panics, on one that needs no runtime.
pub(crate) fn sleep(core: &Core, found: Found, limit: Duration) -> Sleep {
    let missing = core.without_timer.load(Ordering::Relaxed);
    // That of another runtime, perhaps, which has gone.
    if !missing || (core.spawner.is_none() && core.forget_gone()) {
        let sleep = report::catch(|| found.with(core, |spawner| spawner.sleep(limit)));
        match sleep {
            Ok(sleep) => return sleep,
            Err(payload) => without_timer(core, payload),
        }
    }
    spawner::sleep_without_runtime(limit)
}

/// Whether a sleep has fired. One that panics is `broken`, and replaced by one that needs no runtime.
pub(crate) fn poll(
    sleep: &mut Sleep,
    limit: Duration,
    cx: &mut Context<'_>,
    broken: impl Fn(Payload),
) -> bool {
    // The waker may have panicked, and may do so again: then the new one is polled with the next waker.
    for _ in 0..2 {
        match report::catch(|| sleep.poll(cx)) {
            Ok(polled) => return polled.is_ready(),
            Err(payload) => broken(payload),
        }
        *sleep = spawner::sleep_without_runtime(limit);
    }
    false
}

/// Says once that the runtime's timer can't be used, and remembers it.
pub(crate) fn without_timer(core: &Core, payload: Payload) {
    if core.spawner.is_none() && core.forget_gone() {
        // That may have been the timer of a runtime that has gone, and others have theirs.
        return report::forget_payload(payload);
    }
    // Relaxed: a flag that nothing else hangs on.
    if core.without_timer.swap(true, Ordering::Relaxed) {
        report::forget_payload(payload);
    } else {
        report::no_timer(payload);
    }
}
