//! The end of a batch: off the roster when nothing is left of it, lost when it is dropped before.

use std::{cell::Cell, mem, thread};

use super::{end, permits::give_up_permits, refused};
use crate::{
    account::Counts,
    report::Loss,
    runner::{Active, Registry, current, gate, spare},
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

fn why_lost(active: &Active) -> Loss {
    if !active.released {
        Loss::Held
    } else if !active.started && SPAWNING.get() && thread::panicking() {
        Loss::SpawnerPanicked
    } else {
        Loss::Dropped
    }
}

/// Takes a batch without tasks off the roster. Outside its scope: whoever waits for the account is woken here.
#[inline]
pub(crate) fn settle(mut active: Box<Active>) {
    debug_assert!(active.is_empty(), "a task would leave the account silently");
    let member_of = active.leave_group();
    // Its values' destructors are the user's code; whoever has waited for the account finds them gone.
    drop(mem::take(&mut active.context));
    let account = &active.runner.get().account;
    match active.seat {
        Some(seat) => account.vacate(seat, &active.unpublished),
        None => account.publish(&active.unpublished),
    }
    active.unpublished = Counts::default();
    spare::keep(active);
    if let Some(group) = member_of {
        group.leave();
    }
}

/// A batch was dropped unfinished. Not here, if this is where a frame is dropped: see invariant 4.
#[cold]
pub(super) fn dropped(active: Box<Active>) {
    if gate::is_opening() {
        return gate::aside(|| lose(active));
    }
    lose(active);
}

#[cold]
pub(crate) fn lose(active: Box<Active>) {
    let Some(active) = refused::unless_refused(active) else {
        return;
    };
    let why = why_lost(&active);
    let runner = active.runner.clone();
    let core = runner.get();
    let registry = Registry::active(active);
    // What was split off and not handed out is lost by itself, when it is dropped; for the same reason.
    let apart = registry.peek(|active| (active.take_apart(), active.released));
    let (apart, released) = apart.unwrap_or_default();
    for mut single in apart {
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
                tasks.append(match tasks.is_empty() {
                    true => registry.take_back(inbox.batch_ends()),
                    false => inbox.batch_runs(),
                });
            }
            if tasks.is_empty() {
                break;
            }
            end::lose(&registry, core, why, tasks);
        }
    });
    if let Some(active) = registry.close() {
        settle(active);
    }
}

/// Nobody waits for the gate any more, nor needs the place.
fn give_up_gate(registry: &Registry) {
    let waits = registry.peek(|active| {
        let place = active.uncommon_if_any().and_then(|rare| rare.place.take());
        (active.gate.take(), place)
    });
    if let Some((Some(gate), _place)) = waits {
        gate.leave();
    }
}
