//! What all scopes and batches of a Runner share.
//!
//! It keeps the spawner, which gets batches, and each of these knows its Runner: so this, `launch`, `state`, `inbox` and
//! `attachment` know each other.

use std::{
    mem,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{launch::Launch, remembered::RememberedRuntime, runtime::DetectedRuntime};
use crate::{
    account::{Account, KeepsAccount},
    limit::{Limit, Sleep, sleep_without_runtime},
    platform::Instant,
    report::{self, Label, Observers, Outcome, Payload, TaskDeferred, TaskInfo},
    sync::atomic::{AtomicBool, Ordering},
    task::{BoxedTask, End, Order, TaskCell, TaskFuture, TaskOutput, Times, Wrapped},
};

/// What the clones of a [`Runner`](super::Runner) share.
pub(crate) struct Core {
    /// `None`: detected, scope by scope.
    pub(crate) spawner: Option<Box<dyn Launch>>,
    pub(crate) remembered: RememberedRuntime,
    pub(crate) order: Order,
    pub(crate) account: Account,
    /// Whether anything below is set: scopes then leave the fast path.
    pub(crate) slow_path: bool,
    pub(crate) observers: Observers,
    pub(crate) on_defer: Vec<Hook>,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) scope_timeout: Option<Duration>,
    /// The spawner's timer has panicked: there is none.
    pub(crate) without_timer: AtomicBool,
    pub(crate) limit: Option<Arc<Limit>>,
}

pub(crate) type Hook = Box<dyn Fn(&TaskInfo<'_>, TaskFuture) -> TaskFuture + Send + Sync>;

impl Default for Core {
    fn default() -> Self {
        Core {
            spawner: None,
            remembered: RememberedRuntime::default(),
            order: Order::default(),
            account: Account::new(),
            slow_path: false,
            observers: Observers::default(),
            on_defer: Vec::new(),
            task_timeout: None,
            scope_timeout: None,
            without_timer: AtomicBool::new(false),
            limit: None,
        }
    }
}

impl Core {
    /// Whether `prepare` does anything.
    #[inline]
    pub(crate) fn prepares(&self) -> bool {
        self.slow_path
            && (self.task_timeout.is_some()
                || !self.on_defer.is_empty()
                || !self.observers.is_empty())
    }

    /// Whether the end of a task concerns anybody: an observer, or who waits for its permit.
    #[inline]
    pub(crate) fn hears_of_ends(&self) -> bool {
        !self.observers.is_empty() || self.limit.is_some()
    }

    /// A task that was given to `defer`, as this Runner wants it: wrapped by the hooks, with its time limit, watched.
    /// Runs the user's code: hooks and observers.
    pub(crate) fn prepare(&self, mut task: BoxedTask, outcome: Option<Outcome>) -> BoxedTask {
        if !self.prepares() {
            return task;
        }
        let label = task.label();
        if !self.on_defer.is_empty() {
            task = self.wrap(task, &label, outcome);
        }
        if let Some(limit) = self.task_timeout {
            task.as_mut().make_options().timeout.get_or_insert(limit);
        }
        if !self.observers.is_empty() {
            let options = task.as_mut().make_options();
            options.times = Some(Times {
                could_start: outcome.map(|_| Instant::now()),
                ..Times::default()
            });
            let blocking = options.blocking.is_some();
            self.observers.tell(|observer| {
                observer.deferred(&TaskDeferred {
                    task: label.info(outcome, blocking),
                });
            });
        }
        task
    }

    /// What the hooks make of a task, each of what the one before has made: boxed once, if it was wrapped.
    fn wrap(&self, mut task: BoxedTask, label: &Label, outcome: Option<Outcome>) -> BoxedTask {
        let options = task.as_mut().take_options();
        let spawned = task.is_spawned();
        let blocking = options
            .as_ref()
            .is_some_and(|options| options.blocking.is_some());
        let info = label.info(outcome, blocking);
        let mut future = TaskFuture::of(task);
        for hook in &self.on_defer {
            // The task went with the hook that panics: what is left of it ends so.
            future = report::catch(|| hook(&info, future)).unwrap_or_else(|payload| {
                let output = TaskOutput::of(End::Panicked(payload));
                TaskFuture::new(std::future::ready(output))
            });
        }
        let mut task = match future.into_deferred() {
            // This one, or another that a hook has kept: it runs for this call now.
            Ok(mut task) => {
                task.as_mut().relabel(label);
                task
            }
            Err(future) => {
                let wrapped = Wrapped::new(future, label.clone());
                TaskCell::boxed(wrapped, label.name, label.location)
            }
        };
        task.as_mut().set_options(options);
        task.as_mut().set_spawned(spawned);
        task
    }
}

impl Core {
    /// The runtime that is current here and now; the first that has not gone is remembered. Nothing, if this has a spawner.
    #[inline]
    pub(crate) fn current_runtime(&self) -> DetectedRuntime {
        if self.spawner.is_some() {
            return DetectedRuntime::Nothing;
        }
        let runtime = DetectedRuntime::of_this_thread();
        if !runtime.is_nothing() && !self.remembered.any() {
            self.remembered.remember(&runtime);
        }
        runtime
    }

    /// The one that was found, or the current one, or the one that is remembered.
    #[inline(always)]
    pub(crate) fn first_runtime(&self, runtime: DetectedRuntime) -> DetectedRuntime {
        if !runtime.is_nothing() {
            return runtime;
        }
        let runtime = self.current_runtime();
        if !runtime.is_nothing() || !self.remembered.any() {
            return runtime;
        }
        self.remembered.get()
    }

    /// What serves a batch that is polled here and now, with timers and threads that may block: as a rule the runtime that
    /// polls it. Where none is current, the one that was found or the one that is remembered, unless it has gone.
    pub(crate) fn serving_runtime(&self, runtime: DetectedRuntime) -> DetectedRuntime {
        let current = self.current_runtime();
        if !current.is_nothing() || self.spawner.is_some() {
            return current;
        }
        if !runtime.is_nothing() && !runtime.is_gone() {
            return runtime;
        }
        self.forget_gone();
        self.remembered.get()
    }

    /// Calls `f` with the spawner: that of this, or the [first](Core::first_runtime) runtime.
    #[inline]
    pub(crate) fn with_spawner<R>(
        &self,
        runtime: DetectedRuntime,
        f: impl FnOnce(&dyn Launch) -> R,
    ) -> R {
        match &self.spawner {
            Some(spawner) => f(&**spawner),
            None => f(&self.first_runtime(runtime)),
        }
    }

    /// Forgets the runtime that is remembered if it has gone, so that the next one seen is remembered. Returns whether it
    /// has. What was said of its timer says nothing of others.
    #[cold]
    pub(crate) fn forget_gone(&self) -> bool {
        let gone = self.remembered.get().is_gone();
        if gone {
            self.remembered.forget();
            self.without_timer.store(false, Ordering::Relaxed);
        }
        gone
    }

    /// A sleep on the spawner's timer, or, where that panics, on one that needs no runtime.
    pub(crate) fn sleep(&self, runtime: DetectedRuntime, limit: Duration) -> Sleep {
        let missing = self.without_timer.load(Ordering::Relaxed);
        // That of another runtime, perhaps, which has gone.
        if !missing || (self.spawner.is_none() && self.forget_gone()) {
            let start = |spawner: &dyn Launch| spawner.start_sleep(limit);
            let sleep = report::catch(|| self.with_spawner(runtime, start));
            match sleep {
                Ok(sleep) => return sleep,
                Err(payload) => self.timer_broken(payload),
            }
        }
        sleep_without_runtime(limit)
    }

    /// Says once that the runtime's timer can't be used, and remembers it.
    pub(crate) fn timer_broken(&self, payload: Payload) {
        if self.spawner.is_none() && self.forget_gone() {
            // That may have been the timer of a runtime that has gone, and others have theirs.
            return report::forget_payload(payload);
        }
        // Relaxed: a flag that nothing else hangs on.
        if self.without_timer.swap(true, Ordering::Relaxed) {
            report::forget_payload(payload);
        } else {
            report::no_timer(payload);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A scope or a batch may hold the last reference: destructors of the user's that panic must not hurt it. Each by
        // itself, because two that panic in one list would abort.
        report::clean_up("a spawner", || drop(self.spawner.take()));
        for hook in mem::take(&mut self.on_defer) {
            report::clean_up("a hook", || drop(hook));
        }
        for observer in self.observers.take() {
            report::clean_up("an observer", || drop(observer));
        }
    }
}

/// The global Runner's, once it is used or installed.
pub(super) static GLOBAL: OnceLock<Arc<Core>> = OnceLock::new();

pub(super) fn global() -> &'static Arc<Core> {
    GLOBAL.get_or_init(Arc::default)
}

/// The Runner of a scope: by default the global one, which costs no reference count.
#[derive(Clone, Default)]
pub(crate) struct RunnerRef {
    given: Option<Arc<Core>>,
}

impl RunnerRef {
    #[inline]
    pub(crate) fn global() -> Self {
        RunnerRef { given: None }
    }

    #[inline]
    pub(super) fn given(core: Arc<Core>) -> Self {
        RunnerRef { given: Some(core) }
    }

    #[inline]
    pub(crate) fn get(&self) -> &Core {
        match &self.given {
            Some(core) => core,
            None => global(),
        }
    }

    pub(super) fn or_clone_of(self, other: &RunnerRef) -> RunnerRef {
        match self.given {
            Some(_) => self,
            None => other.clone(),
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        self.given.as_ref().unwrap_or_else(|| global())
    }
}

impl KeepsAccount for RunnerRef {
    fn account(&self) -> &Account {
        &self.get().account
    }
}

// Whatever a panic interrupts, the account is whole: its invariants hold whenever a user's code runs.
impl UnwindSafe for RunnerRef {}
impl RefUnwindSafe for RunnerRef {}
