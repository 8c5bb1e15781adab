//! Deferring from outside the scope's own task: spawned subtasks, other threads, callbacks.
//!
//! From the first [`handle()`] on, a scope collects in a shared [`Inbox`], from wherever the work comes: so there is one
//! order and one place for keys.

use std::{
    borrow::Cow,
    fmt,
    future::{Future, IntoFuture},
    panic::{Location, RefUnwindSafe, UnwindSafe},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as TaskContext, Poll, Waker},
};

use crate::{
    account::Counts,
    batch::Batch,
    collected::Collected,
    context::Context,
    current, ending,
    node::{Link, Node, Queue},
    outcome::{Order, Outcome},
    registry::{Active, Registry},
    report,
    runner::RunnerRef,
    signal::{drop_waker, wake},
    spawner::Found,
    task::{TaskBuilder, TaskResult},
};

/// A handle to the current scope, for code that runs elsewhere.
///
/// # Panics
///
/// Outside a scope, at the caller's line. [`try_handle`] does not.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// let handle = after::handle();
/// std::thread::spawn(move || handle.defer(async { println!("from another thread") }))
///     .join()
///     .unwrap();
/// # }));
/// ```
#[track_caller]
pub fn handle() -> Handle {
    match try_handle() {
        Some(handle) => handle,
        None => panic!(
            "`handle` called outside a scope: call it in the request, before spawning, or use `try_handle`"
        ),
    }
}

/// A handle to the current scope, or `None` outside one.
///
/// ```
/// assert!(after::try_handle().is_none());
/// ```
pub fn try_handle() -> Option<Handle> {
    current::with(|registry| registry.map(Registry::handle))
}

/// Defers into one scope from any task and any thread.
///
/// Work deferred through it before the end of the request runs with the request's other tasks. While they run, it joins
/// them. When they are done, it is handed over as a batch of its own, at once. It is on the account in each case, and it
/// is never polled inside the call.
///
/// Cheap to clone. Dropping it does nothing; keeping it does not keep the request open.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
}

impl Handle {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Handle { inbox }
    }

    /// As [`defer`](crate::defer()), into this handle's scope. Never panics.
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// let handle = after::handle();
    /// handle.defer(async { println!("after the response") });
    /// # }));
    /// ```
    #[track_caller]
    pub fn defer<F>(&self, task: F)
    where
        F: IntoFuture,
        F::IntoFuture: Send + 'static,
        F::Output: TaskResult,
    {
        let location = Location::caller();
        let name = std::any::type_name::<F::IntoFuture>();
        self.place(None, Node::boxed(task.into_future(), name, location));
    }

    /// As [`task`](crate::task()), for this handle's scope.
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// after::handle().task("audit").defer(async { println!("GET /") });
    /// # }));
    /// ```
    pub fn task(&self, name: &'static str) -> TaskBuilder {
        TaskBuilder::on_handle(name, self.clone())
    }

    /// Runs a future in this scope, on whichever task polls it.
    ///
    /// The scope is current while the future is polled and while it is dropped. The request does not wait for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// after::scope(async {
    ///     let subtask = after::handle().scope(async { after::defer(async { println!("collected") }) });
    ///     tokio::spawn(subtask).await.unwrap();
    /// })
    /// .await;
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> Attached<F> {
        Attached {
            future: Some(future),
            registry: self.registry(),
        }
    }

    /// Runs a closure in this scope, here and now: for `spawn_blocking`, rayon, plain threads.
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// let handle = after::handle();
    /// let thread = std::thread::spawn(move || {
    ///     handle.sync_scope(|| after::defer(async { println!("collected") }))
    /// });
    /// thread.join().unwrap();
    /// # }));
    /// ```
    pub fn sync_scope<R>(&self, f: impl FnOnce() -> R) -> R {
        current::enter(&self.registry(), f)
    }

    pub(crate) fn place(&self, key: Option<Cow<'static, str>>, node: Link) {
        let core = self.inbox.runner.get();
        let node = match core.special || node.rare().is_some() {
            true => core.prepare(node, self.inbox.outcome()),
            false => node,
        };
        self.inbox.store(key, node);
    }

    pub(crate) fn found(&self) -> Found {
        self.inbox.found()
    }

    fn registry(&self) -> Registry {
        Registry::active(Active::attached(
            self.inbox.runner.clone(),
            self.inbox.clone(),
        ))
    }
}

// Whatever a panic interrupts, what the handle leads to is whole: see invariant 1 of `registry`.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// A future that runs in the scope of a [`Handle`]; made by [`Handle::scope`].
    ///
    /// Dropping it drops the inner future with the scope current, so that its destructors may defer. This never panics: a
    /// panic of the inner future's destructor is caught there and reported.
    #[must_use = "futures do nothing unless polled"]
    pub struct Attached<F> {
        // `Some` until it has resolved or is dropped.
        #[pin]
        future: Option<F>,
        registry: Registry,
    }

    impl<F> PinnedDrop for Attached<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                let dropped = report::catch(|| {
                    current::enter(this.registry, || this.future.set(None));
                });
                if let Err(payload) = dropped {
                    report::unnamed_panicked("a future in the scope of a handle", payload);
                }
            }
        }
    }
}

impl<F: Future> Future for Attached<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        current::enter(this.registry, || {
            let Some(future) = this.future.as_mut().as_pin_mut() else {
                panic!("`Attached` polled after completion");
            };
            let polled = future.poll(cx);
            if polled.is_ready() {
                this.future.set(None);
            }
            polled
        })
    }
}

impl<F> fmt::Debug for Attached<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// What a scope collects once somebody holds a [`Handle`] to it.
pub(crate) struct Inbox {
    runner: RunnerRef,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    collected: Collected,
    context: Context,
    outcome: Option<Outcome>,
    order: Order,
    found: Found,
    /// The batch's, while it waits for its tasks.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request runs: what comes is collected for the hand-over.
    Request,
    /// The batch runs: what comes joins it.
    Batch,
    /// Nobody will look into `collected` again: what comes is a batch of its own.
    Over,
}

impl Inbox {
    pub(crate) fn new(
        runner: RunnerRef,
        found: Found,
        collected: Collected,
        context: Context,
        outcome: Option<Outcome>,
        order: Order,
    ) -> Self {
        Inbox {
            runner,
            state: Mutex::new(State {
                phase: match outcome {
                    None => Phase::Request,
                    Some(_) => Phase::Batch,
                },
                collected,
                context,
                outcome,
                order,
                found,
                waker: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No user code runs under this lock, so nothing can panic there and poison means nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a task that is prepared.
    pub(crate) fn store(&self, key: Option<Cow<'static, str>>, node: Link) {
        let account = &self.runner.get().account;
        let mut state = self.lock();
        if let (Phase::Over, Some(outcome)) = (state.phase, state.outcome) {
            let late = Active::late(
                self.runner.clone(),
                state.found.clone(),
                state.order,
                state.context.clone(),
                node,
            );
            drop(state);
            return Batch::late(late, outcome).release();
        }
        // Counted before it is stored, under the lock that the batch needs to find it: a task that ended before it was
        // counted would make the account wrong. Nobody is woken by it: a task of ours is pending.
        account.publish(Counts {
            deferred: 1,
            ..Counts::default()
        });
        let replaced = match key {
            None => {
                state.collected.push(node);
                None
            }
            Some(key) => state.collected.push_keyed(key, node),
        };
        let waker = state.waker.take();
        drop(state);
        self.discard(replaced);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    pub(crate) fn forget(&self, key: &str) -> bool {
        let removed = self.lock().collected.remove(key);
        let found = removed.is_some();
        self.discard(removed);
        found
    }

    fn discard(&self, node: Option<Link>) {
        if let Some(node) = node {
            let core = self.runner.get();
            ending::discard(core, self.outcome(), node);
            core.account.publish(Counts {
                discarded: 1,
                ..Counts::default()
            });
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().collected.len()
    }

    /// The end of the request: what was collected so far. With nothing there, nobody will look again.
    pub(crate) fn hand_over(&self, outcome: Outcome, order: Order, found: &Found) -> Queue {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        state.order = order;
        if state.found.is_nothing() {
            state.found = found.clone();
        }
        if state.collected.len() == 0 {
            state.phase = Phase::Over;
        } else {
            state.phase = Phase::Batch;
        }
        state.collected.take()
    }

    /// The batch begins to look after its own: what comes now needs no wake-up.
    pub(crate) fn batch_runs(&self) -> Queue {
        let mut state = self.lock();
        let waker = state.waker.take();
        let joined = state.collected.take();
        drop(state);
        drop_waker(waker);
        joined
    }

    /// The batch has nothing more to do for now: what came meanwhile, or else `waker` is woken by what will come.
    pub(crate) fn batch_waits(&self, waker: &Waker) -> Queue {
        let waker = waker.clone();
        let mut state = self.lock();
        if state.collected.len() == 0 {
            let before = state.waker.replace(waker);
            drop(state);
            drop_waker(before);
            return Queue::default();
        }
        let joined = state.collected.take();
        drop(state);
        drop_waker(Some(waker));
        joined
    }

    /// The batch has no task left: what came meanwhile, or else it is over.
    pub(crate) fn batch_ends(&self) -> Queue {
        let mut state = self.lock();
        if state.collected.len() == 0 {
            state.phase = Phase::Over;
        }
        state.collected.take()
    }

    /// The spawner that was current when the handle was made, or at the hand-over.
    pub(crate) fn found(&self) -> Found {
        self.lock().found.clone()
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome
    }

    pub(crate) fn context(&self) -> Context {
        self.lock().context.clone()
    }

    pub(crate) fn change_context<C, R>(
        &self,
        change: C,
        apply: impl FnOnce(&mut Context, C) -> R,
    ) -> Result<R, C> {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return Err(change);
        }
        Ok(apply(&mut state.context, change))
    }
}
