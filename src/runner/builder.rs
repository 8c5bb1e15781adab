//! A Runner to be configured.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    core::{Core, Hook},
    launch::Launch,
    runner::Runner,
};
use crate::{
    limit::{Limit, Overflow},
    report::{Observer, Observers, TaskInfo},
    task::{Order, TaskFuture},
};

/// A Runner to be configured; made by [`Runner::builder`].
///
/// ```
/// use after::{Order, Runner};
///
/// let runner = Runner::builder().order(Order::Sequential).build();
/// # drop(runner);
/// ```
#[must_use = "a runner builder does nothing until `build` is called"]
pub struct RunnerBuilder {
    pub(crate) spawner: Option<Box<dyn Launch>>,
    order: Order,
    observers: Observers,
    on_defer: Vec<Hook>,
    task_timeout: Option<Duration>,
    scope_timeout: Option<Duration>,
    max_running: Option<usize>,
    max_waiting: Option<usize>,
    overflow: Overflow,
}

impl RunnerBuilder {
    pub(crate) fn new() -> Self {
        RunnerBuilder {
            spawner: None,
            order: Order::default(),
            observers: Observers::default(),
            on_defer: Vec::new(),
            task_timeout: None,
            scope_timeout: None,
            max_running: None,
            max_waiting: None,
            overflow: Overflow::Backpressure,
        }
    }

    /// How the tasks of a scope run beside each other, unless [`Scope::order`](crate::Scope::order) says otherwise.
    /// Default:
    /// [`Order::Concurrent`].
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The time limit of every task that has [none of its own](crate::TaskBuilder::timeout), from its first poll.
    /// Default: none. Zero is refused by [`build`](RunnerBuilder::build).
    ///
    /// ```
    /// # use std::time::Duration;
    /// let runner = after::Runner::builder().task_timeout(Duration::from_secs(30)).build();
    /// # drop(runner);
    /// ```
    pub fn task_timeout(mut self, limit: Duration) -> Self {
        self.task_timeout = Some(limit);
        self
    }

    /// The time limit of all tasks of one request together, from the hand-over (with `RunAfter::Written`: from the last
    /// byte); of a held batch, from its release or its
    /// first poll. What is unfinished then is dropped, waiting tasks too, reported and counted as timed out, and so is
    /// what joins later. Default: none. Zero is refused by
    /// [`build`](RunnerBuilder::build).
    ///
    /// ```
    /// # use std::time::Duration;
    /// let runner = after::Runner::builder().scope_timeout(Duration::from_secs(60)).build();
    /// # drop(runner);
    /// ```
    pub fn scope_timeout(mut self, limit: Duration) -> Self {
        self.scope_timeout = Some(limit);
        self
    }

    /// No more tasks than this run at once, over all scopes of the Runner: those that were handed over first run first.
    /// Default: no limit. Zero is refused by [`build`](RunnerBuilder::build).
    ///
    /// A task runs from its first poll to its end; blocking work until it returns. A task that waits for work which it
    /// has deferred itself keeps its own permit meanwhile: with all permits held so, they wait until their time limits.
    ///
    /// ```
    /// let runner = after::Runner::builder().max_running(64).build();
    /// # drop(runner);
    /// ```
    pub fn max_running(mut self, tasks: usize) -> Self {
        self.max_running = Some(tasks);
        self
    }

    /// With [`max_running`](RunnerBuilder::max_running): no more tasks than this wait to run. Those of a scope with
    /// [`Order::Sequential`] wait for the one before them, and count as well: such a scope needs one permit, and the others
    /// may be free meanwhile. What happens beyond is said
    /// by [`overflow`](RunnerBuilder::overflow). Default: no limit. Zero is refused by [`build`](RunnerBuilder::build),
    /// and so is a limit without `max_running`, because nothing would ever wait.
    pub fn max_waiting(mut self, tasks: usize) -> Self {
        self.max_waiting = Some(tasks);
        self
    }

    /// What happens when [`max_waiting`](RunnerBuilder::max_waiting) tasks wait already. Default:
    /// [`Overflow::Backpressure`].
    ///
    /// ```
    /// use after::{Overflow, Runner};
    ///
    /// let runner = Runner::builder().max_running(8).max_waiting(100).overflow(Overflow::Shed).build();
    /// # drop(runner);
    /// ```
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Adds an [`Observer`]. May be called several times.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Adds a hook that wraps every task; of a closure for the blocking pool it wraps the half that waits for it.
    ///
    /// It runs at the call of `defer`, where the caller's span, Sentry hub or baggage is current, with the task's scope
    /// current, also when it is deferred through a [`Handle`](crate::Handle) from elsewhere. Of several hooks the one
    /// added first is innermost. The [`TaskInfo`] says which task it is, for a span or a transaction that is named
    /// after it. A hook that gives the future back as it is costs no allocation.
    /// [`TaskOutput::error`](crate::TaskOutput::error) says how the task has ended.
    ///
    /// A failure of the task is reported while the future that the hook has made is polled, so that the report is made in
    /// the span or with the hub that this enters. For a timeout it is polled once more: the task, instead of running,
    /// reports its timeout and stays pending, and then all of it is dropped. If that poll does not reach the task, because
    /// the hook's future awaits something else or has given the task to another thread, the report is made outside.
    ///
    /// If it panics, the caller of `defer` does not notice: the task counts as panicked.
    ///
    /// ```
    /// use after::{Runner, TaskFuture};
    ///
    /// tokio::task_local! { static TENANT: u32; }
    ///
    /// let runner = Runner::builder()
    ///     .on_defer(|_, future| match TENANT.try_get() {
    ///         Ok(tenant) => TaskFuture::new(TENANT.scope(tenant, future)),
    ///         Err(_) => future,
    ///     })
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn on_defer(
        mut self,
        hook: impl Fn(&TaskInfo<'_>, TaskFuture) -> TaskFuture + Send + Sync + 'static,
    ) -> Self {
        self.on_defer.push(Box::new(hook));
        self
    }

    /// The Runner.
    ///
    /// # Panics
    ///
    /// On a limit of zero, saying which, and on `max_waiting` without `max_running`.
    #[track_caller]
    pub fn build(self) -> Runner {
        let zero = Some(Duration::ZERO);
        for (name, is_zero) in [
            ("task_timeout", self.task_timeout == zero),
            ("scope_timeout", self.scope_timeout == zero),
            ("max_running", self.max_running == Some(0)),
            ("max_waiting", self.max_waiting == Some(0)),
        ] {
            assert!(
                !is_zero,
                "`{name}` is zero, so nothing could run: leave it out for no limit"
            );
        }
        assert!(
            self.max_waiting.is_none() || self.max_running.is_some(),
            "`max_waiting` without `max_running`: nothing would ever wait"
        );
        let limit = self.max_running.map(|max_running| {
            let max_waiting = self.max_waiting.unwrap_or(usize::MAX);
            Arc::new(Limit::new(max_running, max_waiting, self.overflow))
        });
        let mut core = Core::default();
        core.slow_path = !self.observers.is_empty()
            || !self.on_defer.is_empty()
            || self.task_timeout.is_some()
            || self.scope_timeout.is_some()
            || limit.is_some();
        core.spawner = self.spawner;
        core.order = self.order;
        core.observers = self.observers;
        core.on_defer = self.on_defer;
        core.task_timeout = self.task_timeout;
        core.scope_timeout = self.scope_timeout;
        core.limit = limit;
        Runner {
            core: Arc::new(core),
        }
    }
}

impl fmt::Debug for RunnerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerBuilder")
            .field("order", &self.order)
            .field("task_timeout", &self.task_timeout)
            .field("scope_timeout", &self.scope_timeout)
            .field("max_running", &self.max_running)
            .field("max_waiting", &self.max_waiting)
            .field("overflow", &self.overflow)
            .finish_non_exhaustive()
    }
}
