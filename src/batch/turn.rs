//! How the tasks of a batch take turns.
//!
//! A round is one poll of every task; a turn is at most [`MOST_POLLS`] polls of it, between two visits to the runtime's
//! queue. Each round starts one task further on than the last: a runtime's budget for cooperation is shared by all tasks
//! of a batch, and in a fixed order a busy one would leave nothing of it to those behind it, for ever.
//!
//! Whatever wakes the batch, all of its tasks are polled: for tasks that wait once or not at all that is cheaper than a
//! waker for each. When that has gone on for some time ([`POLLS_A_TASK`]), each gets a waker of its own ([`woken`]), so
//! that the cost stays linear in tasks and wakes. So does each after a first round of more than one turn: a wake-up that
//! came in its first turn would be used up by the second, which polls only the rest. A task without siblings needs none.

use std::task::Context;

use super::{
    expire::expire,
    join::join_specially,
    permits::take_permits,
    round::{lone, round, sequence},
    turn_end::{Again, end},
    woken,
};
use crate::{
    account::Finished,
    runner::{Active, Registry},
    task::{MOST_POLLS, Order},
};

/// Polls for each task, on average, before tasks get wakers of their own. A waker costs as much as three polls of a task that
/// does nothing in them, and a poll for nothing of one that does something costs more.
const POLLS_A_TASK: u64 = 3;

/// Runs the turn that [`Active::begin_turn`] has planned; returns whether nothing is left to run. `registry` is current.
#[inline]
pub(super) fn run(registry: &Registry, cx: &mut Context<'_>, plan: Plan) -> bool {
    match plan {
        // A batch that waits has as a rule one task, or one that was woken, and it goes on waiting.
        Plan::Lone => lone(registry, cx),
        Plan::Woken => match woken::one(registry, cx) {
            Some(done) => done,
            None => run_planned(registry, cx, Plan::Woken),
        },
        plan => run_planned(registry, cx, plan),
    }
}

#[inline(never)]
fn run_planned(registry: &Registry, cx: &mut Context<'_>, mut plan: Plan) -> bool {
    let mut finished = Finished::default();
    if let Plan::Special = plan {
        plan = begin_special(registry, cx, &mut finished);
    }
    let again = match plan {
        Plan::Round(polls) => round(registry, cx, polls, &mut finished),
        Plan::Lone => round(registry, cx, 1, &mut finished),
        Plan::Sequence => sequence(registry, cx, &mut finished),
        Plan::Woken => woken::several(registry, cx, &mut finished),
        Plan::Special => Again::No,
    };
    match again {
        // Nearly all batches end here, after one turn.
        Again::Never => true,
        Again::Quiet if finished.is_empty() => false,
        Again::No | Again::Quiet => end(registry, cx, false, &mut finished),
        Again::Yes => end(registry, cx, true, &mut finished),
    }
}

/// What a turn is to do. Not the tasks that it is to poll: like this it stays in registers.
#[derive(Clone, Copy)]
pub(super) enum Plan {
    /// Look first at what plain batches don't have.
    Special,
    /// So many polls.
    Round(usize),
    Sequence,
    /// Poll the only task, which has been polled before.
    Lone,
    /// Poll those that were woken. If they have no wakers of their own, they get some.
    Woken,
}

/// Before the turn: what came through handles takes part in it, so do tasks with new permits, and what is past its time
/// does not.
#[cold]
fn begin_special(registry: &Registry, cx: &mut Context<'_>, finished: &mut Finished) -> Plan {
    let runner = registry.runner();
    let core = runner.get();
    if let Some(inbox) = registry.inbox() {
        let joined = inbox.batch_runs();
        if !joined.is_empty() {
            join_specially(registry, core, joined, finished);
        }
    }
    take_permits(registry, cx.waker());
    expire(registry, core, cx, finished);
    let plan = registry.peek(Active::next_polls);
    plan.unwrap_or(Plan::Sequence)
}

impl Active {
    #[inline]
    pub(super) fn begin_turn(&mut self) -> Plan {
        if self.special {
            return Plan::Special;
        }
        self.next_polls()
    }

    #[inline]
    fn next_polls(&mut self) -> Plan {
        if self.ready.is_some() {
            return Plan::Woken;
        }
        if self.order == Order::Sequential {
            return Plan::Sequence;
        }
        if self.round == 0 {
            if self.polls > 0 {
                if self.queue.len() == 1 {
                    // One turn for all that is left, and polls that are no reason for a waker of its own.
                    self.split = false;
                    return Plan::Lone;
                }
                if self.queue.len() > 1 && self.begin_later_round() {
                    return Plan::Woken;
                }
            }
            self.round = self.queue.len();
            self.split = self.round > MOST_POLLS;
        }
        let polls = self.round.min(MOST_POLLS);
        self.round -= polls;
        self.polls += polls as u64;
        Plan::Round(polls)
    }

    /// Before a round that is not the first: moves the start on by one; returns whether it is time to give each task a waker.
    #[inline(never)]
    fn begin_later_round(&mut self) -> bool {
        if let Some(first) = self.queue.pop_front() {
            // A task that has not been polled yet keeps its place: they start in order.
            if first.sequence() < self.fresh {
                self.queue.push_back(first);
            } else {
                self.queue.push_front(first);
            }
        }
        self.queue.len() > MOST_POLLS || self.polls >= POLLS_A_TASK * self.joined
    }
}
