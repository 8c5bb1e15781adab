//! The release of a batch: what was split off goes to the spawner, the tasks queue for permits, and the rest follows.

use std::{mem, sync::Arc};

use super::{batch::Batch, close, offer, permits};
use crate::{
    limit::Place,
    report::{self, Outcome},
    runner::{DetectedRuntime, Registry, ScopeState, SpawnedBatches, WaitGroup, current},
};

impl Batch {
    /// As `release`, with the place that its scope has waited for.
    pub(crate) fn release_in(mut self, place: Place) {
        if let Some(state) = self.registry.state_mut() {
            state.extras_mut().place = Some(place);
        }
        self.release();
    }

    /// The release of one with something in it.
    #[inline(never)]
    pub(super) fn spawn(self) {
        self.spawn_on(None);
    }

    /// As `spawn`; if `found` is there, to that runtime, unless the Runner has a spawner.
    // Always, so that the usual way asks for no `found`.
    #[inline(always)]
    fn spawn_on(mut self, found: Option<&DetectedRuntime>) {
        let Some(state) = self.registry.state_mut() else {
            return;
        };
        state.released = true;
        let gated = state.gate().is_some();
        if state.slow_path && !gated {
            begin_time(state, false);
            take_place(state);
            let spawned = state.take_spawned();
            // Before the last of these can end: whoever waits for that finds the values gone.
            let over = !spawned.is_empty() && self.is_over();
            if !spawned.is_empty() {
                self.spawn_each(spawned);
            }
            // Also with nothing left: what was promised in excess goes back.
            self.queue_for_permits();
            if over {
                return self.end();
            }
        }
        let Some(state) = self.registry.state_mut() else {
            return;
        };
        if !gated && state.is_empty() && self.is_over() {
            // All of it was split off, or shed.
            return self.end();
        }
        let Some(state) = self.registry.state_mut() else {
            return;
        };
        // Both go out of the batch, because the spawner may drop it before it returns.
        let runtime = mem::replace(&mut state.runtime, DetectedRuntime::Nothing);
        let runner = state.runner.clone();
        let core = runner.get();
        let Some(spawner) = &core.spawner else {
            return match found {
                Some(found) => offer::to_runtime(self, found, core),
                None => offer::to_runtime(self, &core.first_runtime(runtime), core),
            };
        };
        let Some(state) = self.into_state() else {
            return;
        };
        let spawned = close::spawning(|| report::catch(|| spawner.launch(state)));
        if let Err(payload) = spawned {
            report::spawner_panicked(payload);
        }
    }

    /// Releases what was split off, to the runtime to which this goes.
    fn spawn_each(&mut self, spawned: SpawnedBatches) {
        let Some(state) = self.registry.state_mut() else {
            return;
        };
        let (runner, runtime) = (state.runner.clone(), mem::take(&mut state.runtime));
        let runtime = runner.get().first_runtime(runtime);
        for single in spawned {
            Batch::of(single).spawn_on(Some(&runtime));
        }
        if let Some(state) = self.registry.state_mut() {
            state.runtime = runtime;
        }
    }

    /// Puts the tasks in the queue for permits, if there is a limit and they are not in it.
    #[cold]
    pub(super) fn queue_for_permits(&mut self) {
        let Some(state) = self.registry.state_mut() else {
            return;
        };
        if state.runner.get().limit.is_none() || state.is_queued() {
            return;
        }
        let runner = state.runner.clone();
        let tasks = mem::take(&mut state.queue);
        let registry = &self.registry;
        current::enter(registry, || {
            permits::queue_for_permits(registry, runner.get(), tasks);
        });
    }

    /// Whether nothing is left, and no handle can bring more: then its values are dropped.
    #[cold]
    pub(super) fn is_over(&mut self) -> bool {
        let Some(state) = self.registry.state_mut() else {
            return true;
        };
        if !state.is_empty() {
            return false;
        }
        let ended = match state.inbox().cloned() {
            Some(inbox) => inbox.ends_if_empty(),
            None => Some(state.take_context()),
        };
        ended.map(drop).is_some()
    }

    fn end(self) {
        if let Some(state) = self.registry.close() {
            close::settle(state);
        }
    }
}

/// The hand-over: from here on the time of the scope runs. The spawner's sleep is the user's code; nobody else sees
/// this state meanwhile. A batch that is polled here and now may have found a runtime that has gone.
pub(super) fn begin_time(state: &ScopeState, polled: bool) {
    let core = state.runner.get();
    let deadline = state.extras().and_then(|extras| extras.deadline.as_ref());
    if let (Some(deadline), Some(limit)) = (deadline, core.scope_timeout) {
        let runtime = match state.inbox() {
            Some(inbox) => inbox.runtime(),
            None => state.runtime.clone(),
        };
        let runtime = match polled {
            true => core.serving_runtime(runtime),
            false => runtime,
        };
        deadline.begin(|| core.sleep(runtime, limit));
    }
}

/// The place goes to those that are to stand in the queue.
pub(super) fn take_place(state: &mut ScopeState) {
    let Some(place) = state.extras_if_any().and_then(|extras| extras.place.take()) else {
        return;
    };
    let read = state.outcome != Some(Outcome::Cancelled);
    let mut reserved = place.redeem(read);
    let first = first_of_all(state, reserved);
    for single in &mut state.extras_mut().spawned {
        let has_place = single.tasks().any(|task| task.sequence() < first);
        single.reserve(usize::from(has_place));
        reserved -= usize::from(has_place);
    }
    state.reserve(reserved);
}

/// Below which number so many tasks are that were deferred first: what the body has deferred has not waited, also if it
/// goes its own way.
fn first_of_all(state: &ScopeState, tasks: usize) -> u64 {
    let all = state
        .spawned()
        .iter()
        .map(|single| &**single)
        .chain([state]);
    let mut sequences: Vec<u64> = all
        .flat_map(|state| state.tasks())
        .map(|task| task.sequence())
        .collect();
    match tasks < sequences.len() {
        true => *sequences.select_nth_unstable(tasks).1,
        false => u64::MAX,
    }
}

/// Hands batches that were split off to the spawner; if this batch is awaited, they are waited for.
pub(super) fn release_spawned(registry: &Registry, batches: SpawnedBatches) {
    let found = registry.peek(|state| {
        let awaited = !state.released;
        let (runner, runtime) = (state.runner.clone(), state.runtime.clone());
        let extras = state.extras_mut();
        if awaited && extras.group.is_none() {
            extras.group = Some(Arc::default());
        }
        (runner, runtime, extras.group.clone())
    });
    let Some((runner, runtime, group)) = found else {
        return;
    };
    let runtime = runner.get().first_runtime(runtime);
    for mut single in batches {
        if let Some(group) = &group {
            be_member_of(&mut single, group);
        }
        Batch::of(single).spawn_on(Some(&runtime));
    }
}

fn be_member_of(single: &mut ScopeState, group: &Arc<WaitGroup>) {
    group.join();
    let extras = single.extras_mut();
    extras.member_of = Some(group.clone());
    extras.group = Some(group.clone());
}
