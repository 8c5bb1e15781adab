//! The end of a turn: what was deferred meanwhile joins, the account is told, and the batch is polled again if need be.

use std::task::{Context, Waker};

use super::{
    finish::{drop_completed, finish, runner_of},
    join::{at_join, take_in},
};
use crate::{
    account::EndedSet,
    runner::{Extras, Registry, RunnerRef, ScopeState},
    task::{BoxedTask, Ended, MOST_POLLS},
};

/// Whether the batch is to be polled again although nobody has woken it.
pub(super) enum AfterTurn {
    /// All is done.
    Done,
    Wait,
    /// As `Wait`, and if nobody has ended there is nothing to tell either.
    NothingToPublish,
    PollAgain,
}

/// The end of a turn in which one task was polled, which goes on waiting, and is put `back`.
#[inline]
pub(super) fn one_pending(
    registry: &Registry,
    cx: &mut Context<'_>,
    back: impl FnOnce(&mut ScopeState),
) -> bool {
    let nothing_to_publish = registry.peek(|state| {
        back(state);
        state.has_nothing_to_publish()
    });
    nothing_to_publish != Some(true)
        && end_turn(registry, None, cx, false, &mut EndedSet::default())
}

/// The end of a turn in which one task was polled and has ended.
#[inline(never)]
pub(super) fn one_ended(
    registry: &Registry,
    cx: &mut Context<'_>,
    task: BoxedTask,
    how: Ended,
) -> bool {
    let mut ended_set = EndedSet::default();
    if task.options().is_none() && matches!(how, Ended::Completed) {
        let sequence = task.sequence();
        let completed = drop_completed(registry, task);
        let over = registry.peek(|state| {
            state.few.add_completed(completed);
            state.is_done()
        });
        if over == Some(true) {
            return true;
        }
        ended_set.push(sequence);
    } else {
        finish(registry, None, task, how, &mut ended_set);
    }
    end_turn(registry, None, cx, false, &mut ended_set)
}

pub(super) fn end_turn(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    cx: &mut Context<'_>,
    again: bool,
    ended_set: &mut EndedSet,
) -> bool {
    let state = registry.peek(|state| {
        let new = !state.backlog.is_empty() || state.has_unpublished();
        (state.unfinished(), state.slow_path, new)
    });
    let (left, slow_path, new) = state.unwrap_or_default();
    let joined = match slow_path {
        true => end_turn_on_slow_path(registry, runner, cx, left, ended_set),
        false => {
            let joined = registry.take_backlog();
            if left == 0 && joined.is_empty() {
                return true;
            }
            let again = !joined.is_empty();
            if new || !ended_set.is_empty() {
                registry.record(ended_set, &joined);
                registry.peek(|state| state.queue_up(joined));
            }
            Some(again)
        }
    };
    let Some(joined) = joined else { return true };
    if again || joined {
        cx.waker().wake_by_ref();
    }
    false
}

/// Takes in what has joined; returns whether something has, or `None` if the batch has ended.
#[cold]
fn end_turn_on_slow_path(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    cx: &mut Context<'_>,
    left: usize,
    ended_set: &mut EndedSet,
) -> Option<bool> {
    let runner = runner_of(registry, runner);
    let core = runner.get();
    for round in 0.. {
        let waits_for_others = left == 0 && !group_is_done(registry, cx.waker());
        let joined = match registry.inbox() {
            None => registry.take_backlog(),
            Some(inbox) if left == 0 && !waits_for_others => registry.take_back(inbox.batch_ends()),
            Some(inbox) => inbox.batch_waits(cx.waker()),
        };
        let none = joined.is_empty();
        if left == 0 && none && !waits_for_others {
            return None;
        }
        let mut joined = at_join(registry, core, joined);
        for _ in 0..MOST_POLLS {
            // What the destructors of the discarded have deferred goes on the roster with the rest. If there is an inbox, they
            // have deferred into that, and reports look there.
            let more = registry.take_backlog();
            if more.is_empty() {
                break;
            }
            joined.append(at_join(registry, core, more));
        }
        if left == 0 && !none && joined.is_empty() && round < MOST_POLLS {
            // None of it is to run here, so this may be the end: who waits for the account hears of it when the
            // context is gone.
            continue;
        }
        take_in(registry, core, joined, ended_set);
        return Some(!none);
    }
    None
}

/// Whether nothing that was split off is waited for.
fn group_is_done(registry: &Registry, waker: &Waker) -> bool {
    let group = registry
        .peek(|state| {
            let awaited = !state.released;
            let group = state.extras_if_any()?.group.clone();
            group.filter(|_| awaited)
        })
        .flatten();
    group.is_none_or(|group| group.poll(waker))
}

impl ScopeState {
    /// Whether the batch is to be polled again although nobody has woken it, if its turn was over now.
    #[inline]
    pub(super) fn after_turn(&self, again: bool) -> AfterTurn {
        match again {
            true => AfterTurn::PollAgain,
            false if self.has_nothing_to_publish() => AfterTurn::NothingToPublish,
            false => AfterTurn::Wait,
        }
    }

    /// Whether there is nothing to tell but of those who have ended.
    #[inline]
    pub(super) fn has_nothing_to_publish(&self) -> bool {
        !self.slow_path && self.backlog.is_empty() && !self.has_unpublished()
    }

    /// Whether a batch has nothing left, and nobody can bring more.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty()
            && self.backlog.is_empty()
            && self.ready.is_none()
            && self.extras().is_none_or(Extras::await_nothing)
    }
}
