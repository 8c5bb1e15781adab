//! The end of a batch: off the roster when nothing is left of it, lost when it is dropped before.

use std::{cell::Cell, thread};

use super::{end, permits::give_up_permits, refused};
use crate::{
    report::Loss,
    runner::{Registry, ScopeState, current, gate, spare},
};

thread_local! {
    /// Whether a spawner is being given a batch on this thread, which was not unwinding before.
    static SPAWNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `spawn`, which gives a batch to a spawner and does not unwind. If the spawner panics, the batch goes while it
/// unwinds, and the reason of the loss is known no other way.
#[inline]
pub(crate) fn spawning<R>(spawn: impl FnOnce() -> R) -> R {
    let before = SPAWNING.replace(!thread::panicking());
    let result = spawn();
    SPAWNING.set(before);
    result
}

fn why_lost(state: &ScopeState) -> Loss {
    if !state.released {
        Loss::Held
    } else if !state.started && SPAWNING.get() && thread::panicking() {
        Loss::SpawnerPanicked
    } else {
        Loss::Dropped
    }
}

/// Takes a batch without tasks off the roster. Outside its scope: whoever waits for the account is woken here.
#[inline]
pub(crate) fn settle(mut state: Box<ScopeState>) {
    debug_assert!(
        state.is_empty() && state.spawned().is_empty(),
        "a task would leave the account silently"
    );
    let member_of = state.leave_group();
    // Its values' destructors are the user's code; whoever has waited for the account finds them gone.
    drop(state.take_context());
    let unpublished = state.take_unpublished();
    let account = &state.runner.get().account;
    match state.roster_key {
        Some(roster_key) => account.remove(roster_key, &unpublished),
        // As a rule all of it was split off, with its counts. Nobody is to be woken where nothing changes.
        None if unpublished.is_empty() => {}
        None => account.publish(&unpublished),
    }
    spare::keep(state);
    if let Some(group) = member_of {
        group.leave().wake();
    }
}

/// A batch was dropped unfinished. Not here, if this is where a frame is dropped: see invariant 4.
#[cold]
pub(super) fn dropped(state: Box<ScopeState>) {
    if gate::is_opening() {
        return gate::aside(|| lose_batch(state));
    }
    lose_batch(state);
}

#[cold]
pub(crate) fn lose_batch(state: Box<ScopeState>) {
    let Some(state) = refused::unless_refused(state) else {
        return;
    };
    let why = why_lost(&state);
    let runner = state.runner.clone();
    let core = runner.get();
    let registry = Registry::of(state);
    // What was split off and not handed out is lost by itself, when it is dropped; for the same reason.
    let spawned = registry.peek(|state| (state.take_spawned(), state.released));
    let (spawned, released) = spawned.unwrap_or_default();
    for mut single in spawned {
        single.released = released;
        dropped(single);
    }
    current::enter(&registry, || {
        give_up_permits(&registry, core);
        give_up_gate(&registry);
        loop {
            let mut tasks = registry.take_tasks();
            if let Some(inbox) = registry.inbox() {
                // Over only when nothing is left whose destructor might defer: until then that is lost with the batch.
                tasks.extend(match tasks.is_empty() {
                    true => registry.take_back(inbox.batch_ends()),
                    false => inbox.batch_runs(),
                });
            }
            if tasks.is_empty() {
                break;
            }
            end::lose_tasks(&registry, core, why, tasks);
        }
    });
    if let Some(state) = registry.close() {
        settle(state);
    }
}

/// Nobody waits for the gate any more, nor needs the place.
fn give_up_gate(registry: &Registry) {
    let waits = registry.peek(|state| {
        let place = state.extras_if_any().and_then(|extras| extras.place.take());
        (state.take_gate(), place)
    });
    if let Some((Some(gate), _place)) = waits {
        gate.leave();
    }
}
