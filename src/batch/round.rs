//! The polls of a turn of tasks that have no wakers of their own.

use std::{
    mem,
    panic::Location,
    task::{Context, Poll},
};

use super::{
    finish::{drop_completed, finish},
    poll::{poll, poll_plain, poll_watched},
    turn_end::{AfterTurn, end_turn, one_ended, one_pending},
};
use crate::{
    account::EndedSet,
    report::{self, Label, Payload},
    runner::{Registry, RunnerRef, ScopeState},
    task::{BoxedTask, End, MOST_POLLS, Queue, Step, Walk},
};

/// A round on the fast path.
///
/// The queue is out of the state meanwhile, and the state in its place: what runs may defer, and nothing that it may call
/// looks at the queue. One guard against panics is around all polls; after a panic they go on behind the task that it was.
struct PlainRound<'a> {
    registry: &'a Registry,
    queue: Queue,
    walk: Walk,
    /// The first task is to be polled when the walk is over.
    first_is_left: bool,
    /// The name and the place of the one whose destructor runs.
    dropping: Option<(&'static str, &'static Location<'static>)>,
}

/// Why the polls of a round have stopped at a task.
enum Stop {
    HasOptions,
    Ended(End),
}

/// Polls the next tasks of the queue, on the fast path; `first_last`: the first one after the others, behind which it goes
/// then.
#[inline]
pub(super) fn plain_round(
    registry: &Registry,
    cx: &mut Context<'_>,
    polls: usize,
    first_last: bool,
    ended_set: &mut EndedSet,
) -> AfterTurn {
    let queue = registry.peek(|state| mem::take(&mut state.queue));
    {
        // Dropped where it is: to move what was just written in pieces would wait for the store buffer.
        let mut round = PlainRound {
            registry,
            queue: queue.unwrap_or_default(),
            walk: Walk::new(first_last.into(), polls - usize::from(first_last)),
            first_is_left: first_last,
            dropping: None,
        };
        loop {
            match report::catch(|| round.poll_tasks(cx, ended_set)) {
                Ok(None) if mem::take(&mut round.first_is_left) => round.walk = Walk::new(0, 1),
                Ok(None) => break,
                Ok(Some(stop)) => round.go_past(stop, cx, ended_set),
                Err(payload) => round.has_panicked(payload, ended_set),
            }
        }
    }
    let again = registry.peek(|state| state.after_round());
    again.unwrap_or(AfterTurn::Wait)
}

impl PlainRound<'_> {
    /// Polls one after the other, until the end of the round, or until a task stops that.
    #[inline]
    fn poll_tasks(&mut self, cx: &mut Context<'_>, ended_set: &mut EndedSet) -> Option<Stop> {
        let PlainRound {
            registry,
            queue,
            walk,
            dropping,
            first_is_left: _,
        } = self;
        let stop = queue.walk(walk, |mut task| {
            count_dropped(registry, dropping);
            if task.options().is_some() {
                return Step::Stop(Stop::HasOptions);
            }
            match task.as_mut().poll_task(cx) {
                Poll::Pending => {
                    task.mark_polled();
                    Step::Keep
                }
                Poll::Ready(end @ End::Completed) => {
                    // It holds nothing, and forgetting it spares the fast path its destructor.
                    mem::forget(end);
                    *dropping = Some((task.name(), task.location()));
                    ended_set.push(task.sequence());
                    Step::Drop
                }
                Poll::Ready(end) => Step::Stop(Stop::Ended(end)),
            }
        });
        count_dropped(registry, dropping);
        stop
    }

    #[cold]
    fn go_past(&mut self, stop: Stop, cx: &mut Context<'_>, ended_set: &mut EndedSet) {
        let Some(mut task) = self.queue.take_at(&self.walk) else {
            return;
        };
        let end = match stop {
            Stop::Ended(end) => Some(end),
            Stop::HasOptions => poll_watched(self.registry, None, &mut task, cx),
        };
        match end {
            Some(end) => finish(self.registry, None, task, end, ended_set),
            None => {
                task.as_mut().mark_polled();
                self.queue.put_at(&mut self.walk, task);
            }
        }
    }

    #[cold]
    fn has_panicked(&mut self, payload: Payload, ended_set: &mut EndedSet) {
        let Some((name, location)) = self.dropping.take() else {
            if let Some(task) = self.queue.take_at(&self.walk) {
                finish(self.registry, None, task, End::Panicked(payload), ended_set);
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

impl Drop for PlainRound<'_> {
    /// Puts back what has not ended.
    #[inline]
    fn drop(&mut self) {
        self.queue.put_behind(&self.walk);
        let queue = mem::take(&mut self.queue);
        self.registry.peek(|state| {
            let gap = mem::replace(&mut state.queue, queue);
            debug_assert!(gap.is_empty(), "somebody has used what was taken out");
            mem::forget(gap);
        });
    }
}

/// The destructor of the one before has returned: from now on it counts, also for a task that asks.
#[inline]
fn count_dropped(
    registry: &Registry,
    dropping: &mut Option<(&'static str, &'static Location<'static>)>,
) {
    if dropping.take().is_some() {
        registry.peek(|state| state.few.add_completed(true));
    }
}

/// Polls the next tasks of the queue, on the slow path.
///
/// The state is taken out once for each task: to put away what has been polled and to get the next.
pub(super) fn round(
    registry: &Registry,
    runner: &RunnerRef,
    cx: &mut Context<'_>,
    mut polls: usize,
    ended_set: &mut EndedSet,
) -> AfterTurn {
    let mut again = AfterTurn::Wait;
    let told = runner.get().hears_of_ends();
    let mut next = registry.peek(|state| state.queue.pop_front()).flatten();
    while let Some(mut task) = next {
        polls -= 1;
        let plain = task.options().is_none();
        next = match poll(registry, Some(runner), &mut task, cx) {
            None => registry.peek(|state| {
                task.as_mut().mark_polled();
                state.queue.push_back(task);
                state.next_of_round(polls, &mut again)
            }),
            Some(end) if plain && !told && matches!(end, End::Completed) => {
                let sequence = task.sequence();
                let completed = drop_completed(registry, task);
                registry.peek(|state| {
                    state.few.add_completed(completed);
                    let next = state.next_of_round(polls, &mut again);
                    // The roster is told, unless this was all: then the whole entry is given up.
                    if next.is_some() || !matches!(again, AfterTurn::Done) {
                        ended_set.push(sequence);
                    }
                    next
                })
            }
            Some(end) => {
                finish(registry, Some(runner), task, end, ended_set);
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

/// A turn of a batch on the fast path with one task.
#[inline]
pub(super) fn poll_single(registry: &Registry, cx: &mut Context<'_>) -> bool {
    let Some(mut task) = registry.peek(|state| state.queue.pop_front()).flatten() else {
        return end_turn(registry, None, cx, false, &mut EndedSet::default());
    };
    match poll_plain(&mut task, cx) {
        Some(end) => one_ended(registry, cx, task, end),
        None => one_pending(registry, cx, |state| {
            task.as_mut().mark_polled();
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
        *again = self.after_round();
        None
    }

    #[inline]
    fn after_round(&self) -> AfterTurn {
        match self.is_done() {
            true => AfterTurn::Done,
            false => self.after_turn(self.round > 0 || (self.long_round && !self.queue.is_empty())),
        }
    }
}
