//! The time limits of one batch: of its tasks, and of all of it.
//!
//! "Expired" means that a sleep has fired, never a comparison with a clock: so a runtime's paused clock is obeyed
//! exactly. A sleep is made only for what is still pending at the end of the turn in which its time began, one for all
//! tasks with the same limit that began in that turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    registry::Registry,
    report,
    runner::Core,
    spawner::{self, Found, Sleep},
};

#[derive(Default)]
pub(crate) struct Timers {
    /// Tasks whose time began in this turn.
    fresh: BTreeMap<Duration, BTreeSet<u64>>,
    armed: Vec<Armed>,
    /// The time of the whole batch: when it was handed over, until its sleep is made.
    scope: Option<Scope>,
    /// Blocking work past its limit, which can't be stopped.
    overdue: BTreeSet<u64>,
}

enum Scope {
    Since(Instant),
    Armed(Sleep),
    /// What joins now is past its time already.
    Over,
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
    /// The batch was handed over, and its time begins.
    pub(crate) fn begin(&mut self, since: Instant) {
        self.scope = Some(Scope::Since(since));
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.scope, Some(Scope::Over))
    }

    /// A task was polled for the first time, and is pending.
    pub(crate) fn start(&mut self, task: u64, limit: Duration) {
        self.fresh.entry(limit).or_default().insert(task);
    }

    /// A task has ended. Returns whether it was overdue.
    pub(crate) fn end(&mut self, task: u64) -> bool {
        for tasks in self.fresh.values_mut() {
            tasks.remove(&task);
        }
        for armed in &mut self.armed {
            armed.tasks.remove(&task);
        }
        // The sleep of a limit that nobody is under any more is given back.
        self.armed.retain(|armed| !armed.tasks.is_empty());
        self.overdue.remove(&task)
    }

    pub(crate) fn overdue(&mut self, task: u64) {
        self.overdue.insert(task);
    }

    pub(crate) fn is_overdue(&self, task: u64) -> bool {
        self.overdue.contains(&task)
    }
}

/// A sleep on the spawner's timer, or, where that panics, on one that needs no runtime.
fn sleep(core: &Core, found: &Found, limit: Duration) -> Sleep {
    if !core.without_timer.load(Ordering::Relaxed) {
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
    // Relaxed: a flag that nothing else hangs on.
    if core.without_timer.swap(true, Ordering::Relaxed) {
        report::forget_payload(payload);
    } else {
        report::no_timer(payload);
    }
}

/// Polls a sleep, and replaces one that panics.
fn poll(core: &Core, sleep: &mut Sleep, limit: Duration, cx: &mut Context<'_>) -> bool {
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
        let scope = match &timers.scope {
            Some(Scope::Armed(_)) => timers.scope.take(),
            _ => None,
        };
        Some((std::mem::take(&mut timers.armed), scope))
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
    let scope = scope.map(|mut scope| {
        if let (Scope::Armed(sleep), Some(limit)) = (&mut scope, core.scope_timeout) {
            if poll(core, sleep, limit, cx) {
                expired.scope = Some(limit);
                return Scope::Over;
            }
        }
        scope
    });
    registry.peek(|active| {
        let timers = &mut active.uncommon().timers;
        timers.armed.append(&mut armed);
        if scope.is_some() {
            timers.scope = scope;
        }
    });
    expired
}

/// Makes the sleeps of what began in this turn and is still pending. Returns whether one has fired at once.
pub(crate) fn arm(registry: &Registry, core: &Core, cx: &mut Context<'_>) -> bool {
    let taken = registry.peek(|active| {
        let timers = &active.look_uncommon()?.timers;
        if timers.fresh.is_empty() && !matches!(timers.scope, Some(Scope::Since(_))) {
            return None;
        }
        let found = match &active.inbox {
            Some(inbox) => inbox.found(),
            None => active.found.clone(),
        };
        let timers = &mut active.uncommon().timers;
        let since = match &timers.scope {
            Some(Scope::Since(since)) => Some(*since),
            _ => None,
        };
        Some((std::mem::take(&mut timers.fresh), since, found))
    });
    let Some(Some((fresh, since, found))) = taken else {
        return false;
    };
    let mut fired = false;
    let mut armed = Vec::new();
    for (limit, tasks) in fresh {
        if tasks.is_empty() {
            continue;
        }
        let mut sleep = sleep(core, &found, limit);
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
    let scope = since.zip(core.scope_timeout).map(|(since, limit)| {
        let mut sleep = sleep(core, &found, limit.saturating_sub(since.elapsed()));
        if poll(core, &mut sleep, limit, cx) {
            sleep = Sleep::new(std::future::ready(()));
            fired = true;
        }
        Scope::Armed(sleep)
    });
    registry.peek(|active| {
        let timers = &mut active.uncommon().timers;
        timers.armed.append(&mut armed);
        if scope.is_some() {
            timers.scope = scope;
        }
    });
    fired
}
