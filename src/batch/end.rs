//! The end of a task that does not run, or not to its end: dropped, counted, told.

use crate::{
    account::EndedTask,
    report::{self, Loss},
    runner::{Core, Registry},
    task::{BoxedTask, End, Queue},
};

/// Ends a task that does not run, or not to its end.
pub(crate) fn end_task(registry: &Registry, core: &Core, task: BoxedTask, end: End) {
    end_in_place(registry, core, task, end);
}

/// Ends a task that has completed: made for this one end, nothing of it goes through memory.
pub(super) fn complete_task(registry: &Registry, core: &Core, task: BoxedTask) {
    end_in_place(registry, core, task, End::Completed);
}

#[inline(always)]
fn end_in_place(registry: &Registry, core: &Core, task: BoxedTask, end: End) {
    let ended = EndedTask::of(task, end);
    let outcome = registry.peek(|state| {
        if ended.has_completed() {
            state.few.add_completed(true);
        } else if ended.was_discarded() {
            state.count_discarded();
        } else {
            ended.count(state.other_counts());
        }
        state.outcome
    });
    ended.tell(&core.observers, outcome.flatten());
}

/// Gathers losses, so that they are reported together, and drops what is lost.
pub(crate) fn lose_tasks(registry: &Registry, core: &Core, why: Loss, mut tasks: Queue) {
    let runner = registry.runner();
    // A closure that has returned, and whose batch has not heard of it, is not lost.
    let returned = tasks.extract(|task| {
        let shared = task.options().and_then(|options| options.blocking.as_ref());
        shared.is_some_and(|shared| shared.has_ended())
    });
    for mut task in returned.into_iter().flatten() {
        if let Some(times) = task
            .as_mut()
            .options_mut()
            .and_then(|options| options.times.as_mut())
        {
            // Its last poll was when it began.
            times.ran = times.started.map_or(times.ran, |started| started.elapsed());
        }
        let shared = task.options().and_then(|options| options.blocking.clone());
        let end = shared.and_then(|shared| shared.take_end());
        let overdue = task.options().is_some_and(|options| options.overdue);
        let end = match end {
            // It was reported at its limit: how it ends is told to nobody.
            Some(late) if overdue => {
                report::drop_silently(late);
                End::Overdue
            }
            end => end.unwrap_or(End::Lost(why)),
        };
        if let End::Lost(why) = end {
            // Its pool has dropped it.
            let lost = std::iter::once(task.label());
            core.account.lose(&runner, why, lost);
        }
        end_task(registry, core, task, end);
    }
    if tasks.is_empty() {
        return;
    }
    let unreported = registry.peek(|state| state.extras().is_some_and(|extras| extras.unreported));
    if unreported != Some(true) || why == Loss::Shed {
        let lost = tasks.iter().map(|task| task.label());
        core.account.lose(&runner, why, lost);
    }
    for task in tasks {
        let end = match why {
            Loss::Shed => End::Shed,
            why => End::Lost(why),
        };
        end_task(registry, core, task, end);
    }
}
