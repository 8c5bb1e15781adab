//! One poll of one task.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use super::task_time::expire;
use crate::{
    report::{self, TaskStarted},
    runner::Registry,
    task::{End, Link, Times},
};

/// Polls a task; `None` while it is pending.
#[inline]
pub(super) fn poll(registry: &Registry, node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    if node.rare().is_some() {
        return poll_watched(registry, node, cx);
    }
    poll_plain(node, cx)
}

#[inline]
pub(super) fn poll_plain(node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    match report::catch(|| node.as_mut().poll_work(cx)) {
        Ok(Poll::Pending) => None,
        Ok(Poll::Ready(end)) => Some(end),
        Err(payload) => Some(End::Panicked(payload)),
    }
}

/// Polls a task that is not plain. Nothing of ours is taken out.
#[cold]
pub(super) fn poll_watched(
    registry: &Registry,
    node: &mut Link,
    cx: &mut Context<'_>,
) -> Option<End> {
    tell_started(registry, node);
    let begun = match node.as_mut().rare_mut() {
        Some(rare) if rare.times.is_some() => Some(Instant::now()),
        _ => None,
    };
    let mut end = poll_plain(node, cx);
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
        end = expire(registry, node, cx);
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
