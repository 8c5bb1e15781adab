//! Deferring from outside the scope's own task: spawned subtasks, other threads, callbacks.
//!
//! From the first [`handle()`] on, a scope collects in a shared [`Inbox`], from wherever the work comes: so there is one
//! order and one place for keys.

use std::{
    any::type_name,
    fmt,
    future::Future,
    panic::{Location, RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use super::{builder::TaskBuilder, entered::Attached, error::outside_scope, place::store};
use crate::{
    runner::{Attachment, Inbox, Registry, Runner, current},
    task::{BoxedTask, IntoTask, TaskCell, TaskResult},
};

/// Handle to the current scope, for code that runs on another task or thread.
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
        None => {
            let so = ". Call it in the request, before spawning";
            outside_scope("handle", so, "use `try_handle`");
        }
    }
}

/// Handle to the current scope, or `None` outside one: for code that may run outside a request.
///
/// ```
/// assert!(after::try_handle().is_none());
/// ```
pub fn try_handle() -> Option<Handle> {
    current::with(|registry| registry.map(Registry::handle))
}

/// Defers into one request from any task and any thread; made by [`handle`].
///
/// Work deferred through it before the end of the request runs with the request's other tasks. While they run, it joins
/// them. When they have ended, it starts at once, as a batch of its own. It is counted in each case, and never polled
/// inside the call.
///
/// Cheap to clone. Dropping it does nothing. It keeps neither the request open nor the values of its
/// [`context`](crate::context): they are dropped when the request and its tasks have ended, and what is deferred later runs
/// without them. Its [`outcome`](crate::outcome()) is still the request's.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// after::scope(async {
///     let handle = after::handle();
///     // A spawned task has no scope: `after::defer` would panic in it.
///     tokio::spawn(async move { handle.defer(async { println!("collected") }) })
///         .await
///         .unwrap();
/// })
/// .await;
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
}

impl Handle {
    /// Defers a task into this handle's request, like [`defer`](crate::defer()). Never panics.
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
        F: IntoTask,
    {
        let location = Location::caller();
        let name = type_name::<F::IntoFuture>();
        self.place(TaskCell::boxed(task.into_future(), name, location));
    }

    /// Defers a blocking closure into this handle's request, like [`defer_blocking`](crate::defer_blocking()). Never panics.
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// let handle = after::handle();
    /// handle.defer_blocking(|| println!("after the response, on a thread that may block"));
    /// # }));
    /// ```
    #[track_caller]
    pub fn defer_blocking<F, R>(&self, work: F)
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskResult,
    {
        self.task(type_name::<F>()).defer_blocking(work);
    }

    /// The Runner of this request: for further scopes on it, one for each message of a WebSocket, say.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # let runner = after::Runner::builder().build();
    /// # runner.scope(async {
    /// let runner = after::handle().runner();
    /// for message in ["ping", "pong"] {
    ///     let response = runner.scope(async move {
    ///         after::defer(async move { println!("counting {message}") });
    ///         message.len()
    ///     });
    ///     println!("{}", response.await);
    /// }
    /// # }).await;
    /// # runner.drain().await;
    /// # assert_eq!(runner.stats().completed, 2);
    /// # });
    /// ```
    pub fn runner(&self) -> Runner {
        Runner::of(&self.inbox.runner)
    }

    /// Names the next task, like [`task`](crate::task()), for this handle's request.
    ///
    /// ```
    /// # futures::executor::block_on(after::scope(async {
    /// after::handle().task("audit").defer(async { println!("GET /") });
    /// # }));
    /// ```
    pub fn task(&self, name: &'static str) -> TaskBuilder {
        TaskBuilder::on_handle(name, self.clone())
    }

    /// Wraps a future, so that the scope is current in it: for `tokio::spawn`, `JoinSet`, an actor.
    ///
    /// The scope is current while the future is polled and while it is dropped. The request does not wait for it.
    ///
    /// It may continue when the request has ended: a handler that was detached with `tokio::spawn` does when its client
    /// disconnects. It may set values then, too. It keeps the values of the request's
    /// [`context`](crate::context) until it ends; if it was not polled before the request and its tasks had ended, those
    /// from when this was called. What it sets once the request has ended is its own: the request's tasks don't see it.
    /// What it defers from then on sees it, and starts at once, each task as a batch of its own. A handle that it takes
    /// then leads to these values too, until it ends. A future that its own request has polled, and that is detached only
    /// then, keeps the values if it is polled again before the request and its tasks have ended. Don't keep it in one of those values behind
    /// a lock: they would keep each other.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// after::scope(async {
    ///     let work = async { after::defer(async { println!("collected") }) };
    ///     let subtask = after::handle().scope(work); // `defer` would panic without
    ///     tokio::spawn(subtask).await.unwrap();
    /// })
    /// .await;
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> Attached<F> {
        Attached {
            future: Some(future),
            registry: Registry::attached(&self.inbox, Attachment::waiting(&self.inbox)),
        }
    }

    /// Runs a closure with the scope current: for `spawn_blocking`, rayon, plain threads.
    ///
    /// What it sets after the end of the request is its own, as with [`scope`](Handle::scope).
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

    pub(crate) fn place(&self, task: BoxedTask) {
        let core = self.inbox.runner.get();
        if !core.slow_path && task.options().is_none() {
            return store(&self.inbox, task, false);
        }
        // Hooks, observers, and the destructor of what a key replaces run with their task's scope current.
        self.sync_scope(|| {
            let task = core.prepare(task, self.inbox.outcome());
            store(&self.inbox, task, false);
        });
    }

    /// A registry that brings what it collects to this handle's scope.
    fn registry(&self) -> Registry {
        Registry::attached(&self.inbox, Attachment::held(&self.inbox, false))
    }

    /// As `registry`, for a part of the request's own that is after its end.
    pub(crate) fn frozen_registry(&self) -> Registry {
        Registry::frozen(&self.inbox)
    }
}

impl Registry {
    pub(crate) fn handle(&self) -> Handle {
        Handle {
            inbox: self.share(),
        }
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
