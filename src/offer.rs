//! A batch on its way to a runtime that was found, and from one that refuses it to the next.
//!
//! A runtime that has gone drops what it is given, inside the call. Such a batch has not been polled, so nothing is lost
//! yet: it goes on to the runtime that is current here and now, to the one that the Runner remembers, and to the spawner
//! for where there is none. A Runner with a spawner of its own does not come here: what that drops is lost.

use std::{cell::Cell, ptr};

use crate::{
    active::Active,
    batch::Batch,
    closing, report,
    runner::Core,
    spawner::{self, Found},
    sync::atomic::Ordering,
};

// A model of loom has one thread for all of its own. None has a Runner that looks for a runtime.
thread_local! {
    /// The address of the active part, which is in one box all the way, of the batch that is inside `spawn` on this thread.
    /// Without a destructor, so that it works in those of other thread-locals.
    static OFFERED: Cell<usize> = const { Cell::new(NOTHING) };
    /// The same, if it was dropped there.
    static REFUSED: Cell<Option<Box<Active>>> = const { Cell::new(None) };
}

/// What is at no address: nothing is offered, or it is in `REFUSED`.
const NOTHING: usize = 0;
const REFUSES: usize = 1;

fn address(active: &Active) -> usize {
    ptr::from_ref(active).addr()
}

/// Hands a batch to the runtime that was found for it, or to the next that takes it.
#[inline]
pub(crate) fn to_runtime(batch: Batch, found: Found, core: &Core) {
    let found = found.first(core);
    if let Some(refused) = offer(batch, &found) {
        to_next_runtime(refused, core);
    }
}

/// Gives the batch back if it was refused.
#[inline]
fn offer(batch: Batch, found: &Found) -> Option<Box<Active>> {
    let before = OFFERED.replace(batch.active().map_or(NOTHING, address));
    // One that was refused in a call around this one, which has not returned yet.
    let outer = match before {
        REFUSES => REFUSED.take(),
        _ => None,
    };
    let spawned = report::catch(|| found.serve(|spawner| spawner.spawn(batch)));
    // At once: the report is the user's code, and may hand over others.
    let refused = match OFFERED.replace(before) {
        REFUSES => REFUSED.take(),
        _ => None,
    };
    if outer.is_some() {
        REFUSED.set(outer);
    }
    if let Err(payload) = spawned {
        report::spawner_panicked(payload);
    }
    refused
}

/// A batch is being dropped, and is to be lost: gives it back, unless it is one that was offered and is refused.
pub(crate) fn unless_refused(active: Box<Active>) -> Option<Box<Active>> {
    if active.started || OFFERED.get() != address(&active) {
        return Some(active);
    }
    // An error where this thread's locals are being destroyed.
    if REFUSED.try_with(|_| ()).is_err() {
        return Some(active);
    }
    REFUSED.set(Some(active));
    OFFERED.set(REFUSES);
    None
}

#[cold]
fn to_next_runtime(mut refused: Box<Active>, core: &Core) {
    type Candidate = fn(&Core) -> Found;
    let candidates: [Candidate; 3] = [
        Found::current,
        |core| core.seen.get(),
        // The spawner for where there is none.
        |_| Found::Nothing,
    ];
    let last = candidates.len() - 1;
    for (index, candidate) in candidates.into_iter().enumerate() {
        core.forget_gone();
        let found = candidate(core);
        if found.is_nothing() && index < last {
            continue;
        }
        go_along(&refused, core, &found);
        match offer(Batch::again(refused), &found) {
            None => return,
            Some(again) => refused = again,
        }
    }
    closing::lose(refused);
}

/// The batch's time limit, and what comes through its handles, go by the runtime that is to have it.
fn go_along(refused: &Active, core: &Core, found: &Found) {
    if let Some(inbox) = &refused.inbox {
        inbox.follow(found.clone());
    }
    let time = refused.look_uncommon().and_then(|rare| rare.time.as_ref());
    if let (Some(time), Some(limit)) = (time, core.scope_timeout) {
        if !core.without_timer.load(Ordering::Relaxed) {
            let sleep = report::catch(|| found.serve(|spawner| spawner.sleep(limit)));
            time.begin_again(sleep.unwrap_or_else(|payload| {
                report::forget_payload(payload);
                spawner::sleep_without_runtime(limit)
            }));
        }
    }
}
