//! The way of a task from the call of `defer` to where its scope collects, where that is not the plain one.

use std::{panic::Location, sync::Arc};

use super::error::HOW_TO_HAVE_A_SCOPE;
use crate::{
    account::discard,
    batch::{Batch, Blocking},
    report::Key,
    runner::{Inbox, Registry},
    task::{Link, Node, Slot, TaskResult},
};

/// As `Registry::collect`, for tasks with a key or with rare things, and for scopes that need more than the plain path.
#[cold]
pub(super) fn place(registry: &Registry, key: Option<Key>, mut node: Link) {
    let runner = registry.with_active(|active| active.runner.clone());
    let outcome = registry.outcome();
    node.as_mut().show_key(key.as_ref(), runner.get().special);
    let node = runner.get().prepare(node, outcome);
    if let Some(inbox) = registry.inbox() {
        return store(&inbox, key, node, registry.is_attached());
    }
    let replaced = registry.with_active(|active| {
        active.special |= node.rare().is_some();
        match key {
            None => {
                active.collect(node);
                None
            }
            Some(key) => active.collect_keyed(key, node),
        }
    });
    if let Some(replaced) = replaced {
        discard(&runner.get().observers, outcome, replaced);
    }
}

/// Gives a task that is prepared to the inbox of its scope; when the batch of that is over, it is handed over at once.
pub(super) fn store(inbox: &Inbox, key: Option<Key>, node: Link, attached: bool) {
    if let Some(late) = inbox.store(key, node, attached) {
        Batch::late(late).release();
    }
}

pub(super) fn blocking_node<F, R>(
    name: Option<&'static str>,
    work: F,
    location: &'static Location<'static>,
) -> Link
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskResult,
{
    let name = name.unwrap_or_else(std::any::type_name::<F>);
    let slot = Arc::new(Slot::default());
    let work = Blocking::new(move || work().into_end(), slot.clone());
    let mut node = Node::boxed(work, name, location);
    node.as_mut().make_rare().blocking = Some(slot);
    node
}

#[cold]
#[track_caller]
pub(super) fn outside_scope(function: &str) -> ! {
    panic!(
        "`{function}` called outside a scope, so nothing would run the task. {HOW_TO_HAVE_A_SCOPE} Where there may be no \
         request, in a destructor say, use `try_defer`."
    );
}
