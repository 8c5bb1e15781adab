//! The way of a task from the call of `defer` to where its scope collects, where that is not the plain one.

use crate::{
    batch::Batch,
    report::Key,
    runner::{Collected, Inbox, Registry},
    task::BoxedTask,
};

/// As `Registry::collect`, for tasks with a key or with options, and for scopes that need more than the fast path.
///
/// Hooks and observers are the user's code: the state is in its place while they run.
#[cold]
pub(super) fn place(registry: &Registry, key: Option<Key>, task: BoxedTask) {
    match key {
        Some(key) => place_keyed(registry, key, task),
        None => place_unkeyed(registry, task),
    }
}

fn place_unkeyed(registry: &Registry, task: BoxedTask) {
    let (inbox, task) = match registry.collect_or_lend(task) {
        Collected::Done => return,
        Collected::Shared(inbox, task) => (inbox, task),
        Collected::Lent(runner, outcome, task) => {
            let task = runner.get().prepare(task, outcome);
            registry.take_back_runner(runner);
            match registry.collect_prepared(task) {
                Ok(()) => return,
                Err(shared) => shared,
            }
        }
    };
    store(&inbox, None, task, registry.is_attached());
}

fn place_keyed(registry: &Registry, key: Key, mut task: BoxedTask) {
    let prepares = registry.lend_runner();
    task.as_mut().show_key(Some(&key), prepares.is_some());
    if let Some((runner, outcome)) = prepares {
        task = runner.get().prepare(task, outcome);
        registry.take_back_runner(runner);
    }
    if let Err((inbox, key, task)) = registry.collect_keyed(key, task) {
        store(&inbox, Some(key), task, registry.is_attached());
    }
}

/// Gives a task that is prepared to the inbox of its scope; when the batch of that is over, it is handed over at once.
pub(super) fn store(inbox: &Inbox, key: Option<Key>, task: BoxedTask, attached: bool) {
    if let Some(late) = inbox.store(key, task, attached) {
        Batch::late(late).release();
    }
}
