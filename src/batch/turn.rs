//! How the tasks of a batch take turns.
//!
//! A round is one poll of every task; a turn is at most [`MOST_POLLS`] polls of it, between two visits to the runtime's
//! queue. Each round starts one task further on than the last: a runtime's budget for cooperation is shared by all tasks
//! of a batch, and in a fixed order a busy one would leave nothing of it to those behind it, for ever.
//!
//! Whatever wakes the batch, all of its tasks are polled: for tasks that wait once or not at all that is cheaper than a
//! waker for each. When that has gone on for some time ([`ScopeState::polls_left`]), each gets a waker of its own
//! ([`woken`]), so that the cost stays linear in tasks and wakes. So does each after a first round of more than one turn: a
//! wake-up that came in its first turn would be used up by the second, which polls only the rest. A task without siblings
//! needs none.

use std::task::Context;

use super::{
    expire::expire,
    join::join_on_slow_path,
    permits::take_permits,
    round::{poll_single, round, sequence},
    turn_end::{AfterTurn, end_turn},
    woken,
};
use crate::{
    account::EndedSet,
    runner::{Extras, Registry, RunnerRef, ScopeState},
    task::{MOST_POLLS, Order, TaskCell},
};

/// Runs the turn that [`ScopeState::next_polls`] has planned; returns whether nothing is left to run. `registry` is
/// current.
#[inline]
pub(super) fn run(registry: &Registry, cx: &mut Context<'_>, kind: TurnKind) -> bool {
    match kind {
        // A batch that waits has as a rule one task, or one that was woken, and it goes on waiting.
        TurnKind::Single => poll_single(registry, cx),
        TurnKind::Woken => match woken::poll_woken(registry, cx) {
            Some(done) => done,
            None => run_general(registry, cx, TurnKind::Woken),
        },
        kind => run_general(registry, cx, kind),
    }
}

#[inline(never)]
fn run_general(registry: &Registry, cx: &mut Context<'_>, kind: TurnKind) -> bool {
    run_planned(registry, None, cx, kind, &mut EndedSet::default())
}

/// As `run`, on the slow path: what came through handles takes part in the turn, so do tasks with new permits, and what is
/// past its time does not.
#[cold]
pub(super) fn run_on_slow_path(registry: &Registry, cx: &mut Context<'_>) -> bool {
    let (runner, inbox, kind) = registry.with_state(|state| {
        // Nothing is to be taken in, and no time to be looked at.
        let plain = !state.extras().is_some_and(Extras::concern_each_turn);
        let kind = plain.then(|| state.next_polls());
        (state.runner.clone(), state.inbox().cloned(), kind)
    });
    let mut ended_set = EndedSet::default();
    let kind = kind.unwrap_or_else(|| {
        if let Some(inbox) = inbox {
            let joined = inbox.batch_runs();
            if !joined.is_empty() {
                join_on_slow_path(registry, runner.get(), joined, &mut ended_set);
            }
        }
        take_permits(registry, cx.waker());
        expire(registry, &runner, cx, &mut ended_set);
        registry.with_state(ScopeState::next_polls)
    });
    run_planned(registry, Some(&runner), cx, kind, &mut ended_set)
}

#[inline(always)]
fn run_planned(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    cx: &mut Context<'_>,
    kind: TurnKind,
    ended_set: &mut EndedSet,
) -> bool {
    let again = match kind {
        TurnKind::Round(polls) => round(registry, runner, cx, polls, ended_set),
        TurnKind::Single => round(registry, runner, cx, 1, ended_set),
        TurnKind::Sequence => sequence(registry, runner, cx, ended_set),
        TurnKind::Woken => woken::poll_all_woken(registry, runner, cx, ended_set),
    };
    match again {
        // Nearly all batches end here, after one turn.
        AfterTurn::Done => true,
        AfterTurn::NothingToPublish if ended_set.is_empty() => false,
        AfterTurn::Wait | AfterTurn::NothingToPublish => {
            end_turn(registry, runner, cx, false, ended_set)
        }
        AfterTurn::PollAgain => end_turn(registry, runner, cx, true, ended_set),
    }
}

/// What a turn is to do. Not the tasks that it is to poll: like this it stays in registers.
#[derive(Clone, Copy)]
pub(super) enum TurnKind {
    /// So many polls.
    Round(usize),
    Sequence,
    /// Poll the only task.
    Single,
    /// Poll those that were woken. If they have no wakers of their own, they get some.
    Woken,
}

impl ScopeState {
    #[inline]
    pub(super) fn next_polls(&mut self) -> TurnKind {
        if self.ready.is_some() {
            return TurnKind::Woken;
        }
        if self.order == Order::Sequential {
            return TurnKind::Sequence;
        }
        if self.round == 0 {
            if self.queue.len() == 1 {
                // One turn for all that is left, and polls that are no reason for a waker of its own.
                self.long_round = false;
                return TurnKind::Single;
            }
            let polled = self.queue.front().is_some_and(TaskCell::was_polled);
            if (polled || self.long_round || self.polls_left == 0) && self.queue.len() > 1 {
                return self.later_round(polled);
            }
            self.round = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
            self.long_round = self.round > MOST_POLLS as u32;
        }
        let polls = self.round.min(MOST_POLLS as u32);
        self.round -= polls;
        self.polls_left = self.polls_left.saturating_sub(polls as u8);
        TurnKind::Round(polls as usize)
    }

    /// A round that is not the first: it starts one further on than the last, if the task in front was `polled`. One that was
    /// not keeps its place: they start in order. When it is time for that, each task gets a waker instead.
    #[inline(never)]
    fn later_round(&mut self, polled: bool) -> TurnKind {
        if polled {
            self.queue.put_behind(1);
        }
        let polls = self.queue.len();
        if polls > MOST_POLLS || self.polls_left == 0 {
            return TurnKind::Woken;
        }
        self.long_round = false;
        self.polls_left = self.polls_left.saturating_sub(polls as u8);
        TurnKind::Round(polls)
    }
}
