//! Turns of a batch whose tasks have wakers of their own: those are polled that were woken.

use std::task::{Context, Poll, Waker};

use super::{
    finish::finish,
    poll::poll,
    turn_end::{AfterTurn, one_ended, one_pending},
};
use crate::{
    account::EndedSet,
    runner::{Registry, RunnerRef},
    task::ReadySet,
};

/// A turn of a batch on the fast path whose tasks have wakers of their own, if just one was woken, as nearly always;
/// returns whether nothing is left to run.
#[inline]
pub(super) fn poll_woken(registry: &Registry, cx: &mut Context<'_>) -> Option<bool> {
    let waker = cx.waker();
    let found = registry.peek(|state| {
        let mut ready = state
            .ready
            .take_if(|ready| ready.bits().is_watched_by(waker))?;
        match ready.only() {
            Some(slot) => Some((ready, slot)),
            None => {
                state.ready = Some(ready);
                None
            }
        }
    });
    let (mut ready, slot) = found.flatten()?;
    // No way out of here unwinds, so that the others go back.
    if let Some((task, waker)) = ready.polled(slot) {
        let own = &mut Context::from_waker(waker);
        if let Poll::Ready(how) = poll(registry, None, task, own) {
            if let Some(task) = ready.leave(slot) {
                registry.peek(|state| state.ready = Some(ready));
                return Some(one_ended(registry, cx, task, how));
            }
        }
    }
    Some(one_pending(registry, cx, |state| state.ready = Some(ready)))
}

/// Polls the tasks whose wakers were woken, or gives each a waker.
pub(super) fn poll_all_woken(
    registry: &Registry,
    runner: Option<&RunnerRef>,
    cx: &mut Context<'_>,
    ended_set: &mut EndedSet,
) -> AfterTurn {
    let mut turn = ReadyGuard::begin(registry, cx.waker());
    let Some(ready) = &mut turn.ready else {
        return AfterTurn::Wait;
    };
    let mut list = ready.begin_turn();
    while let Some(slot) = ready.next(&mut list) {
        // Nothing where it has ended.
        let Some((task, waker)) = ready.polled(slot) else {
            continue;
        };
        let own = &mut Context::from_waker(waker);
        if let Poll::Ready(how) = poll(registry, runner, task, own) {
            if let Some(task) = ready.leave(slot) {
                finish(registry, runner, task, how, ended_set);
            }
        }
    }
    turn.end(list.more)
}

/// The tasks of a batch with wakers of their own, taken out of it for a turn: so they are polled where they are, and nobody
/// moves them. They go back also on unwinding.
struct ReadyGuard<'a> {
    registry: &'a Registry,
    ready: Option<Box<ReadySet>>,
}

impl ReadyGuard<'_> {
    fn begin<'a>(registry: &'a Registry, waker: &Waker) -> ReadyGuard<'a> {
        let ready = registry.peek(|state| state.ready.take()).flatten();
        let mut turn = ReadyGuard { registry, ready };
        match &mut turn.ready {
            Some(ready) if ready.bits().is_watched_by(waker) => {}
            Some(ready) => ready.bits().watch(waker),
            None => turn.give_wakers(waker.clone()),
        }
        turn
    }

    /// From now on each task of the batch has a waker of its own.
    #[cold]
    fn give_wakers(&mut self, waker: Waker) {
        let tasks = self.registry.peek(|state| {
            state.long_round = false;
            std::mem::take(&mut state.queue)
        });
        self.ready = Some(Box::new(ReadySet::new(tasks.unwrap_or_default(), waker)));
    }

    fn end(mut self, more: bool) -> AfterTurn {
        let again = self.registry.peek(|state| {
            state.ready = self.ready.take();
            state.after_turn(more)
        });
        again.unwrap_or(AfterTurn::Wait)
    }
}

impl Drop for ReadyGuard<'_> {
    fn drop(&mut self) {
        if let Some(ready) = self.ready.take() {
            self.registry.peek(|state| state.ready = Some(ready));
        }
    }
}
