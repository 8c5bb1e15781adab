//! The Runner: where scopes hand over to, and whose account they are on.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::Poll,
    time::{Duration, Instant},
};

use futures_timer::Delay;

use crate::{
    account::{Account, Stopping},
    current,
    error::InstallError,
    outcome::Order,
    scope::Scope,
    spawner::{Found, Spawner},
    stats::{ShutdownReport, Stats},
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
    /// something, or by [`Runner::global`]. Scopes that deferred nothing don't count.
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
    /// The limit is measured by a timer that needs no runtime, in real time. Inside a task of this Runner the limit
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
            // A limit too far away for the clock is none.
            let mut limit = Instant::now().checked_add(limit).map(|_| Delay::new(limit));
            std::future::poll_fn(|cx| {
                if drained.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                match &mut limit {
                    Some(limit) => Pin::new(limit).poll(cx),
                    None => Poll::Pending,
                }
            })
            .await;
        }
        // Whatever was lost is known by now to whoever reads the log of this shutdown.
        account.report_losses();
        account.report(limit)
    }
}

fn global() -> &'static Runner {
    GLOBAL.get_or_init(|| Runner::builder().build())
}

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

    /// The Runner.
    pub fn build(self) -> Runner {
        Runner {
            core: Arc::new(Core {
                spawner: self.spawner,
                first_seen: OnceLock::new(),
                order: self.order,
                account: Account::new(),
            }),
        }
    }
}

impl fmt::Debug for RunnerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerBuilder")
            .field("order", &self.order)
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
