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

/// Builder of a [`Runner`]: timeouts, limits, observers, hooks; made by [`Runner::builder`].
///
/// ```
/// use std::time::Duration;
///
/// use after::{Overflow, Runner};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // At the beginning of `main`: a slow mail server must not use up the memory.
/// Runner::builder()
///     .task_timeout(Duration::from_secs(30))
///     .max_running(64) // the concurrency limit
///     .max_waiting(1_000) // the queue
///     .overflow(Overflow::Backpressure) // when it is full, responses wait
///     .build()
///     .install()?;
/// # Ok(())
/// # }
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

    /// Order of the tasks of a scope, unless [`Scope::order`](crate::Scope::order) sets another. Default:
    /// [`Order::Concurrent`].
    ///
    /// ```
    /// // Each task sees what those before it have done.
    /// let runner = after::Runner::builder().order(after::Order::Sequential).build();
    /// # drop(runner);
    /// ```
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Timeout of every task that has [none of its own](crate::TaskBuilder::timeout), from its first poll: time in the queue
    /// does not count. Default: none. [`build`](RunnerBuilder::build) refuses zero.
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

    /// Timeout of all tasks of one request together, from the end of the request: time in the queue counts.
    ///
    /// With `RunAfter::Written` it starts at the last byte; for a held batch, at its release or first poll. What is
    /// unfinished then is dropped, also what is in the queue, reported and counted as timed out, and so is what joins
    /// later. Default: none. [`build`](RunnerBuilder::build) refuses zero.
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

    /// Concurrency limit: no more tasks than this run at once, over all requests of the Runner. Default: no limit.
    /// [`build`](RunnerBuilder::build) refuses zero.
    ///
    /// First come, first served, in the order in which requests ended. A task counts from its first poll to its end;
    /// blocking work until it returns. A task that awaits work which it has deferred keeps its permit meanwhile: if all
    /// permits are held so, only timeouts end that.
    ///
    /// Choose what the tasks' resources bear: connections of a pool, say, less those that requests need.
    ///
    /// ```
    /// let runner = after::Runner::builder().max_running(64).build();
    /// # drop(runner);
    /// ```
    pub fn max_running(mut self, tasks: usize) -> Self {
        self.max_running = Some(tasks);
        self
    }

    /// Length of the queue: with [`max_running`](RunnerBuilder::max_running), no more tasks than this wait to run. Default:
    /// no limit.
    ///
    /// [`overflow`](RunnerBuilder::overflow) sets what happens when it is full. Tasks of a scope with
    /// [`Order::Sequential`] that wait for the one before them count as well. [`build`](RunnerBuilder::build) refuses zero,
    /// and a limit without `max_running`, because nothing would ever wait.
    ///
    /// To choose a value: in the queue a task waits for about `max_waiting / max_running` times the run time of a task. With
    /// 64 running tasks of 100 ms each, a queue of 1,000 is at most 1.6 seconds long.
    ///
    /// ```
    /// // At most 64 run and 1,000 wait; beyond that responses wait.
    /// let runner = after::Runner::builder().max_running(64).max_waiting(1_000).build();
    /// # drop(runner);
    /// ```
    pub fn max_waiting(mut self, tasks: usize) -> Self {
        self.max_waiting = Some(tasks);
        self
    }

    /// Backpressure or load shedding, when [`max_waiting`](RunnerBuilder::max_waiting) tasks wait already. Default:
    /// [`Overflow::Backpressure`].
    ///
    /// ```
    /// use after::{Overflow, Runner};
    ///
    /// // For statistics: rather lose some than slow responses down.
    /// let runner = Runner::builder()
    ///     .max_running(8)
    ///     .max_waiting(100)
    ///     .overflow(Overflow::Shed)
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Adds an [`Observer`]. May be called several times.
    ///
    /// ```
    /// use after::{Observer, Runner, TaskStarted};
    ///
    /// /// Says when the queue is too long.
    /// struct Queue;
    ///
    /// impl Observer for Queue {
    ///     fn started(&self, event: &TaskStarted<'_>) {
    ///         if event.waited.as_secs() > 5 {
    ///             println!("`{}` waited for {:?}", event.task.name, event.waited);
    ///         }
    ///     }
    /// }
    ///
    /// let runner = Runner::builder().max_running(64).observer(Queue).build();
    /// # drop(runner);
    /// ```
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Adds a hook that wraps every task, to carry what is current at the call of `defer`: a span, a Sentry hub, baggage.
    ///
    /// It runs inside the call of `defer`, with the task's scope current, also when the task is deferred through a
    /// [`Handle`](crate::Handle) from elsewhere. Of a closure for the blocking pool it wraps the wait for the closure. Of
    /// several hooks the one added first is innermost. The [`TaskInfo`] names the task.
    /// [`TaskOutput::error`](crate::TaskOutput::error) is the task's error. A hook that returns the future as it is costs no
    /// allocation.
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

    /// Builds the Runner.
    ///
    /// # Panics
    ///
    /// On a limit of zero, naming it, and on `max_waiting` without `max_running`.
    ///
    /// ```
    /// let runner = after::Runner::builder().max_running(64).build();
    /// # drop(runner);
    /// ```
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
