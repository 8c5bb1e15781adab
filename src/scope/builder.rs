//! How a task is to be run: its name, key, condition, time limit.

use std::{borrow::Cow, fmt, panic::Location, sync::Arc, time::Duration};

use super::{
    error::{TryDeferError, cannot_defer},
    handle::Handle,
    place::place,
};
use crate::{
    batch::Blocking,
    report::{Key, Outcome},
    runner::current,
    task::{BlockingShared, BoxedTask, Condition, IntoTask, TaskCell, TaskResult},
};

/// Names the next task and sets how it runs: `after::task("audit").defer(..)`.
///
/// The name stands in reports and in the [`ShutdownReport`](crate::ShutdownReport). It is `&'static str` because names
/// become labels of metrics, where a value per request would be a mistake: what differs by request, as a `format!` does, is a
/// [`key`](TaskBuilder::key). An unnamed task has its type's name.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::task("audit").defer(async { println!("GET /") });
/// # }));
/// ```
pub fn task(name: &'static str) -> TaskBuilder {
    TaskBuilder::new(name)
}

/// Name and settings of a task about to be deferred; made by [`task`](crate::task()) and [`Handle::task`].
///
/// Dropping it does nothing.
///
/// ```
/// # use std::time::Duration;
/// # async fn send() -> Result<(), std::io::Error> { Ok(()) }
/// # futures::executor::block_on(after::scope(async {
/// after::task("receipt")
///     .key("order:17") // once, however often the handler gets here
///     .on_success() // not for an order that has failed
///     .timeout(Duration::from_secs(10))
///     .defer(send());
/// # }));
/// ```
#[must_use = "a task builder does nothing until one of its `defer` methods is called"]
pub struct TaskBuilder {
    name: &'static str,
    key: Option<Key>,
    handle: Option<Handle>,
    condition: Option<Condition>,
    timeout: Option<Duration>,
    spawned: bool,
}

impl TaskBuilder {
    pub(crate) fn on_handle(name: &'static str, handle: Handle) -> Self {
        TaskBuilder {
            handle: Some(handle),
            ..TaskBuilder::new(name)
        }
    }

    pub(crate) fn new(name: &'static str) -> Self {
        TaskBuilder {
            name,
            key: None,
            handle: None,
            condition: None,
            timeout: None,
            spawned: false,
        }
    }

    /// Gives the task a key: of the tasks of one scope with the same key, only the one deferred last runs.
    ///
    /// It takes the later place in the order. The one it replaces is dropped and counted as discarded. A key works
    /// until the request ends: work deferred later does not replace a task that may be running. The idea
    /// is Laravel's, whose deferred functions have such names.
    ///
    /// The last one counts with its condition, whatever the one before had: of two tasks with one key, the first
    /// [`on_failure`](TaskBuilder::on_failure) and the second [`on_success`](TaskBuilder::on_success), none runs when the
    /// request fails. Keys of two requests have nothing to do with each other.
    ///
    /// Reports and events show the key next to the task's name, so it should identify the task, and hold no secret.
    ///
    /// # Examples
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// for _ in 0..3 {
    ///     after::task("purge").key("user:7").defer(async { println!("printed once") });
    /// }
    /// # }));
    /// ```
    pub fn key(mut self, key: impl Into<Cow<'static, str>>) -> Self {
        self.key = Some(Key::from(key.into()));
        self
    }

    /// Timeout of the task, from its first poll: time in the queue does not count.
    ///
    /// Past it the task is dropped with its scope current, so that its destructors may defer, reported and counted as timed
    /// out. The other tasks go on. Blocking work that has started can't be stopped: its timeout is reported, and it stays
    /// pending until it returns. Default: the Runner's [`task_timeout`](crate::RunnerBuilder::task_timeout). Zero
    /// ends it after its first poll, unless it has ended by then.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # futures::executor::block_on(after::scope(async {
    /// after::task("webhook")
    ///     .timeout(Duration::from_secs(10))
    ///     .defer(async { println!("calling") });
    /// # }));
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Runs the task only if the request has [finished](Outcome::Finished); otherwise it is discarded.
    ///
    /// Conditions are checked once, when the request ends, or when the task is deferred later. The last one that is set
    /// counts.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let request = async {
    ///     after::task("receipt")
    ///         .on_success()
    ///         .defer(async { println!("sending the receipt") });
    ///     after::task("alarm").on_failure().defer(async { println!("telling somebody") });
    ///     Ok::<(), String>(())
    /// };
    /// let _ = after::scope(request).failed_if(Result::is_err).await;
    /// # });
    /// ```
    pub fn on_success(self) -> Self {
        self.when(Outcome::is_success)
    }

    /// Runs the task only if the request has not finished: it failed, was cancelled, or panicked. See
    /// [`on_success`](TaskBuilder::on_success).
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// after::task("alarm").on_failure().defer(async { println!("telling somebody") });
    /// # }));
    /// ```
    pub fn on_failure(self) -> Self {
        self.when(|outcome| !outcome.is_success())
    }

    /// Runs the task only if `condition` returns true for the request's outcome. See [`on_success`](TaskBuilder::on_success).
    ///
    /// It runs with the scope current. If it panics, the task does not run, and counts as panicked.
    ///
    /// ```
    /// # use after::Outcome;
    /// # futures::executor::block_on(after::scope(async {
    /// after::task("abandoned cart")
    ///     .when(|outcome| outcome == Outcome::Cancelled)
    ///     .defer(async { println!("the client has disconnected") });
    /// # }));
    /// ```
    pub fn when(mut self, condition: fn(Outcome) -> bool) -> Self {
        self.condition = Some(Condition { holds: condition });
        self
    }

    /// Spawns the task separately: for work that computes between awaits, and would block the other tasks of the request.
    ///
    /// It is a batch of one, with a call of the spawner of its own. It does not take part in the scope's order.
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// after::task("report")
    ///     .spawned() // on a thread of its own, if the runtime has one free
    ///     .defer(async { println!("{}", (0..1_000_u64).sum::<u64>()) });
    /// # }));
    /// ```
    pub fn spawned(mut self) -> Self {
        self.spawned = true;
        self
    }

    /// Defers the task, like [`defer`](crate::defer()).
    ///
    /// # Panics
    ///
    /// Outside a scope, at the caller's line, unless the builder comes from a [`Handle`].
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// after::task("audit").defer(async { println!("GET /") });
    /// # }));
    /// ```
    #[track_caller]
    pub fn defer<F>(self, task: F)
    where
        F: IntoTask,
    {
        if self.try_defer(task).is_err() {
            cannot_defer("defer");
        }
    }

    /// Defers the task, or returns it where there is no request, like [`try_defer`](crate::try_defer()).
    ///
    /// # Errors
    ///
    /// [`TryDeferError`], with the task in it, outside a scope; never when the builder comes from a [`Handle`].
    ///
    /// ```
    /// // In a destructor, which may run outside a request:
    /// let deferred = after::task("clean up").try_defer(async { println!("removed") });
    /// assert!(deferred.is_err());
    /// ```
    #[track_caller]
    pub fn try_defer<F>(mut self, task: F) -> Result<(), TryDeferError<F>>
    where
        F: IntoTask,
    {
        let location = Location::caller();
        if self.handle.is_none() && !current::in_scope() {
            return Err(TryDeferError::new(task));
        }
        let task = TaskCell::boxed(task.into_future(), self.name, location);
        self.place(task);
        Ok(())
    }

    /// Defers a blocking closure, like [`defer_blocking`](crate::defer_blocking()).
    ///
    /// # Panics
    ///
    /// Outside a scope, at the caller's line, unless the builder comes from a [`Handle`].
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// after::task("thumbnail").defer_blocking(|| println!("scaling for 200 ms"));
    /// # }));
    /// ```
    #[track_caller]
    pub fn defer_blocking<F, R>(mut self, work: F)
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskResult,
    {
        if self.handle.is_none() && !current::in_scope() {
            cannot_defer("defer_blocking");
        }
        let shared = Arc::new(BlockingShared::default());
        let work = Blocking::new(move || work().into_end(), shared.clone());
        let mut task = TaskCell::boxed(work, self.name, Location::caller());
        task.as_mut().make_options().blocking = Some(shared);
        self.place(task);
    }

    /// Gives the task to the handle's scope, or to the current one, which the caller has seen to exist.
    // By reference: to move the builder, which was just written in pieces, is to wait for it.
    fn place(&mut self, mut task: BoxedTask) {
        if self.condition.is_some() || self.timeout.is_some() || self.key.is_some() {
            let options = task.as_mut().make_options();
            options.condition = self.condition;
            options.timeout = self.timeout;
            options.key = self.key.take();
        }
        if self.spawned {
            task.as_mut().set_spawned(true);
        }
        match &self.handle {
            Some(handle) => handle.place(task),
            None => current::with(|registry| {
                if let Some(registry) = registry {
                    place(registry, task);
                }
            }),
        }
    }
}

impl fmt::Debug for TaskBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key may hold a user's data: it is not shown.
        f.debug_struct("TaskBuilder")
            .field("name", &self.name)
            .field("keyed", &self.key.is_some())
            .field("timeout", &self.timeout)
            .field("conditional", &self.condition.is_some())
            .field("spawned", &self.spawned)
            .finish_non_exhaustive()
    }
}
