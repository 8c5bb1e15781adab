//! The after phase: the tasks of one scope, as one future.

use std::{fmt, mem::ManuallyDrop, time::Duration};

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
    /// Without a state when all is done. What is moved from scope to spawner to the runtime's cell is this: two words. Our
    /// `Drop` leaves nothing in it for the compiler to drop.
    pub(super) registry: ManuallyDrop<Registry>,
}

impl Batch {
    /// With the tasks of a scope that was handed over.
    #[inline]
    pub(crate) fn of(state: Box<ScopeState>) -> Batch {
        Batch {
            registry: ManuallyDrop::new(Registry::of(state)),
        }
    }

    /// Nothing is to be run.
    #[inline]
    pub(super) fn done() -> Batch {
        Batch {
            registry: ManuallyDrop::new(Registry::global()),
        }
    }

    /// Without the care of this type's destructor: for what puts it somewhere at once.
    #[inline]
    pub(super) fn into_state(self) -> Option<Box<ScopeState>> {
        self.registry.close()
    }

    /// Whether there is nothing to hand over.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        !self.registry.is_used()
    }

    /// How many tasks a scope asks room for before its answer, if its Runner makes it wait.
    #[inline]
    pub(crate) fn room(&self) -> Option<Room> {
        let limited = |state: &mut ScopeState| {
            let limited = state.slow_path && state.runner.get().limit.is_some();
            limited.then(|| state.runner.clone())
        };
        let runner = self.registry.peek(limited)??;
        runner.get().room(self.len())
    }

    /// As dropping it, without a report of what is lost: for who has kept it on purpose, and not run it.
    pub(crate) fn drop_unreported(mut self) {
        if let Some(state) = self.registry.state_mut() {
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
        if !self.is_done() {
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
        let len = self.registry.peek(|state| {
            let joining = state.inbox().map_or(0, |inbox| inbox.len());
            // What the destructors of shed tasks have deferred waits for the next turn.
            state.unfinished() + state.backlog.len() + state.spawned().len() + joining
        });
        len.unwrap_or_default()
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
        self.tasks(TaskCell::name).into_iter()
    }

    /// What has not ended, for a report, by its place in the order of the request.
    pub(crate) fn unfinished(&self) -> Vec<(u64, Unfinished)> {
        let age = self.age();
        self.tasks(|task| (task.sequence(), Unfinished::of(task.label(), age)))
    }

    /// A recorder was dropped, and did not run it: as one that was held.
    pub(crate) fn take_back(&mut self) {
        if let Some(state) = self.registry.state_mut() {
            state.released = false;
        }
    }

    fn age(&self) -> Duration {
        let age = self.registry.peek(|state| {
            let account = &state.runner.get().account;
            Some(account.age(state.roster_key?))
        });
        age.flatten().unwrap_or_default()
    }

    /// Whose account it is on, unless it is done.
    pub(crate) fn runner(&self) -> Option<Runner> {
        self.registry.peek(|state| Runner::of(&state.runner))
    }

    /// What `what` says of each task that has not ended.
    fn tasks<R>(&self, what: impl Fn(&TaskCell<dyn PollTask>) -> R) -> Vec<R> {
        let told = self.registry.peek(|state| {
            let spawned = state.spawned().iter().flat_map(|single| single.tasks());
            let mut tasks: Vec<_> = state.tasks().chain(spawned).collect();
            if !state.started {
                tasks.sort_by_key(|task| task.sequence());
            }
            tasks.into_iter().map(what).collect()
        });
        told.unwrap_or_default()
    }
}

impl Drop for Batch {
    #[inline]
    fn drop(&mut self) {
        if let Some(state) = self.registry.close() {
            close::dropped(state);
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `len` would lock the inbox; `Debug` does not.
        let unfinished = self.registry.peek(|state| state.unfinished());
        f.debug_struct("Batch")
            .field("unfinished", &unfinished.unwrap_or_default())
            .finish_non_exhaustive()
    }
}
