//! The end of a task that does not run, or not to its end: dropped, counted, told.

use crate::{
    account::Ended,
    report::Loss,
    runner::{Core, Registry},
    task::{End, Link, Queue},
};

/// Ends a task that does not run, or not to its end.
pub(crate) fn finish(registry: &Registry, core: &Core, node: Link, end: End) {
    let ended = Ended::of(node, end);
    let outcome = registry.peek(|active| {
        ended.count(&mut active.unpublished);
        active.outcome
    });
    ended.tell(&core.observers, outcome.flatten());
}

/// Gathers losses, so that they are reported together, and drops what is lost.
pub(crate) fn lose(registry: &Registry, core: &Core, why: Loss, mut tasks: Queue) {
    let runner = registry.runner();
    // A closure that has returned, and whose batch has not heard of it, is not lost.
    let returned = tasks.extract(|node| {
        let slot = node.rare().and_then(|rare| rare.blocking.as_ref());
        slot.is_some_and(|slot| slot.has_ended())
    });
    for node in returned {
        let slot = node.rare().and_then(|rare| rare.blocking.clone());
        let end = slot.and_then(|slot| slot.take_end());
        let end = end.unwrap_or(End::Lost(why));
        if let End::Lost(why) = end {
            // Its pool has dropped it.
            let lost = std::iter::once(node.label());
            core.account.lose(&runner, why, lost);
        }
        finish(registry, core, node, end);
    }
    if tasks.is_empty() {
        return;
    }
    let quiet = registry.peek(|active| active.look_uncommon().is_some_and(|rare| rare.quiet));
    if quiet != Some(true) || why == Loss::Shed {
        let lost = tasks.iter().map(|node| node.label());
        core.account.lose(&runner, why, lost);
    }
    for node in tasks {
        let end = match why {
            Loss::Shed => End::Shed,
            why => End::Lost(why),
        };
        finish(registry, core, node, end);
    }
}
