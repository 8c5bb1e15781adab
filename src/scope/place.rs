//! The way of a task from the call of `defer` to where its scope collects, where that is not the plain one.

use crate::{
    batch::Batch,
    runner::{Collected, Inbox, Registry},
    task::BoxedTask,
};

/// As `Registry::collect`, for tasks with options, and for scopes that need more than the fast path.
///
/// Hooks and observers are the user's code: the state is in its place while they run.
#[cold]
pub(super) fn place(registry: &Registry, task: BoxedTask) {
    let mut collected = registry.collect_or_lend(task);
    if let Collected::Lent(runner, outcome, task) = collected {
        let task = runner.get().prepare(task, outcome);
        registry.take_back_runner(runner);
        collected = registry.collect_prepared(task);
    }
    if let Collected::Shared(inbox, task) = collected {
        store(&inbox, task, registry.is_attached());
    }
}

/// Gives a task that is prepared to the inbox of its scope; when the batch of that is over, it is handed over at once.
pub(super) fn store(inbox: &Inbox, task: BoxedTask, attached: bool) {
    if let Some(late) = inbox.store(task, attached) {
        Batch::late(late).release();
    }
}
