//! A batch on its way to a runtime that was found, and from one that refuses it to the next.
//!
//! A runtime that has gone drops what it is given, inside the call. Such a batch has not been polled, so nothing is lost
//! yet: it goes on to the runtime that is current here and now, to the one that the Runner remembers, and to the spawner
//! for where there is none. A Runner with a spawner of its own does not come here: what that drops is lost.

use super::{batch::Batch, close, refused};
use crate::{
    limit::sleep_without_runtime,
    report,
    runner::{Core, DetectedRuntime, Launch as _, ScopeState},
    sync::atomic::Ordering,
};

/// Hands a batch to this runtime, or to the next that takes it.
#[inline(always)]
pub(crate) fn to_runtime(batch: Batch, runtime: &DetectedRuntime, core: &Core) {
    if let Some(refused) = batch.into_state().and_then(|batch| offer(batch, runtime)) {
        to_next_runtime(refused, core);
    }
}

/// Gives the batch back if it was refused.
#[inline]
fn offer(batch: Box<ScopeState>, runtime: &DetectedRuntime) -> Option<Box<ScopeState>> {
    let (spawned, refused) =
        refused::offering(batch, |batch| report::catch(|| runtime.launch(batch)));
    if let Err(payload) = spawned {
        report::spawner_panicked(payload);
    }
    refused
}

#[cold]
fn to_next_runtime(mut refused: Box<ScopeState>, core: &Core) {
    type Candidate = fn(&Core) -> DetectedRuntime;
    let candidates: [Candidate; 3] = [
        Core::current_runtime,
        |core| core.remembered.get(),
        // The spawner for where there is none.
        |_| DetectedRuntime::Nothing,
    ];
    let last = candidates.len() - 1;
    for (index, candidate) in candidates.into_iter().enumerate() {
        core.forget_gone();
        let runtime = candidate(core);
        if runtime.is_nothing() && index < last {
            continue;
        }
        go_along(&refused, core, &runtime);
        match offer(refused, &runtime) {
            None => return,
            Some(again) => refused = again,
        }
    }
    close::lose_batch(refused);
}

/// The batch's time limit, and what comes through its handles, go by the runtime that is to have it.
fn go_along(refused: &ScopeState, core: &Core, runtime: &DetectedRuntime) {
    if let Some(inbox) = refused.inbox() {
        inbox.follow(runtime.clone());
    }
    let deadline = refused.extras().and_then(|extras| extras.deadline.as_ref());
    if let (Some(deadline), Some(limit)) = (deadline, core.scope_timeout) {
        if !core.without_timer.load(Ordering::Relaxed) {
            let sleep = report::catch(|| runtime.start_sleep(limit));
            deadline.begin_again(sleep.unwrap_or_else(|payload| {
                report::forget_payload(payload);
                sleep_without_runtime(limit)
            }));
        }
    }
}
