//! The polls of a turn of tasks that have no wakers of their own.

use std::task::Context;

use super::{
    finish::{drop_completed, finish},
    poll::{poll, poll_plain, poll_watched},
    turn_end::{Again, end, one_ended, one_pending},
};
use crate::{
    account::Finished,
    runner::{Active, Registry},
    task::{End, Link, MOST_POLLS},
};

/// Polls the next tasks of the queue.
///
/// The active part is taken out once for each task: to put away what has been polled and to get the next.
#[inline]
pub(super) fn round(
    registry: &Registry,
    cx: &mut Context<'_>,
    mut polls: usize,
    finished: &mut Finished,
) -> Again {
    let mut again = Again::No;
    let mut next = registry.peek(|active| active.queue.pop_front()).flatten();
    while let Some(mut node) = next {
        polls -= 1;
        let plain = node.rare().is_none();
        let polled = match plain {
            true => poll_plain(&mut node, cx),
            false => poll_watched(registry, &mut node, cx),
        };
        next = match polled {
            None => registry.peek(|active| {
                active.fresh = active.fresh.max(node.sequence() + 1);
                active.queue.push_back(node);
                active.next_of_round(polls, &mut again)
            }),
            Some(end) if plain && matches!(end, End::Completed) => {
                // It holds nothing, and forgetting it spares the plain path its destructor.
                std::mem::forget(end);
                let sequence = node.sequence();
                let completed = drop_completed(registry, node, finished);
                registry.peek(|active| {
                    active.unpublished.completed += u64::from(completed);
                    let next = active.next_of_round(polls, &mut again);
                    // The roster is told, unless this was all: then the whole seat is given up.
                    if completed && (next.is_some() || !matches!(again, Again::Never)) {
                        finished.push(sequence);
                    }
                    next
                })
            }
            Some(end) => {
                finish(registry, node, end, finished);
                registry.peek(|active| active.next_of_round(polls, &mut again))
            }
        }
        .flatten();
    }
    again
}

/// Polls the first task, and the next when it has ended; returns whether there are more than one turn takes.
pub(super) fn sequence(
    registry: &Registry,
    cx: &mut Context<'_>,
    finished: &mut Finished,
) -> Again {
    for _ in 0..MOST_POLLS {
        let Some(mut node) = registry.peek(|active| active.queue.pop_front()).flatten() else {
            return Again::No;
        };
        match poll(registry, &mut node, cx) {
            None => {
                registry.peek(|active| active.queue.push_front(node));
                return Again::No;
            }
            Some(end) => finish(registry, node, end, finished),
        }
    }
    Again::Yes
}

/// A turn of a plain batch whose only task has been polled before.
#[inline]
pub(super) fn lone(registry: &Registry, cx: &mut Context<'_>) -> bool {
    let Some(mut node) = registry.peek(|active| active.queue.pop_front()).flatten() else {
        return end(registry, cx, false, &mut Finished::default());
    };
    match poll_plain(&mut node, cx) {
        Some(end) => one_ended(registry, cx, node, end),
        None => one_pending(registry, cx, |active| {
            active.fresh = active.fresh.max(node.sequence() + 1);
            active.queue.push_front(node);
        }),
    }
}

impl Active {
    #[inline]
    fn next_of_round(&mut self, polls: usize, again: &mut Again) -> Option<Link> {
        if polls > 0 {
            if let Some(node) = self.queue.pop_front() {
                return Some(node);
            }
        }
        *again = match self.is_done() {
            true => Again::Never,
            false => self.again(self.round > 0 || (self.split && !self.queue.is_empty())),
        };
        None
    }
}
