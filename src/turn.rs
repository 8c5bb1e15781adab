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

use std::task::{Context, Poll};

use crate::{
    active::Active,
    admission,
    ending::Ended,
    finished::Finished,
    node::{Label, Link, Queue},
    outcome::Order,
    registry::Registry,
    report,
    runner::Core,
    task::End,
    watched, woken,
};

/// Polls in one turn.
pub(crate) const MOST_POLLS: usize = 32;
/// Polls for each task, on average, before tasks get wakers of their own. A waker costs as much as three polls of a task that
/// does nothing in them, and a poll for nothing of one that does something costs more.
const POLLS_A_TASK: u64 = 3;

/// Runs the turn that [`Active::begin_turn`] has planned; returns whether nothing is left to run. `registry` is current.
#[inline]
pub(crate) fn run(registry: &Registry, cx: &mut Context<'_>, plan: Plan) -> bool {
    match plan {
        // A batch that waits has as a rule one task, or one that was woken, and it goes on waiting.
        Plan::Lone => lone(registry, cx),
        Plan::Woken => woken::one(registry, cx),
        plan => run_planned(registry, cx, plan),
    }
}

#[inline(never)]
pub(crate) fn run_planned(registry: &Registry, cx: &mut Context<'_>, mut plan: Plan) -> bool {
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

/// Whether the batch is to be polled again although nobody has woken it.
pub(crate) enum Again {
    /// All is done.
    Never,
    No,
    /// As `No`, and if nobody has ended there is nothing to tell either.
    Quiet,
    Yes,
}

/// What a turn is to do. Not the tasks that it is to poll: like this it stays in registers.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
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
    watched::take_permits(registry, cx.waker());
    watched::expire(registry, core, cx, finished);
    let plan = registry.peek(Active::next_polls);
    plan.unwrap_or(Plan::Sequence)
}

/// Polls the next tasks of the queue.
///
/// The active part is taken out once for each task: to put away what has been polled and to get the next.
#[inline]
fn round(
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
            false => watched::poll(registry, &mut node, cx),
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

/// Drops a plain task that has completed; returns whether that was all. If its destructor has panicked, that is counted and
/// reported here.
#[inline]
fn drop_completed(registry: &Registry, node: Link, finished: &mut Finished) -> bool {
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

/// Polls the first task, and the next when it has ended; returns whether there are more than one turn takes.
fn sequence(registry: &Registry, cx: &mut Context<'_>, finished: &mut Finished) -> Again {
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
fn lone(registry: &Registry, cx: &mut Context<'_>) -> bool {
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

/// The end of a turn in which one task was polled, which goes on waiting, and is put `back`.
#[inline]
pub(crate) fn one_pending(
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
pub(crate) fn one_ended(registry: &Registry, cx: &mut Context<'_>, node: Link, how: End) -> bool {
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

/// Polls a task; `None` while it is pending.
#[inline]
pub(crate) fn poll(registry: &Registry, node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    if node.rare().is_some() {
        return watched::poll(registry, node, cx);
    }
    poll_plain(node, cx)
}

#[inline]
pub(crate) fn poll_plain(node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    match report::catch(|| node.as_mut().poll_work(cx)) {
        Ok(Poll::Pending) => None,
        Ok(Poll::Ready(end)) => Some(end),
        Err(payload) => Some(End::Panicked(payload)),
    }
}

/// Drops, counts and reports a task that has ended.
#[cold]
pub(crate) fn finish(registry: &Registry, node: Link, end: End, finished: &mut Finished) {
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
    ended.tell(core, outcome.flatten());
    watched::give_permit_on(registry, core);
}

/// The end of a turn: takes in what was deferred meanwhile, publishes, and sees to it that the batch is polled again.
fn end(
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
            let waits_for_others = left == 0 && !watched::group_is_done(registry, cx.waker());
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
            let joined = admission::at_join(registry, core, joined);
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

/// Takes in what was deferred meanwhile, by a batch that is not plain.
fn join_specially(registry: &Registry, core: &Core, joined: Queue, finished: &mut Finished) {
    let joined = admission::at_join(registry, core, joined);
    take_in(registry, core, joined, finished);
}

fn take_in(registry: &Registry, core: &Core, joined: Queue, finished: &mut Finished) {
    let published = registry.peek(|active| active.unpublished.is_empty());
    if joined.is_empty() && finished.is_empty() && published == Some(true) {
        return;
    }
    registry.record(finished, &joined);
    if !joined.is_empty() {
        admission::line_up(registry, core, joined);
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

    /// Whether the batch is to be polled again although nobody has woken it, if its turn was over now.
    #[inline]
    pub(crate) fn again(&self, again: bool) -> Again {
        match again {
            true => Again::Yes,
            false if self.is_quiet() => Again::Quiet,
            false => Again::No,
        }
    }

    #[inline]
    pub(crate) fn begin_turn(&mut self) -> Plan {
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

    /// Whether there is nothing to tell but of those who have ended.
    #[inline]
    fn is_quiet(&self) -> bool {
        !self.special && self.collected.len() == 0 && self.unpublished.is_empty()
    }

    /// Whether a plain batch has nothing left.
    #[inline]
    fn is_done(&self) -> bool {
        !self.special
            && self.queue.is_empty()
            && self.collected.len() == 0
            && self.ready.is_none()
            && self.look_uncommon().is_none()
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
