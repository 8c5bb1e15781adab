//! The end of a turn: what was deferred meanwhile joins, the account is told, and the batch is polled again if need be.

use std::task::{Context, Waker};

use super::{
    finish::{drop_completed, finish},
    join::{at_join, take_in},
};
use crate::{
    account::Finished,
    runner::{Active, Registry},
    task::{End, Link, MOST_POLLS},
};

/// Whether the batch is to be polled again although nobody has woken it.
pub(super) enum Again {
    /// All is done.
    Never,
    No,
    /// As `No`, and if nobody has ended there is nothing to tell either.
    Quiet,
    Yes,
}

/// The end of a turn in which one task was polled, which goes on waiting, and is put `back`.
#[inline]
pub(super) fn one_pending(
    registry: &Registry,
    cx: &mut Context<'_>,
    back: impl FnOnce(&mut Active),
) -> bool {
    let quiet = registry.peek(|active| {
        back(active);
        active.is_quiet()
    });
    quiet != Some(true) && end(registry, cx, false, &mut Finished::default())
}

/// The end of a turn in which one task was polled and has ended.
#[inline(never)]
pub(super) fn one_ended(registry: &Registry, cx: &mut Context<'_>, node: Link, how: End) -> bool {
    let mut finished = Finished::default();
    if node.rare().is_none() && matches!(how, End::Completed) {
        let sequence = node.sequence();
        if drop_completed(registry, node, &mut finished) {
            let over = registry.peek(|active| {
                active.unpublished.completed += 1;
                active.is_done()
            });
            if over == Some(true) {
                return true;
            }
            finished.push(sequence);
        }
    } else {
        finish(registry, node, how, &mut finished);
    }
    end(registry, cx, false, &mut finished)
}

/// The end of a turn: takes in what was deferred meanwhile, publishes, and sees to it that the batch is polled again.
pub(super) fn end(
    registry: &Registry,
    cx: &mut Context<'_>,
    mut again: bool,
    finished: &mut Finished,
) -> bool {
    let state = registry.peek(|active| {
        let new = active.collected.len() > 0 || !active.unpublished.is_empty();
        (active.unfinished(), active.special, new)
    });
    let (left, special, new) = state.unwrap_or_default();
    if !special {
        let joined = registry.take_collected();
        if left == 0 && joined.is_empty() {
            return true;
        }
        again |= !joined.is_empty();
        if new || !finished.is_empty() {
            registry.record(finished, &joined);
            registry.peek(|active| active.queue_up(joined));
        }
    } else {
        let runner = registry.runner();
        let core = runner.get();
        for round in 0.. {
            let waits_for_others = left == 0 && !group_is_done(registry, cx.waker());
            let joined = match registry.inbox() {
                None => registry.take_collected(),
                Some(inbox) if left == 0 && !waits_for_others => {
                    registry.take_back(inbox.batch_ends())
                }
                Some(inbox) => inbox.batch_waits(cx.waker()),
            };
            let none = joined.is_empty();
            if left == 0 && none && !waits_for_others {
                return true;
            }
            let joined = at_join(registry, core, joined);
            if left == 0 && !none && joined.is_empty() && round < MOST_POLLS {
                // None of it is to run here, so this may be the end: who waits for the account hears of it when the
                // context is gone.
                continue;
            }
            again |= !none;
            take_in(registry, core, joined, finished);
            break;
        }
    }
    if again {
        cx.waker().wake_by_ref();
    }
    false
}

/// Whether nothing that was split off is waited for.
fn group_is_done(registry: &Registry, waker: &Waker) -> bool {
    let group = registry
        .peek(|active| {
            let awaited = !active.released;
            let group = active.uncommon_if_any()?.group.clone();
            group.filter(|_| awaited)
        })
        .flatten();
    group.is_none_or(|group| group.is_done(waker))
}

impl Active {
    /// Whether the batch is to be polled again although nobody has woken it, if its turn was over now.
    #[inline]
    pub(super) fn again(&self, again: bool) -> Again {
        match again {
            true => Again::Yes,
            false if self.is_quiet() => Again::Quiet,
            false => Again::No,
        }
    }

    /// Whether there is nothing to tell but of those who have ended.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        !self.special && self.collected.len() == 0 && self.unpublished.is_empty()
    }

    /// Whether a plain batch has nothing left.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        !self.special
            && self.queue.is_empty()
            && self.collected.len() == 0
            && self.ready.is_none()
            && self.look_uncommon().is_none()
    }
}
