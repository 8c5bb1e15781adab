//! The permits of a batch under `max_running`: its tasks stand in the queue, get one each, and give it on.

use std::{mem, task::Waker};

use super::end::lose_tasks;
use crate::{
    account::EndedSet,
    report::{Loss, drop_waker},
    runner::{Core, Registry, ScopeState},
    task::{Order, Queue},
};

/// Puts tasks that are on the roster in the queue for permits, behind all others of the Runner; sheds those for which there
/// is no room.
///
/// Leaves it to the next turn to watch for the permits, which the caller sees to: a waker is the user's code, and must not
/// run while the tasks are taken out.
pub(crate) fn queue_for_permits(registry: &Registry, core: &Core, mut tasks: Queue) {
    let Some(limit) = &core.limit else {
        registry.peek(|state| state.queue_up(tasks));
        return;
    };
    let acquired = registry.peek(|state| {
        let one_by_one = state.order == Order::Sequential;
        let permits = state.extras_mut().permits.get_or_insert_default();
        permits.queued = true;
        let wanted = match one_by_one {
            false => tasks.len(),
            true => usize::from(permits.waiting.is_empty() && permits.running == 0),
        };
        let reserved = mem::take(&mut permits.reserved);
        let acquired = limit.acquire(&mut permits.waiter, tasks.len(), reserved, wanted);
        let shed = tasks.split_off(acquired.accepted);
        permits.waiting.append(tasks);
        state.take_granted(acquired.granted);
        (shed, acquired.wakers)
    });
    let Some((shed, wakers)) = acquired else {
        return;
    };
    wakers.wake();
    if shed.is_empty() {
        return;
    }
    let mut gone: EndedSet = shed.iter().map(|task| task.sequence()).collect();
    lose_tasks(registry, core, Loss::Shed, shed);
    registry.record(&mut gone, &Queue::default());
}

/// Moves tasks that have got a permit from the line to the queue.
pub(crate) fn take_permits(registry: &Registry, waker: &Waker) {
    let waiter = registry
        .peek(|state| {
            let permits = state.extras_if_any()?.permits.as_ref()?;
            permits.waiter.clone()
        })
        .flatten();
    let Some(waiter) = waiter else { return };
    // Before the look, so that a permit that comes after it wakes.
    waiter.watch(waker);
    registry.peek(|state| state.take_granted(waiter.take_granted()));
}

impl ScopeState {
    fn take_granted(&mut self, granted: usize) {
        let permits = self.extras_mut().permits.get_or_insert_default();
        permits.running += granted;
        let rest = permits.waiting.split_off(granted);
        let granted = mem::replace(&mut permits.waiting, rest);
        permits.waiting.give_back();
        self.queue_up(granted);
    }
}

/// A task with a permit has ended: the next in the queue gets it, or the next of this batch if it takes them one by one.
pub(crate) fn give_permit_on(registry: &Registry, core: &Core) {
    let Some(limit) = &core.limit else { return };
    let passed_on = registry
        .peek(|state| {
            let sequential = state.order == Order::Sequential;
            let permits = state.extras_if_any()?.permits.as_mut()?;
            match permits.waiting.pop_front() {
                Some(next) if sequential => {
                    state.queue.push_back(next);
                    Some(true)
                }
                next => {
                    if let Some(next) = next {
                        permits.waiting.push_front(next);
                    }
                    permits.running -= 1;
                    Some(false)
                }
            }
        })
        .flatten();
    let wakers = match passed_on {
        Some(true) => limit.pass_on(),
        Some(false) => limit.release(1),
        None => return,
    };
    wakers.wake();
}

/// Gives the permits that the batch has on to others, and takes what waits out of the line, back into the queue.
pub(super) fn give_up_permits(registry: &Registry, core: &Core) {
    let permits = registry.peek(ScopeState::take_permits).flatten();
    if let (Some(limit), Some(permits)) = (&core.limit, permits) {
        let (wakers, own) = limit.cancel(
            permits.waiter.as_deref(),
            permits.waiting.len(),
            permits.running,
        );
        registry.peek(|state| state.queue.extend(permits.waiting));
        drop_waker(own);
        wakers.wake();
    }
}
