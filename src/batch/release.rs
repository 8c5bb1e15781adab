//! The release of a batch: what was split off goes to the spawner, the tasks stand in line for permits, and the rest follows.

use std::{mem, sync::Arc};

use super::{
    batch::{Batch, Turn},
    close, offer, permits,
};
use crate::{
    limit::Place,
    report::{self, Outcome},
    runner::{Active, Apart, Found, Group, Registry, current},
};

impl Batch {
    /// As `release`, with the place that its scope has waited for.
    pub(crate) fn release_in(mut self, place: Place) {
        if let Some(active) = &mut self.active {
            active.uncommon().place = Some(place);
        }
        self.release();
    }

    /// The release of one with something in it.
    #[inline(never)]
    pub(super) fn spawn(mut self) {
        let Some(active) = &mut self.active else {
            return;
        };
        active.released = true;
        let gated = active.gate.is_some();
        if active.special && !gated {
            begin_time(active, false);
            take_place(active);
            let apart = active.take_apart();
            // Before the last of these can end: whoever waits for that finds the values gone.
            let over = !apart.is_empty() && self.is_over();
            for single in apart {
                Batch::of(single).release();
            }
            // Also with nothing left: what was promised in excess goes back.
            self.line_up();
            if over {
                return self.end();
            }
        }
        let Some(active) = &mut self.active else {
            return;
        };
        if !gated && active.is_empty() && self.is_over() {
            // All of it was split off, or shed.
            return self.end();
        }
        let Some(active) = &mut self.active else {
            return;
        };
        // Both go out of the batch, because the spawner may drop it before it returns.
        let found = mem::replace(&mut active.found, Found::Nothing);
        let runner = active.runner.clone();
        let Some(spawner) = &runner.get().spawner else {
            return offer::to_runtime(self, found, runner.get());
        };
        let Some(active) = self.into_state() else {
            return;
        };
        let spawned = close::spawning(|| report::catch(|| spawner.launch(active)));
        if let Err(payload) = spawned {
            report::spawner_panicked(payload);
        }
    }

    /// Puts the tasks in the line for permits, if there is a limit and they are not in it.
    #[cold]
    pub(super) fn line_up(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        let runner = active.runner.clone();
        let core = runner.get();
        if core.limit.is_none() || active.is_in_line() {
            self.active = Some(active);
            return;
        }
        let turn = Turn::begin(self, active);
        let registry = &turn.registry;
        current::enter(registry, || {
            let tasks = registry.peek(|active| mem::take(&mut active.queue));
            permits::line_up(registry, core, tasks.unwrap_or_default());
        });
    }

    /// Whether nothing is left, and no handle can bring more: then its values are dropped.
    #[cold]
    fn is_over(&mut self) -> bool {
        let Some(active) = &mut self.active else {
            return true;
        };
        if !active.is_empty() {
            return false;
        }
        let ended = match active.inbox.clone() {
            Some(inbox) => inbox.ends_if_empty(),
            None => Some(mem::take(&mut active.context)),
        };
        ended.map(drop).is_some()
    }

    fn end(mut self) {
        if let Some(active) = self.active.take() {
            close::settle(active);
        }
    }
}

/// The hand-over: from here on the time of the scope runs. The spawner's sleep is the user's code; nobody else sees this
/// part meanwhile. A batch that is polled here and now may have found a runtime that has gone.
pub(super) fn begin_time(active: &Active, polled: bool) {
    let core = active.runner.get();
    let time = active.look_uncommon().and_then(|rare| rare.time.as_ref());
    if let (Some(time), Some(limit)) = (time, core.scope_timeout) {
        let found = match &active.inbox {
            Some(inbox) => inbox.found(),
            None => active.found.clone(),
        };
        let found = match polled {
            true => core.serving_runtime(found),
            false => found,
        };
        time.begin(|| core.sleep(found, limit));
    }
}

/// The place goes to those that are to stand in line.
pub(super) fn take_place(active: &mut Active) {
    let Some(place) = active.uncommon_if_any().and_then(|rare| rare.place.take()) else {
        return;
    };
    let read = active.outcome != Some(Outcome::Cancelled);
    let mut promised = place.redeem(read);
    let first = first_of_all(active, promised);
    for single in &mut active.uncommon().apart {
        let has_place = single.tasks().any(|node| node.sequence() < first);
        single.promise(usize::from(has_place));
        promised -= usize::from(has_place);
    }
    active.promise(promised);
}

/// Below which number so many tasks are that were deferred first: what the body has deferred has not waited, also if it
/// goes its own way.
fn first_of_all(active: &Active, tasks: usize) -> u64 {
    let apart = active.look_uncommon().into_iter();
    let apart = apart.flat_map(|uncommon| &uncommon.apart);
    let all = apart.map(|single| &**single).chain([active]);
    let mut sequences: Vec<u64> = all
        .flat_map(|active| active.tasks())
        .map(|node| node.sequence())
        .collect();
    match tasks < sequences.len() {
        true => *sequences.select_nth_unstable(tasks).1,
        false => u64::MAX,
    }
}

/// Hands batches that were split off to the spawner; if this batch is awaited, they are waited for.
pub(super) fn send_apart(registry: &Registry, batches: Apart) {
    let group = registry
        .peek(|active| {
            let awaited = !active.released;
            let uncommon = active.uncommon();
            if awaited && uncommon.group.is_none() {
                uncommon.group = Some(Arc::default());
            }
            uncommon.group.clone()
        })
        .flatten();
    for mut single in batches {
        if let Some(group) = &group {
            be_member_of(&mut single, group);
        }
        Batch::of(single).release();
    }
}

fn be_member_of(single: &mut Active, group: &Arc<Group>) {
    group.join();
    let uncommon = single.uncommon();
    uncommon.member_of = Some(group.clone());
    uncommon.group = Some(group.clone());
}
