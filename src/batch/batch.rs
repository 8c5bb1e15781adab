//! The after phase: the tasks of one scope, as one future.

use std::{fmt, mem, time::Duration};

use super::close;
use crate::{
    account::Unfinished,
    limit::Room,
    runner::{Registry, Runner, ScopeState},
    task::{PollTask, TaskCell},
};

/// The tasks of one request, as one future: `Send + Unpin + 'static`.
///
/// A [`Spawner`](crate::Spawner) gets it to run, and a held scope gives it to its caller, who awaits it or
/// [releases](Batch::release) it. It resolves when all its tasks have ended, and all that these have deferred.
///
/// Its first poll starts nothing: it wakes itself and returns, so that whatever stands behind it in the runtime's queue
/// comes first; as a rule that is the connection that writes the response. After that it yields to the runtime after every
/// 32 polls, and each round starts one task further on than the last.
///
/// ```
/// # futures::executor::block_on(async {
/// // A spawner of your own gets one batch for each request.
/// let spawner = after::spawner::from_fn(|batch: after::Batch| {
///     println!("{} tasks", batch.len());
///     std::thread::spawn(|| futures::executor::block_on(batch));
/// });
/// let runner = after::Runner::new(spawner);
/// runner.scope(async { after::defer(async {}) }).await;
/// # runner.drain().await;
/// # });
/// ```
///
/// # Cancel safety
///
/// **Not** cancel safe: dropping it loses its unfinished tasks. They are dropped, with their scope current, counted as
/// lost and reported. What their destructors defer is lost as well. This never panics.
///
/// # Leaking it
///
/// A batch that is leaked ([`std::mem::forget`], a cycle of `Arc`s), or kept and never polled again, makes no
/// progress, and its unfinished tasks are never dropped. They stay pending, so [`Runner::drain`] never returns, and a shutdown
/// waits up to its limit and names them. Under [`max_running`](crate::RunnerBuilder::max_running) those of them that
/// have started keep their permits forever.
#[must_use = "dropping a batch loses its tasks: await it or `release` it"]
pub struct Batch {
    /// `None` when all is done. One pointer: what is moved from scope to spawner to the runtime's cell is this.
    pub(super) state: Option<Box<ScopeState>>,
}

impl Batch {
    /// With the tasks of a scope that was handed over.
    #[inline]
    pub(crate) fn of(state: Box<ScopeState>) -> Batch {
        Batch { state: Some(state) }
    }

    /// Without the care of this type's destructor: for what puts it somewhere at once.
    #[inline]
    pub(super) fn into_state(mut self) -> Option<Box<ScopeState>> {
        self.state.take()
    }

    /// Whether there is nothing to hand over.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.state.is_none()
    }

    /// How many tasks a scope asks room for before its answer, if its Runner makes it wait.
    #[inline]
    pub(crate) fn room(&self) -> Option<Room> {
        let state = self.state.as_ref()?;
        if !state.slow_path {
            return None;
        }
        let core = state.runner.get();
        match core.limit {
            None => None,
            Some(_) => core.room(self.len()),
        }
    }

    /// As dropping it, without a report of what is lost: for who has kept it on purpose, and not run it.
    pub(crate) fn drop_unreported(mut self) {
        if let Some(state) = &mut self.state {
            state.extras_mut().unreported = true;
            for single in state.take_spawned() {
                Batch::of(single).drop_unreported();
            }
        }
    }

    /// Gives it to the Runner's spawner, which runs its tasks. An empty one is dropped.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async { after::defer(async {}) }).held().await;
    /// batch.release();
    /// # });
    /// ```
    #[inline]
    pub fn release(self) {
        // Apart, so that what is inlined into every request's poll is this one test.
        if self.state.is_some() {
            self.spawn();
        }
    }

    /// How many tasks have not ended.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async { after::defer(async {}) }).held().await;
    /// assert_eq!(batch.len(), 1);
    /// batch.await;
    /// # });
    /// ```
    pub fn len(&self) -> usize {
        self.state.as_ref().map_or(0, |state| {
            let joining = state.inbox().map_or(0, |inbox| inbox.len());
            // What the destructors of shed tasks have deferred waits for the next turn.
            state.unfinished() + state.backlog.len() + state.spawned().len() + joining
        })
    }

    /// Whether all its tasks have ended, or there were none.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async {}).held().await;
    /// assert!(batch.is_empty());
    /// # drop(batch);
    /// # });
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the tasks that have not ended; before the first poll in the order of deferral.
    ///
    /// Tasks that a [`Handle`](crate::Handle) deferred after the end of the request are not listed before the next poll.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let request = async { after::task("audit").defer(async {}) };
    /// let ((), batch) = after::scope(request).held().await;
    /// assert!(batch.names().eq(["audit"]));
    /// batch.await;
    /// # });
    /// ```
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.tasks().into_iter().map(|task| task.name())
    }

    /// What has not ended, for a report, by its place in the order of the request.
    pub(crate) fn unfinished(&self) -> Vec<(u64, Unfinished)> {
        let age = self.age();
        let tasks = self.tasks().into_iter();
        let unfinished = tasks.map(|task| (task.sequence(), Unfinished::of(task.label(), age)));
        unfinished.collect()
    }

    /// A recorder was dropped, and did not run it: as one that was held.
    pub(crate) fn take_back(&mut self) {
        if let Some(state) = &mut self.state {
            state.released = false;
        }
    }

    fn age(&self) -> Duration {
        let age = self.state.as_ref().and_then(|state| {
            let account = &state.runner.get().account;
            Some(account.age(state.roster_key?))
        });
        age.unwrap_or_default()
    }

    /// Whose account it is on, unless it is done.
    pub(crate) fn runner(&self) -> Option<Runner> {
        self.state.as_ref().map(|state| Runner::of(&state.runner))
    }

    fn tasks(&self) -> Vec<&TaskCell<dyn PollTask>> {
        let mut tasks: Vec<_> = self.state.iter().flat_map(|state| state.tasks()).collect();
        for single in self.state.iter().flat_map(|state| state.spawned()) {
            tasks.extend(single.tasks());
        }
        if self.state.as_ref().is_some_and(|state| !state.started) {
            tasks.sort_by_key(|task| task.sequence());
        }
        tasks
    }
}

/// What a batch holds, in a registry for the code that runs in its scope. It goes back into the batch, also on unwinding: a
/// waker that panics must not take the tasks along.
pub(super) struct TurnGuard<'a> {
    pub(super) registry: Registry,
    batch: &'a mut Batch,
}

impl<'a> TurnGuard<'a> {
    #[inline]
    pub(super) fn begin(batch: &'a mut Batch, state: Box<ScopeState>) -> TurnGuard<'a> {
        TurnGuard {
            registry: Registry::of(state),
            batch,
        }
    }

    /// What the destructor does, without the ways out that nobody takes: both places are empty.
    #[inline]
    pub(super) fn end(mut self) {
        self.give_back();
        mem::forget(self);
    }

    #[inline]
    fn give_back(&mut self) {
        let gap = mem::replace(&mut self.batch.state, self.registry.close());
        debug_assert!(gap.is_none(), "it was taken out at the start of the turn");
        mem::forget(gap);
    }
}

impl Drop for TurnGuard<'_> {
    #[cold]
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Drop for Batch {
    #[inline]
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            close::dropped(state);
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `len` would lock the inbox; `Debug` does not.
        let unfinished = self.state.as_ref().map_or(0, |state| state.unfinished());
        f.debug_struct("Batch")
            .field("unfinished", &unfinished)
            .finish_non_exhaustive()
    }
}
