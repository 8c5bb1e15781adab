//! Room that a scope waits for before its answer, on a Runner that pushes back.

use super::{
    core::Core,
    current::{self, outcome},
    registry::Registry,
};
use crate::limit::Room;

impl Core {
    /// Room for the tasks of a scope that is about to give its answer, if this Runner makes it wait for that.
    #[cold]
    pub(crate) fn room(&self, tasks: usize) -> Option<Room> {
        let limit = self.limit.as_ref()?;
        // In a deferred task a scope would wait for what its own parent holds.
        let in_a_task = outcome().is_some() || current::in_a_task();
        (limit.pushes_back() && !in_a_task).then(|| limit.room(tasks))
    }
}

impl Registry {
    /// Room for what was collected so far and has none yet, if the Runner makes its scopes wait for it before their answer.
    #[inline]
    pub(crate) fn room(&self) -> Option<Room> {
        let (tasks, runner) = self
            .peek(|state| {
                if !state.slow_path {
                    return None;
                }
                let tasks = match state.inbox() {
                    Some(inbox) => inbox.len(),
                    None => state.backlog.len(),
                };
                let place = state.extras().and_then(|extras| extras.place.as_ref());
                let had = place.map_or(0, |place| place.tasks);
                Some((tasks.saturating_sub(had), state.runner.clone()))
            })
            .flatten()?;
        match tasks {
            0 => None,
            tasks => runner.get().room(tasks),
        }
    }
}
