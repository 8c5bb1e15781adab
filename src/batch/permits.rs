//! The permits of a batch under `max_running`: its tasks stand in line, get one each, and give it on.

use std::task::Waker;

use super::end::lose;
use crate::{
    account::Finished,
    report::{Loss, drop_waker},
    runner::{Active, Core, Registry},
    task::{Order, Queue},
};

/// Puts tasks that are on the roster in the line for permits, behind all others of the Runner; sheds those for which there
/// is no room.
///
/// Leaves it to the next turn to watch for the permits, which the caller sees to: a waker is the user's code, and must not
/// run while the tasks are taken out.
pub(crate) fn line_up(registry: &Registry, core: &Core, mut tasks: Queue) {
    let Some(limit) = &core.limit else {
        registry.peek(|active| active.queue_up(tasks));
        return;
    };
    let state = registry.peek(|active| {
        let one_by_one = active.order == Order::Sequential;
        let permits = active.uncommon().permits.get_or_insert_default();
        permits.entered = true;
        let wanted = match one_by_one {
            false => tasks.len(),
            true => usize::from(permits.waiting.is_empty() && permits.running == 0),
        };
        let promised = std::mem::take(&mut permits.promised);
        (permits.entry.clone(), promised, wanted)
    });
    let Some((entry, promised, wanted)) = state else {
        return;
    };
    let (accepted, wakers) = limit.enter(&entry, tasks.len(), promised, wanted);
    let mut position = 0;
    let shed = tasks.extract(|_| {
        position += 1;
        position > accepted
    });
    registry.peek(|active| {
        active
            .uncommon()
            .permits
            .get_or_insert_default()
            .waiting
            .append(tasks);
    });
    wakers.wake();
    if shed.is_empty() {
        return;
    }
    let mut gone: Finished = shed.iter().map(|node| node.sequence()).collect();
    lose(registry, core, Loss::Shed, shed);
    registry.record(&mut gone, &Queue::default());
}

/// Moves tasks that have got a permit from the line to the queue.
pub(crate) fn take_permits(registry: &Registry, waker: &Waker) {
    let entry = registry
        .peek(|active| {
            let permits = active.uncommon_if_any()?.permits.as_ref()?;
            Some(permits.entry.clone())
        })
        .flatten();
    let Some(entry) = entry else { return };
    // Before the look, so that a permit that comes after it wakes.
    entry.watch(waker);
    registry.peek(|active| {
        let uncommon = active.uncommon();
        let mut granted = Queue::default();
        if let Some(permits) = &mut uncommon.permits {
            for _ in 0..permits.entry.take_granted() {
                permits.running += 1;
                if let Some(node) = permits.waiting.pop_front() {
                    granted.push_back(node);
                }
            }
        }
        active.queue_up(granted);
    });
}

/// A task with a permit has ended: the next in line gets it, or the next of this batch if it takes them one by one.
pub(crate) fn give_permit_on(registry: &Registry, core: &Core) {
    let Some(limit) = &core.limit else { return };
    let passed_on = registry
        .peek(|active| {
            let sequential = active.order == Order::Sequential;
            let permits = active.uncommon_if_any()?.permits.as_mut()?;
            match permits.waiting.pop_front() {
                Some(next) if sequential => {
                    active.queue.push_back(next);
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
        Some(false) => limit.leave(1),
        None => return,
    };
    wakers.wake();
}

/// Gives the permits that the batch has on to others, and takes what waits out of the line, back into the queue.
pub(super) fn give_up_permits(registry: &Registry, core: &Core) {
    let permits = registry.peek(Active::take_permits).flatten();
    if let (Some(limit), Some(permits)) = (&core.limit, permits) {
        let (wakers, own) = limit.withdraw(&permits.entry, permits.waiting.len(), permits.running);
        registry.peek(|active| active.queue.append(permits.waiting));
        drop_waker(own);
        wakers.wake();
    }
}
