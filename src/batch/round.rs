//! The polls of a turn of tasks that have no wakers of their own.

use std::{
    mem,
    panic::Location,
    task::{Context, Poll},
};

use super::{
    finish::finish,
    poll::{poll, poll_plain, poll_watched},
    turn_end::{AfterTurn, end_turn, one_ended, one_pending},
};
use crate::{
    account::EndedSet,
    report::{self, Label, Payload},
    runner::{Registry, RunnerRef, ScopeState},
    task::{BoxedTask, End, Ended, MOST_POLLS, Queue},
};

/// Polls of the first tasks of the queue, each where it stands.
///
/// The queue is out of the state meanwhile, and the state in its place: what runs may defer, and nothing that it may call
/// looks at the queue. One guard against panics is around all polls; after a panic they go on behind the task that it was.
struct Round<'a> {
    registry: &'a Registry,
    /// On the slow path.
    runner: Option<&'a RunnerRef>,
    /// Whether somebody hears of each end.
    told: bool,
    queue: Queue,
    /// How many have been polled, and how many of these have ended.
    polled: usize,
    ended: usize,
    /// The name and the place of the one whose destructor runs.
    dropping: Option<(&'static str, &'static Location<'static>)>,
}

/// Polls the next tasks of the queue.
#[inline]
pub(super) fn round(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    cx: &mut Context<'_>,
    polls: usize,
    ended_set: &mut EndedSet,
) -> AfterTurn {
    let queue = registry.peek(|state| mem::take(&mut state.queue));
    let mut round = Round {
        registry,
        runner,
        told: runner.is_some_and(|runner| runner.get().hears_of_ends()),
        queue: queue.unwrap_or_default(),
        polled: 0,
        ended: 0,
        dropping: None,
    };
    loop {
        match report::catch(|| round.poll_tasks(polls, cx, ended_set)) {
            Ok(()) => break,
            Err(payload) => round.has_panicked(payload, ended_set),
        }
    }
    let again = round.put_back();
    mem::forget(round);
    again.unwrap_or(AfterTurn::Wait)
}

impl Round<'_> {
    /// Polls one after the other, until so many were polled.
    #[inline]
    fn poll_tasks(&mut self, polls: usize, cx: &mut Context<'_>, ended_set: &mut EndedSet) {
        let slots = self.queue.first_slots(polls);
        for slot in slots.get_mut(self.polled..).unwrap_or_default() {
            self.polled += 1;
            let Some(task) = slot else { continue };
            let plain = task.options().is_none();
            let polled = match plain {
                true => task.as_mut().poll_task(cx),
                false => poll_watched(self.registry, self.runner, task, cx),
            };
            match polled {
                Poll::Pending => task.as_mut().mark_polled(),
                Poll::Ready(Ended::Completed) if plain && !self.told => {
                    self.dropping = Some((task.name(), task.location()));
                    ended_set.push(task.sequence());
                    self.ended += 1;
                    // Where it stands: to take it out first costs as much again. The place is empty also if this panics.
                    *slot = None;
                    self.dropping = None;
                    // From now on, also for a task that asks.
                    self.registry.peek(|state| state.few.add_completed(true));
                }
                Poll::Ready(how) => {
                    self.ended += 1;
                    finish_in(slot, self.registry, self.runner, how, ended_set);
                }
            }
        }
    }

    #[cold]
    fn has_panicked(&mut self, payload: Payload, ended_set: &mut EndedSet) {
        let Some((name, location)) = self.dropping.take() else {
            let last = self.queue.first_slots(self.polled).last_mut();
            if let Some(slot) = last.filter(|slot| slot.is_some()) {
                self.ended += 1;
                let how = End::Panicked(payload).into();
                finish_in(slot, self.registry, self.runner, how, ended_set);
            }
            return;
        };
        self.registry
            .peek(|state| state.other_counts().panicked += 1);
        let label = Label {
            name,
            key: None,
            location,
        };
        report::destructor_panicked(&label, payload);
    }
}

/// Ends the task in this place, which it leaves.
// Apart, or the loop around it would have to know how to drop one.
#[cold]
#[inline(never)]
fn finish_in(
    slot: &mut Option<BoxedTask>,
    registry: &Registry,
    runner: Option<&RunnerRef>,
    how: Ended,
    ended_set: &mut EndedSet,
) {
    if let Some(task) = slot.take() {
        finish(registry, runner, task, how, ended_set);
    }
}

impl Drop for Round<'_> {
    /// If something unwinds that is not caught. We know of nothing.
    #[cold]
    fn drop(&mut self) {
        self.put_back();
    }
}

impl Round<'_> {
    /// Puts back what has not ended.
    #[inline]
    fn put_back(&mut self) -> Option<AfterTurn> {
        self.queue.close_up(self.polled, self.ended);
        let kept = self.polled - self.ended;
        if kept < self.queue.len() {
            self.begin_with_unpolled(kept);
        }
        self.registry.peek(|state| {
            if self.queue.is_empty() {
                state.backlog.reuse(&mut self.queue);
            } else {
                let gap = mem::replace(&mut state.queue, mem::take(&mut self.queue));
                debug_assert!(!gap.has_memory(), "somebody has used what was taken out");
                mem::forget(gap);
            }
            state.after_round()
        })
    }

    /// Those that were polled go behind those that were not.
    #[cold]
    fn begin_with_unpolled(&mut self, kept: usize) {
        self.queue.put_behind(kept);
        self.queue.give_back();
    }
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
            Poll::Pending => {
                registry.peek(|state| {
                    state.queue.push_front(task);
                    state.queue.give_back();
                });
                return AfterTurn::Wait;
            }
            Poll::Ready(how) => finish(registry, runner, task, how, ended_set),
        }
    }
    AfterTurn::PollAgain
}

/// A turn of a batch on the fast path with one task.
#[inline]
pub(super) fn poll_single(registry: &Registry, cx: &mut Context<'_>) -> bool {
    // Its place stays, so that it goes back without a look at the others.
    let Some(mut task) = registry.peek(|state| state.queue.lend_first()).flatten() else {
        return end_turn(registry, None, cx, false, &mut EndedSet::default());
    };
    match poll_plain(&mut task, cx) {
        Poll::Pending => one_pending(registry, cx, |state| {
            task.as_mut().mark_polled();
            state.queue.put_first(task);
        }),
        Poll::Ready(how) => {
            registry.peek(|state| state.queue.close_up(1, 1));
            one_ended(registry, cx, task, how)
        }
    }
}

impl ScopeState {
    #[inline]
    fn after_round(&self) -> AfterTurn {
        match self.is_done() {
            true => AfterTurn::Done,
            false => self.after_turn(self.round > 0 || (self.long_round && !self.queue.is_empty())),
        }
    }
}
