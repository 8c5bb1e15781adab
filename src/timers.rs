//! The time limits of one batch: of its tasks, and of all of it.
//!
//! "Expired" means that a sleep has fired, never a comparison with a clock: so a runtime's paused clock is obeyed
//! exactly. A sleep is made only for what is still pending at the end of the turn in which its time began, one for all
//! tasks with the same limit that began in that turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    registry::Registry,
    report,
    runner::Core,
    scope_time::Member,
    spawner::{self, Found, Sleep},
    sync::atomic::Ordering,
};

#[derive(Default)]
pub(crate) struct Timers {
    /// Tasks whose time began in this turn.
    fresh: BTreeMap<Duration, BTreeSet<u64>>,
    armed: Vec<Armed>,
    /// The time of all tasks of the request, if its Runner limits it.
    scope: Option<Member>,
    /// Blocking work past its limit, which can't be stopped.
    overdue: BTreeSet<u64>,
}

struct Armed {
    limit: Duration,
    sleep: Sleep,
    tasks: BTreeSet<u64>,
}

/// What has expired in this turn.
#[derive(Default)]
pub(crate) struct Expired {
    pub(crate) tasks: BTreeMap<u64, Duration>,
    /// Everything, if the time of the whole batch is over.
    pub(crate) scope: Option<Duration>,
}

impl Expired {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.scope.is_none()
    }
}

impl Timers {
    /// The tasks of this batch have a limit together, and so have those that are split off.
    pub(crate) fn limit_scope(&mut self, time: Member) {
        self.scope = Some(time);
    }

    pub(crate) fn scope(&self) -> Option<&Member> {
        self.scope.as_ref()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.scope.as_ref().is_some_and(Member::is_over)
    }

    /// A task was polled for the first time, and is pending.
    pub(crate) fn start(&mut self, task: u64, limit: Duration) {
        self.fresh.entry(limit).or_default().insert(task);
    }

    /// A task has ended. Returns whether it was overdue, and the sleeps that nobody waits for any more: dropping them is
    /// the user's code.
    pub(crate) fn end(&mut self, task: u64) -> (bool, Vec<Sleep>) {
        for tasks in self.fresh.values_mut() {
            tasks.remove(&task);
        }
        let mut idle = Vec::new();
        let mut index = 0;
        while let Some(armed) = self.armed.get_mut(index) {
            armed.tasks.remove(&task);
            if armed.tasks.is_empty() {
                idle.push(self.armed.swap_remove(index).sleep);
            } else {
                index += 1;
            }
        }
        (self.overdue.remove(&task), idle)
    }

    pub(crate) fn overdue(&mut self, task: u64) {
        self.overdue.insert(task);
    }

    pub(crate) fn is_overdue(&self, task: u64) -> bool {
        self.overdue.contains(&task)
    }
}

/// A sleep on the spawner's timer, or, where that panics, on one that needs no runtime.
pub(crate) fn sleep(core: &Core, found: &Found, limit: Duration) -> Sleep {
    let missing = core.without_timer.load(Ordering::Relaxed);
    // That of another runtime, perhaps, which has gone.
    if !missing || (core.spawner.is_none() && core.forget_gone()) {
        let sleep = report::catch(|| found.clone().with(core, |spawner| spawner.sleep(limit)));
        match sleep {
            Ok(sleep) => return sleep,
            Err(payload) => without_timer(core, payload),
        }
    }
    spawner::sleep_without_runtime(limit)
}

/// Says once that the runtime's timer can't be used, and remembers it.
fn without_timer(core: &Core, payload: Box<dyn std::any::Any + Send>) {
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

/// Polls a sleep, and replaces one that panics.
pub(crate) fn poll(core: &Core, sleep: &mut Sleep, limit: Duration, cx: &mut Context<'_>) -> bool {
    let polled = report::catch(|| sleep.poll(cx));
    polled.unwrap_or_else(|payload| {
        without_timer(core, payload);
        *sleep = spawner::sleep_without_runtime(limit);
        sleep.poll(cx)
    }) == Poll::Ready(())
}

/// What has expired since the last turn. Sleeps are the user's code: they are polled with nothing of ours taken out.
pub(crate) fn fire(registry: &Registry, core: &Core, cx: &mut Context<'_>) -> Expired {
    let mut expired = Expired::default();
    let taken = registry.peek(|active| {
        let timers = &mut active.uncommon_if_any()?.timers;
        Some((std::mem::take(&mut timers.armed), timers.scope.take()))
    });
    let Some(Some((mut armed, scope))) = taken else {
        return expired;
    };
    armed.retain_mut(|armed| {
        let fired = poll(core, &mut armed.sleep, armed.limit, cx);
        if fired {
            let tasks = armed.tasks.iter().map(|task| (*task, armed.limit));
            expired.tasks.extend(tasks);
        }
        !fired
    });
    if let (Some(scope), Some(limit)) = (&scope, core.scope_timeout) {
        expired.scope = scope.poll(core, limit, cx).then_some(limit);
    }
    registry.peek(|active| {
        let timers = &mut active.uncommon().timers;
        timers.armed.append(&mut armed);
        timers.scope = scope;
    });
    expired
}

/// Makes the sleeps of what began in this turn and is still pending. Returns whether one has fired at once.
pub(crate) fn arm(registry: &Registry, core: &Core, cx: &mut Context<'_>) -> bool {
    let taken = registry.peek(|active| {
        if active.look_uncommon()?.timers.fresh.is_empty() {
            return None;
        }
        let found = match &active.inbox {
            Some(inbox) => inbox.found(),
            None => active.found.clone(),
        };
        Some((std::mem::take(&mut active.uncommon().timers.fresh), found))
    });
    let Some(Some((fresh, found))) = taken else {
        return false;
    };
    let mut fired = false;
    let mut armed = Vec::new();
    for (limit, tasks) in fresh {
        if tasks.is_empty() {
            continue;
        }
        let mut sleep = sleep(core, &found.clone().serving(core), limit);
        if poll(core, &mut sleep, limit, cx) {
            // It is polled once more, in the next turn.
            sleep = Sleep::new(std::future::ready(()));
            fired = true;
        }
        armed.push(Armed {
            limit,
            sleep,
            tasks,
        });
    }
    registry.peek(|active| active.uncommon().timers.armed.append(&mut armed));
    fired
}
