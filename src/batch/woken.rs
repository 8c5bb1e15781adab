//! Turns of a batch whose tasks have wakers of their own: those are polled that were woken.

use std::task::{Context, Waker};

use super::{
    finish::finish,
    poll::poll,
    turn_end::{Again, one_ended, one_pending},
};
use crate::{account::Finished, runner::Registry, task::Ready};

/// A turn of a plain batch whose tasks have wakers of their own, if just one was woken, as nearly always; returns whether
/// nothing is left to run.
#[inline]
pub(super) fn one(registry: &Registry, cx: &mut Context<'_>) -> Option<bool> {
    let waker = cx.waker();
    let found = registry.peek(|active| {
        let mut ready = active
            .ready
            .take_if(|ready| ready.marks().is_watched_by(waker))?;
        match ready.only() {
            Some(place) => Some((ready, place)),
            None => {
                active.ready = Some(ready);
                None
            }
        }
    });
    let (mut ready, place) = found.flatten()?;
    // No way out of here unwinds, so that the others go back.
    let end = match ready.polled(place) {
        Some((node, waker)) => poll(registry, node, &mut Context::from_waker(waker)),
        None => None,
    };
    let left = end.and_then(|end| Some((ready.leave(place)?, end)));
    Some(match left {
        Some((node, end)) => {
            registry.peek(|active| active.ready = Some(ready));
            one_ended(registry, cx, node, end)
        }
        None => one_pending(registry, cx, |active| active.ready = Some(ready)),
    })
}

/// Polls the tasks whose wakers were woken, or gives each a waker.
pub(super) fn several(registry: &Registry, cx: &mut Context<'_>, finished: &mut Finished) -> Again {
    let mut turn = ReadyTurn::begin(registry, cx.waker());
    let Some(ready) = &mut turn.ready else {
        return Again::No;
    };
    let mut polls = ready.begin_turn();
    while let Some(place) = ready.next(&mut polls) {
        // Nothing where it has ended.
        let Some((node, waker)) = ready.polled(place) else {
            continue;
        };
        if let Some(end) = poll(registry, node, &mut Context::from_waker(waker)) {
            if let Some(node) = ready.leave(place) {
                finish(registry, node, end, finished);
            }
        }
    }
    turn.end(polls.more)
}

/// The tasks of a batch with wakers of their own, taken out of it for a turn: so they are polled where they are, and nobody
/// moves them. They go back also on unwinding.
struct ReadyTurn<'a> {
    registry: &'a Registry,
    ready: Option<Box<Ready>>,
}

impl ReadyTurn<'_> {
    fn begin<'a>(registry: &'a Registry, waker: &Waker) -> ReadyTurn<'a> {
        let ready = registry.peek(|active| active.ready.take()).flatten();
        let mut turn = ReadyTurn { registry, ready };
        match &mut turn.ready {
            Some(ready) if ready.marks().is_watched_by(waker) => {}
            Some(ready) => ready.marks().watch(waker),
            None => turn.give_wakers(waker.clone()),
        }
        turn
    }

    /// From now on each task of the batch has a waker of its own.
    #[cold]
    fn give_wakers(&mut self, waker: Waker) {
        let tasks = self.registry.peek(|active| {
            active.split = false;
            std::mem::take(&mut active.queue)
        });
        self.ready = Some(Box::new(Ready::new(tasks.unwrap_or_default(), waker)));
    }

    fn end(mut self, more: bool) -> Again {
        let again = self.registry.peek(|active| {
            active.ready = self.ready.take();
            active.again(more)
        });
        again.unwrap_or(Again::No)
    }
}

impl Drop for ReadyTurn<'_> {
    fn drop(&mut self) {
        if let Some(ready) = self.ready.take() {
            self.registry.peek(|active| active.ready = Some(ready));
        }
    }
}
