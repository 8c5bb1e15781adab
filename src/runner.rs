//! The Runner: where scopes hand over to, and whose account they are on.

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::{Pin, pin},
    sync::{Arc, OnceLock, atomic::AtomicBool},
    task::Poll,
    time::{Duration, Instant},
};

use futures_timer::Delay;

use crate::{
    account::{Account, Stopping},
    current,
    error::InstallError,
    hook::{TaskFuture, TaskOutput},
    limit::{Limit, Overflow},
    node::{Link, Node, Times, Wrapped},
    observer::{Deferred, Observer, Observers, TaskInfo},
    outcome::{Order, Outcome},
    report,
    scope::Scope,
    spawner::{Found, Spawner},
    stats::{ShutdownReport, Stats},
    task::End,
};

/// Where the tasks of scopes go when their requests are over, and the account of them.
///
/// One per application, as a rule: each has its own account and its own shutdown. Most applications never name theirs:
/// the free functions use the global one, which [`Runner::install`] replaces. Cheap to clone; all clones are the same
/// Runner. Dropping it stops nothing: its scopes and batches keep what they need.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use after::{Runner, spawner};
///
/// let runner = Runner::new(spawner::Threads::default());
/// runner.scope(async { after::defer(async { println!("on a thread of `after`") }) }).await;
/// runner.drain().await;
/// # }
/// ```
#[derive(Clone)]
pub struct Runner {
    core: Arc<Core>,
}

pub(crate) struct Core {
    /// `None`: detected, scope by scope.
    pub(crate) spawner: Option<Box<dyn Spawner>>,
    /// The first runtime that was detected: for hand-overs where none is current.
    pub(crate) first_seen: OnceLock<Found>,
    pub(crate) order: Order,
    pub(crate) account: Account,
    /// Whether anything below is set: scopes then leave the plain path.
    pub(crate) special: bool,
    pub(crate) observers: Observers,
    on_defer: Vec<Hook>,
    task_timeout: Option<Duration>,
    pub(crate) scope_timeout: Option<Duration>,
    /// The spawner's timer has panicked: there is none.
    pub(crate) without_timer: AtomicBool,
    pub(crate) limit: Option<Arc<Limit>>,
}

type Hook = Box<dyn Fn(TaskFuture) -> TaskFuture + Send + Sync>;

impl Core {
    /// A task that was given to `defer`, as this Runner wants it: wrapped by the hooks, with its time limit, watched.
    /// Runs the user's code: hooks and observers.
    pub(crate) fn prepare(&self, mut node: Link, outcome: Option<Outcome>) -> Link {
        if !self.special {
            return node;
        }
        let (name, location) = (node.name(), node.location());
        for hook in &self.on_defer {
            let rare = node.as_mut().take_rare();
            let task = TaskFuture::of(node);
            // The task went with the hook that panics: what is left of it ends so.
            let task = report::catch(|| hook(task)).unwrap_or_else(|payload| {
                let end = End::Panicked(payload);
                TaskFuture::new(std::future::ready(TaskOutput { end }))
            });
            node = Node::boxed(Wrapped { task }, name, location);
            node.as_mut().set_rare(rare);
        }
        // All tasks of such a Runner are rare ones: their ends are told, or give a permit on.
        let rare = node.as_mut().make_rare();
        rare.timeout = rare.timeout.or(self.task_timeout);
        if !self.observers.is_empty() {
            rare.times = Some(Times {
                ready: Instant::now(),
                started: None,
                longest_poll: Duration::ZERO,
            });
            let blocking = rare.blocking.is_some();
            self.observers.tell(|observer| {
                observer.deferred(&Deferred {
                    task: TaskInfo {
                        name,
                        location,
                        outcome,
                        blocking,
                    },
                });
            });
        }
        node
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A batch may hold the last reference: a spawner whose destructor panics must not hurt it.
        let spawner = self.spawner.take();
        if let Err(payload) = report::catch(|| drop(spawner)) {
            report::unnamed_panicked("a spawner", payload);
        }
    }
}

static GLOBAL: OnceLock<Runner> = OnceLock::new();

impl Runner {
    /// A Runner on this spawner, all else by default.
    pub fn new(spawner: impl Spawner) -> Runner {
        Runner::builder().spawner(spawner).build()
    }

    /// A Runner to be configured.
    pub fn builder() -> RunnerBuilder {
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

    /// The global Runner, made with the defaults if none was [installed](Runner::install).
    ///
    /// ```
    /// println!("{:?}", after::Runner::global().stats());
    /// ```
    pub fn global() -> Runner {
        global().clone()
    }

    /// Makes this the global Runner, which [`scope`](crate::scope), [`shutdown`](crate::shutdown()) and
    /// [`stopping`](crate::stopping()) outside a scope use.
    ///
    /// # Errors
    ///
    /// [`InstallError`] when one was installed before, or when the global Runner has been used: by a scope that deferred
    /// something, set a context value or gave out a handle, or by [`Runner::global`]. Idle scopes don't count.
    pub fn install(self) -> Result<(), InstallError> {
        GLOBAL.set(self).map_err(|_| InstallError::new())
    }

    /// As [`scope`](crate::scope), on this Runner.
    #[inline]
    pub fn scope<F: Future>(&self, request: F) -> Scope<F> {
        Scope::on(self.clone(), request)
    }

    /// The account at this moment.
    ///
    /// What the scope or batch that is current on this thread has done so far is in it.
    pub fn stats(&self) -> Stats {
        current::with(|registry| {
            if let Some(registry) = registry {
                registry.publish();
            }
        });
        self.core.account.stats()
    }

    /// Waits for the first moment with nothing pending.
    ///
    /// A scope is pending from its first `defer` to the end of its last task. Under steady traffic that moment may never
    /// come, and inside a task of this Runner it never comes: it would wait for itself. Dropping the future stops
    /// waiting and nothing else.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async {}) }).await;
    /// runner.drain().await;
    /// assert_eq!(runner.stats().pending, 0);
    /// # });
    /// ```
    pub async fn drain(&self) {
        self.core.account.drain().await;
    }

    /// Tells long tasks to stop, then waits for all tasks, for `limit` at the most.
    ///
    /// Resolves [`stopping`](crate::stopping()) in the tasks of this Runner, then drains. Nothing is closed: work deferred
    /// meanwhile is accepted, counted and waited for, so call this when the server has stopped to accept requests. What
    /// is unfinished at the limit goes on running; the report names it, and it is lost when its runtime drops it. Call it
    /// before the runtime goes: at the end of `main`.
    ///
    /// The limit is measured by a timer that needs no runtime, in real time; zero reports at once. Inside a task of this Runner the limit
    /// always passes. A second call, beside the first or later, does the same. Dropping the future stops waiting, but
    /// `stopping` stays resolved.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async {}) }).await;
    /// let report = runner.shutdown(Duration::from_secs(5)).await;
    /// assert!(report.is_clean(), "{report}");
    /// # });
    /// ```
    pub async fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let account = &self.core.account;
        account.begin_stopping();
        {
            let mut drained = pin!(account.drain());
            // A limit of zero is no wait, and one too far away for the clock is none.
            let now = limit.is_zero();
            let mut limit = Instant::now().checked_add(limit).map(|_| Delay::new(limit));
            std::future::poll_fn(|cx| {
                if drained.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                match &mut limit {
                    _ if now => Poll::Ready(()),
                    Some(limit) => Pin::new(limit).poll(cx),
                    None => Poll::Pending,
                }
            })
            .await;
        }
        // Whatever was lost is known by now to whoever reads the log of this shutdown.
        account.report_losses(true);
        account.report(limit)
    }

    /// Whether both are the same Runner.
    pub(crate) fn is(&self, other: &Runner) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

fn global() -> &'static Runner {
    GLOBAL.get_or_init(|| Runner::builder().build())
}

// Whatever a panic interrupts, the account is whole: its invariants hold whenever a user's code runs.
impl UnwindSafe for Runner {}
impl RefUnwindSafe for Runner {}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the account: `Debug` takes no lock.
        f.debug_struct("Runner")
            .field("order", &self.core.order)
            .finish_non_exhaustive()
    }
}

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
    spawner: Option<Box<dyn Spawner>>,
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
    /// What runs the batches. Default: [`spawner::detect`](crate::spawner::detect), asked when a scope defers its first
    /// task, and once more at its hand-over if no runtime was current then.
    pub fn spawner(mut self, spawner: impl Spawner) -> Self {
        self.spawner = Some(Box::new(spawner));
        self
    }

    /// How the tasks of a scope run beside each other, unless [`Scope::order`] says otherwise. Default:
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

    /// The time limit of all tasks of one request together, from the hand-over. What is unfinished then is dropped,
    /// waiting tasks too, reported and counted as timed out. Default: none. Zero is refused by
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

    /// With [`max_running`](RunnerBuilder::max_running): no more tasks than this wait to run. What happens beyond is said
    /// by [`overflow`](RunnerBuilder::overflow). Default: no limit. Zero is refused by [`build`](RunnerBuilder::build),
    /// and so is a limit without `max_running`, because nothing would ever wait.
    pub fn max_waiting(mut self, tasks: usize) -> Self {
        self.max_waiting = Some(tasks);
        self
    }

    /// What happens when [`max_waiting`](RunnerBuilder::max_waiting) tasks wait already. Default:
    /// [`Overflow::Backpressure`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Adds an [`Observer`]. May be called several times.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Adds a hook that wraps every task. It runs at the call of `defer`, where the caller's span, Sentry hub or baggage
    /// is current. Of several hooks the one added first is innermost.
    ///
    /// If it panics, the caller of `defer` does not notice: the task counts as panicked.
    ///
    /// ```
    /// use after::{Runner, TaskFuture};
    ///
    /// tokio::task_local! { static TENANT: u32; }
    ///
    /// let runner = Runner::builder()
    ///     .on_defer(|task| match TENANT.try_get() {
    ///         Ok(tenant) => TaskFuture::new(TENANT.scope(tenant, task)),
    ///         Err(_) => task,
    ///     })
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn on_defer(
        mut self,
        hook: impl Fn(TaskFuture) -> TaskFuture + Send + Sync + 'static,
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
        Runner {
            core: Arc::new(Core {
                special: !self.observers.is_empty()
                    || !self.on_defer.is_empty()
                    || self.task_timeout.is_some()
                    || self.scope_timeout.is_some()
                    || limit.is_some(),
                spawner: self.spawner,
                first_seen: OnceLock::new(),
                order: self.order,
                account: Account::new(),
                observers: self.observers,
                on_defer: self.on_defer,
                task_timeout: self.task_timeout,
                scope_timeout: self.scope_timeout,
                without_timer: AtomicBool::new(false),
                limit,
            }),
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

/// The Runner of a scope. The global one costs no reference count.
#[derive(Clone)]
pub(crate) struct RunnerRef {
    given: Option<Runner>,
}

impl RunnerRef {
    #[inline]
    pub(crate) fn global() -> Self {
        RunnerRef { given: None }
    }

    #[inline]
    pub(crate) fn given(runner: Runner) -> Self {
        RunnerRef {
            given: Some(runner),
        }
    }

    /// As a Runner of the user's.
    pub(crate) fn runner(&self) -> Runner {
        self.given.clone().unwrap_or_else(Runner::global)
    }

    #[inline]
    pub(crate) fn get(&self) -> &Core {
        match &self.given {
            Some(runner) => &runner.core,
            None => &global().core,
        }
    }
}

/// Waits for all tasks of the global Runner, for `limit` at the most: see [`Runner::shutdown`].
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// // .. axum::serve(..).with_graceful_shutdown(..).await ..
/// let report = after::shutdown(Duration::from_secs(10)).await;
/// println!("{report}");
/// # }
/// ```
pub async fn shutdown(limit: Duration) -> ShutdownReport {
    global().shutdown(limit).await
}

/// Resolves when [`shutdown`] of this task's Runner begins: for retry loops and other long tasks.
///
/// Outside a scope it is the global Runner's. It stays resolved from then on.
///
/// ```
/// # async fn send() -> bool { true }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # after::scope(async {
/// after::defer(async {
///     let mut stopping = after::stopping();
///     while !send().await {
///         tokio::select! {
///             _ = &mut stopping => break,
///             _ = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
///         }
///     }
/// });
/// # }).await;
/// # }
/// ```
pub fn stopping() -> Stopping {
    let runner = current::with(|registry| registry.map(|registry| registry.runner()));
    Stopping::new(runner.unwrap_or_else(RunnerRef::global))
}
