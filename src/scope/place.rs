//! The way of a task from the call of `defer` to where its scope collects, where that is not the plain one.

use crate::{
    batch::Batch,
    report::Key,
    runner::{Inbox, Registry},
    task::BoxedTask,
};

/// As `Registry::collect`, for tasks with a key or with options, and for scopes that need more than the fast path.
#[cold]
pub(super) fn place(registry: &Registry, key: Option<Key>, mut task: BoxedTask) {
    // Hooks and observers are the user's code: the state is in its place while they run.
    let prepares = registry.lend_runner();
    task.as_mut().show_key(key.as_ref(), prepares.is_some());
    if let Some((runner, outcome)) = prepares {
        task = runner.get().prepare(task, outcome);
        registry.take_back_runner(runner);
    }
    match registry.inbox() {
        Some(inbox) => store(&inbox, key, task, registry.is_attached()),
        None => registry.collect_prepared(key, task),
    }
}

/// Gives a task that is prepared to the inbox of its scope; when the batch of that is over, it is handed over at once.
pub(super) fn store(inbox: &Inbox, key: Option<Key>, task: BoxedTask, attached: bool) {
    if let Some(late) = inbox.store(key, task, attached) {
        Batch::late(late).release();
    }
}
