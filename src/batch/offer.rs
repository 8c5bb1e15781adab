//! A batch on its way to a runtime that was found, and from one that refuses it to the next.
//!
//! A runtime that has gone drops what it is given, inside the call. Such a batch has not been polled, so nothing is lost
//! yet: it goes on to the runtime that is current here and now, to the one that the Runner remembers, and to the spawner
//! for where there is none. A Runner with a spawner of its own does not come here: what that drops is lost.

use super::{batch::Batch, close, refused};
use crate::{
    limit::sleep_without_runtime,
    report,
    runner::{Active, Core, Found, Launch as _},
    sync::atomic::Ordering,
};

/// Hands a batch to the runtime that was found for it, or to the next that takes it.
#[inline]
pub(crate) fn to_runtime(batch: Batch, found: Found, core: &Core) {
    let found = core.first_runtime(found);
    if let Some(refused) = batch.into_state().and_then(|batch| offer(batch, &found)) {
        to_next_runtime(refused, core);
    }
}

/// Gives the batch back if it was refused.
#[inline]
fn offer(batch: Box<Active>, found: &Found) -> Option<Box<Active>> {
    let (spawned, refused) =
        refused::offering(batch, |batch| report::catch(|| found.launch(batch)));
    if let Err(payload) = spawned {
        report::spawner_panicked(payload);
    }
    refused
}

#[cold]
fn to_next_runtime(mut refused: Box<Active>, core: &Core) {
    type Candidate = fn(&Core) -> Found;
    let candidates: [Candidate; 3] = [
        Core::current_runtime,
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
        match offer(refused, &found) {
            None => return,
            Some(again) => refused = again,
        }
    }
    close::lose(refused);
}

/// The batch's time limit, and what comes through its handles, go by the runtime that is to have it.
fn go_along(refused: &Active, core: &Core, found: &Found) {
    if let Some(inbox) = &refused.inbox {
        inbox.follow(found.clone());
    }
    let time = refused.look_uncommon().and_then(|rare| rare.time.as_ref());
    if let (Some(time), Some(limit)) = (time, core.scope_timeout) {
        if !core.without_timer.load(Ordering::Relaxed) {
            let sleep = report::catch(|| found.start_sleep(limit));
            time.begin_again(sleep.unwrap_or_else(|payload| {
                report::forget_payload(payload);
                sleep_without_runtime(limit)
            }));
        }
    }
}
