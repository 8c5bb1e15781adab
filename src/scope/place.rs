//! The way of a task from the call of `defer` to where its scope collects, where that is not the plain one.

use std::{panic::Location, sync::Arc};

use super::error::HOW_TO_HAVE_A_SCOPE;
use crate::{
    batch::{Batch, Blocking},
    report::Key,
    runner::{Inbox, Registry},
    task::{BlockingShared, BoxedTask, TaskCell, TaskResult},
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

pub(super) fn blocking_task<F, R>(
    name: Option<&'static str>,
    work: F,
    location: &'static Location<'static>,
) -> BoxedTask
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskResult,
{
    let name = name.unwrap_or_else(std::any::type_name::<F>);
    let shared = Arc::new(BlockingShared::default());
    let work = Blocking::new(move || work().into_end(), shared.clone());
    let mut task = TaskCell::boxed(work, name, location);
    task.as_mut().make_options().blocking = Some(shared);
    task
}

#[cold]
#[track_caller]
pub(super) fn outside_scope(function: &str) -> ! {
    panic!(
        "`{function}` called outside a scope, so nothing would run the task. {HOW_TO_HAVE_A_SCOPE} Where there may be no \
         request, in a destructor say, use `try_defer`."
    );
}
