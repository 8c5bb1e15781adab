//! The polls of a turn of tasks that have no wakers of their own.

use std::task::Context;

use super::{
    finish::{drop_completed, finish},
    poll::{poll, poll_plain, poll_watched},
    turn_end::{AfterTurn, end_turn, one_ended, one_pending},
};
use crate::{
    account::EndedSet,
    runner::{Registry, RunnerRef, ScopeState},
    task::{BoxedTask, End, MOST_POLLS},
};

/// Polls the next tasks of the queue.
///
/// The state is taken out once for each task: to put away what has been polled and to get the next.
#[inline]
pub(super) fn round(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    cx: &mut Context<'_>,
    mut polls: usize,
    ended_set: &mut EndedSet,
) -> AfterTurn {
    let mut again = AfterTurn::Wait;
    let mut next = registry.peek(|state| state.queue.pop_front()).flatten();
    while let Some(mut task) = next {
        polls -= 1;
        let plain = task.options().is_none();
        let polled = match plain {
            true => poll_plain(&mut task, cx),
            false => poll_watched(registry, runner, &mut task, cx),
        };
        next = match polled {
            None => registry.peek(|state| {
                state.fresh = state.fresh.max(task.sequence() + 1);
                state.queue.push_back(task);
                state.next_of_round(polls, &mut again)
            }),
            Some(end) if plain && runner.is_none() && matches!(end, End::Completed) => {
                // It holds nothing, and forgetting it spares the fast path its destructor.
                std::mem::forget(end);
                let sequence = task.sequence();
                let completed = drop_completed(registry, task);
                registry.peek(|state| {
                    state.unpublished.completed += u64::from(completed);
                    let next = state.next_of_round(polls, &mut again);
                    // The roster is told, unless this was all: then the whole entry is given up.
                    if next.is_some() || !matches!(again, AfterTurn::Done) {
                        ended_set.push(sequence);
                    }
                    next
                })
            }
            Some(end) => {
                finish(registry, runner, task, end, ended_set);
                registry.peek(|state| state.next_of_round(polls, &mut again))
            }
        }
        .flatten();
    }
    again
}

/// Polls the first task, and the next when it has ended; returns whether there are more than one turn takes.
pub(super) fn sequence(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    cx: &mut Context<'_>,
    ended_set: &mut EndedSet,
) -> AfterTurn {
    for _ in 0..MOST_POLLS {
        let Some(mut task) = registry.peek(|state| state.queue.pop_front()).flatten() else {
            return AfterTurn::Wait;
        };
        match poll(registry, runner, &mut task, cx) {
            None => {
                registry.peek(|state| state.queue.push_front(task));
                return AfterTurn::Wait;
            }
            Some(end) => finish(registry, runner, task, end, ended_set),
        }
    }
    AfterTurn::PollAgain
}

/// A turn of a batch on the fast path whose only task has been polled before.
#[inline]
pub(super) fn poll_single(registry: &Registry, cx: &mut Context<'_>) -> bool {
    let Some(mut task) = registry.peek(|state| state.queue.pop_front()).flatten() else {
        return end_turn(registry, None, cx, false, &mut EndedSet::default());
    };
    match poll_plain(&mut task, cx) {
        Some(end) => one_ended(registry, cx, task, end),
        None => one_pending(registry, cx, |state| {
            state.fresh = state.fresh.max(task.sequence() + 1);
            state.queue.push_front(task);
        }),
    }
}

impl ScopeState {
    #[inline]
    fn next_of_round(&mut self, polls: usize, again: &mut AfterTurn) -> Option<BoxedTask> {
        if polls > 0 {
            if let Some(task) = self.queue.pop_front() {
                return Some(task);
            }
        }
        *again = match self.is_done() {
            true => AfterTurn::Done,
            false => self.after_turn(self.round > 0 || (self.long_round && !self.queue.is_empty())),
        };
        None
    }
}
