//! The end of a task that was polled.

use super::permits::give_permit_on;
use crate::{
    account::{Ended, Finished},
    report::{self, Label},
    runner::Registry,
    task::{End, Link},
};

/// Drops a plain task that has completed; returns whether that was all. If its destructor has panicked, that is counted and
/// reported here.
#[inline]
pub(super) fn drop_completed(registry: &Registry, node: Link, finished: &mut Finished) -> bool {
    let (name, location) = (node.name(), node.location());
    let sequence = node.sequence();
    match report::catch(|| drop(node)) {
        Ok(()) => true,
        Err(payload) => {
            registry.peek(|active| active.unpublished.panicked += 1);
            finished.push(sequence);
            report::destructor_panicked(&Label::plain(name, location), payload);
            false
        }
    }
}

/// Drops, counts and reports a task that has ended.
#[cold]
pub(super) fn finish(registry: &Registry, node: Link, end: End, finished: &mut Finished) {
    let sequence = node.sequence();
    finished.push(sequence);
    let runner = registry.runner();
    let core = runner.get();
    if let End::Lost(why) = end {
        let lost = std::iter::once(node.label());
        core.account.lose(&runner, why, lost);
    }
    let ended = Ended::of(node, end);
    let outcome = registry.peek(|active| {
        ended.count(&mut active.unpublished);
        active.outcome
    });
    ended.tell(&core.observers, outcome.flatten());
    give_permit_on(registry, core);
}
