//! Where batches run: the [`Spawner`] contract, the spawners that come with the crate, and how one is found.
//!
//! | Spawner | Feature | Batches run on | Blocking work runs on | Timeouts by |
//! |---|---|---|---|---|
//! | [`Tokio`] | `tokio` (default) | the runtime of the handle | its blocking pool | its clock |
//! | [`Smol`] | `smol` | smol's global executor | the pool of the `blocking` crate | `async-io`'s timer |
//! | [`AsyncStd`] | `async-std` | async-std's executor | its blocking pool | `async-io`'s timer |
//! | [`Threads`] | `threads` (default) | a pool of this crate | the pool of the `blocking` crate | one thread's timer |
//! | [`from_fn`] | always there | whatever the function does | the same; without `threads` a thread for each | one thread's timer |
//!
//! # Which one is used
//!
//! A [`Runner`](crate::Runner) without a spawner of its own looks for a runtime when a scope defers its first task, and,
//! if none is current there, once more at the hand-over: tokio, if a runtime is current on the thread; async-std, inside
//! one of its tasks. Where none is current (a destructor on a foreign thread, say) it takes the first runtime that it has
//! seen. If it has seen none: smol, async-std, [`Threads`], the first of them that is enabled. If none is, the batch is
//! lost, and a report says what to do.
//!
//! # A runtime that has gone
//!
//! A runtime of tokio that was dropped takes nothing any more. What such a Runner would hand to it goes on: to the runtime
//! that is current on the thread, to the one that it remembers, to the one for where there is none. It forgets the one
//! that has gone, and remembers the next that it sees. So each test of a suite may have a runtime of its own, and a
//! request may begin under one and end under another. What a runtime had taken before it was dropped is lost with it, and
//! a task that needs it (for its timers, say) panics elsewhere: await [`shutdown`](crate::shutdown()) before it goes.
//!
//! A spawner that was given to the Runner is the only one: what it drops is lost.

#[cfg(feature = "async-std")]
mod async_std;
mod seen;
#[cfg(feature = "smol")]
mod smol;
#[cfg(feature = "threads")]
mod threads;
#[cfg(feature = "tokio")]
mod tokio;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_timer::Delay;

#[cfg(feature = "async-std")]
#[cfg_attr(docsrs, doc(cfg(feature = "async-std")))]
pub use self::async_std::AsyncStd;
pub(crate) use self::seen::Seen;
#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use self::smol::Smol;
#[cfg(feature = "threads")]
#[cfg_attr(docsrs, doc(cfg(feature = "threads")))]
pub use self::threads::Threads;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use self::tokio::Tokio;

use crate::{batch::Batch, report, runner::Core, sync};

/// Runs batches.
///
/// The contract:
///
/// - `spawn` detaches the batch: it sees to it that the batch is polled to its end, and does not wait for it.
/// - `spawn` never polls the batch inside the call. It is called when a request ends, often by the task that is about
///   to write the response.
/// - It may be called on any thread, also where no runtime is current, also from a destructor during unwinding.
/// - Dropping the batch loses its tasks: they are counted and reported as lost.
/// - A panic of `spawn` is caught; if it dropped the batch, its tasks are lost.
///
/// A panic of a task does not leave the batch.
///
/// ```
/// use after::{Batch, Runner, Spawner};
///
/// struct ThreadPerBatch;
///
/// impl Spawner for ThreadPerBatch {
///     fn spawn(&self, batch: Batch) {
///         std::thread::spawn(|| futures::executor::block_on(batch));
///     }
/// }
///
/// let runner = Runner::new(ThreadPerBatch);
/// # drop(runner);
/// ```
#[diagnostic::on_unimplemented(
    note = "a function is not a spawner by itself: wrap it in `after::spawner::from_fn`"
)]
pub trait Spawner: Send + Sync + 'static {
    /// Runs the batch to its end, elsewhere: see the [contract](Spawner).
    fn spawn(&self, batch: Batch);

    /// Calls [`BlockingWork::run`] on a thread that may block. Default: the pool of the `blocking` crate, which starts
    /// threads as they are needed. Without the feature `threads`: a thread of its own, named `after-blocking`, for each;
    /// if it can't be started the work is dropped.
    ///
    /// Dropping the work instead loses its task.
    fn spawn_blocking(&self, work: BlockingWork) {
        sync::unblock(move || work.run());
    }

    /// Resolves after `duration`, for timeouts. Default: a timer that needs no runtime, one thread for the process.
    ///
    /// A spawner whose runtime has a clock that tests can pause returns a sleep of that. If this or the sleep panics,
    /// because the runtime was built without a timer, say, the Runner says so once and uses the default from then on.
    ///
    /// The sleep of a task is polled after the task, with the same waker. tokio holds back what is ready when a task has
    /// used up its budget, and a sleep of tokio's would then not be seen. With the feature `tokio` this crate takes care of
    /// that; without it, wrap the sleep in `tokio::task::unconstrained`.
    fn sleep(&self, duration: Duration) -> Sleep {
        sleep_without_runtime(duration)
    }
}

pub(crate) fn sleep_without_runtime(duration: Duration) -> Sleep {
    // No time is now, and not when the timer's thread comes by.
    if duration.is_zero() {
        return Sleep::new(std::future::ready(()));
    }
    // Further away than the clock reaches is never.
    match Instant::now().checked_add(duration) {
        Some(_) => Sleep::new(Delay::new(duration)),
        None => Sleep::new(std::future::pending()),
    }
}

/// What [`Spawner::sleep`] returns: a future that resolves when the time is over. Dropping it gives it up.
///
/// ```
/// # use std::time::Duration;
/// use after::spawner::Sleep;
///
/// fn sleep(duration: Duration) -> Sleep {
///     Sleep::new(tokio::time::sleep(duration))
/// }
/// ```
pub struct Sleep {
    /// `None` once it is dropped.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Sleep {
    /// From any future that resolves when the time is over.
    pub fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Sleep {
            future: Some(Box::pin(future)),
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(future) = &mut self.future else {
            return Poll::Ready(());
        };
        // A task that uses up tokio's budget at each of its polls would leave nothing of it to its own time limit.
        #[cfg(feature = "tokio")]
        let future = &mut ::tokio::task::unconstrained(future);
        Pin::new(future).poll(cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // Its destructor is the user's code, and runs wherever a time limit is given up.
        let future = self.future.take();
        if let Err(payload) = report::catch(|| drop(future)) {
            report::unnamed_panicked("a sleep", payload);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").finish_non_exhaustive()
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: Spawner + ?Sized> Spawner for $pointer {
            fn spawn(&self, batch: Batch) {
                (**self).spawn(batch);
            }

            fn spawn_blocking(&self, work: BlockingWork) {
                (**self).spawn_blocking(work);
            }

            fn sleep(&self, duration: Duration) -> Sleep {
                (**self).sleep(duration)
            }
        }
    )*};
}

forward!(Arc<S>, Box<S>, &'static S);

/// A deferred closure, ready to be run on a thread that may block. Dropping it unrun loses its task.
pub struct BlockingWork {
    work: Box<dyn FnOnce() + Send>,
}

impl BlockingWork {
    pub(crate) fn new(work: impl FnOnce() + Send + 'static) -> Self {
        BlockingWork {
            work: Box::new(work),
        }
    }

    /// Runs the closure, here and now. Its panic is caught and reported; this does not panic.
    ///
    /// ```
    /// use after::spawner::BlockingWork;
    ///
    /// fn spawn_blocking(work: BlockingWork) {
    ///     std::thread::spawn(|| work.run());
    /// }
    /// ```
    pub fn run(self) {
        (self.work)();
    }
}

impl fmt::Debug for BlockingWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingWork").finish_non_exhaustive()
    }
}

/// A [`Spawner`] that is a function; made by [`from_fn`].
pub struct FromFn<F> {
    spawn: F,
}

/// A [`Spawner`] from a function, which keeps to the [contract](Spawner).
///
/// ```
/// use after::{Runner, spawner};
///
/// // A thread for each batch.
/// let runner = Runner::new(spawner::from_fn(|batch| {
///     std::thread::spawn(|| futures::executor::block_on(batch));
/// }));
/// # drop(runner);
/// ```
pub fn from_fn<F: Fn(Batch) + Send + Sync + 'static>(spawn: F) -> FromFn<F> {
    FromFn { spawn }
}

impl<F: Fn(Batch) + Send + Sync + 'static> Spawner for FromFn<F> {
    fn spawn(&self, batch: Batch) {
        (self.spawn)(batch);
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

/// The spawner for the code that asks: that of the current runtime, or the first that is enabled.
///
/// In this order: [`Tokio`] if a runtime is current on this thread; [`AsyncStd`] inside one of its tasks; else [`Smol`],
/// [`AsyncStd`], [`Threads`], whichever feature is enabled. With none of them enabled
/// the spawner that it returns drops its batches, and one line says so: with tokio alone, call this inside a runtime. A
/// [`Runner`](crate::Runner) does this by itself; here it is for spawners that wrap another.
///
/// ```
/// use after::{Batch, Runner, Spawner, spawner};
///
/// struct Logged(Box<dyn Spawner>);
///
/// impl Spawner for Logged {
///     fn spawn(&self, batch: Batch) {
///         println!("{} tasks", batch.len());
///         self.0.spawn(batch);
///     }
/// }
///
/// let runner = Runner::new(Logged(spawner::detect()));
/// # drop(runner);
/// ```
pub fn detect() -> Box<dyn Spawner> {
    match Found::of_this_thread() {
        Found::Nothing => Box::new(without_runtime()),
        #[cfg(feature = "tokio")]
        Found::Tokio(tokio) => Box::new(tokio),
        #[cfg(feature = "async-std")]
        Found::AsyncStd(async_std) => Box::new(async_std),
    }
}

/// What serves where no runtime is current.
fn without_runtime() -> &'static dyn Spawner {
    #[cfg(feature = "smol")]
    return &Smol;
    #[cfg(all(feature = "async-std", not(feature = "smol")))]
    return &AsyncStd;
    #[cfg(all(feature = "threads", not(any(feature = "smol", feature = "async-std"))))]
    return Threads::shared();
    #[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
    return &Nowhere;
}

/// Where nothing is: no runtime is current, and nothing is enabled that would do without.
#[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
struct Nowhere;

#[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
impl Spawner for Nowhere {
    fn spawn(&self, batch: Batch) {
        report::no_runtime();
        // Its tasks are lost, which is counted and reported like any other loss.
        drop(batch);
    }
}

/// What a scope knows of its spawner, if its Runner has none of its own.
///
/// Only one variant has anything in it, so that this moves in two registers, and not through memory.
#[derive(Clone, Default)]
pub(crate) enum Found {
    #[default]
    Nothing,
    #[cfg(feature = "tokio")]
    Tokio(Tokio),
    #[cfg(feature = "async-std")]
    AsyncStd(AsyncStd),
}

impl Found {
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Found::Nothing)
    }

    #[inline]
    fn of_this_thread() -> Found {
        #[cfg(feature = "tokio")]
        if let Some(tokio) = Tokio::try_current() {
            return Found::Tokio(tokio);
        }
        #[cfg(feature = "async-std")]
        if AsyncStd::is_current() {
            return Found::AsyncStd(AsyncStd);
        }
        Found::Nothing
    }

    /// The runtime that is current here and now; the Runner remembers the first that has not gone.
    #[inline]
    pub(crate) fn current(core: &Core) -> Found {
        if core.spawner.is_some() {
            return Found::Nothing;
        }
        let found = Found::of_this_thread();
        if !found.is_nothing() && !core.seen.any() {
            core.seen.remember(&found);
        }
        found
    }

    /// This one, or the current one, or the one that is remembered.
    #[inline]
    pub(crate) fn first(self, core: &Core) -> Found {
        if !self.is_nothing() {
            return self;
        }
        let found = Found::current(core);
        if !found.is_nothing() || !core.seen.any() {
            return found;
        }
        core.seen.get()
    }

    /// What serves a batch that is polled here and now, with timers and threads that may block: as a rule the runtime that
    /// polls it. Where none is current, this one or the one that is remembered, unless it has gone.
    pub(crate) fn serving(self, core: &Core) -> Found {
        let current = Found::current(core);
        if !current.is_nothing() || core.spawner.is_some() {
            return current;
        }
        if !self.is_nothing() && !self.is_gone() {
            return self;
        }
        core.forget_gone();
        core.seen.get()
    }

    /// Whether it is a runtime that takes nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Found::Nothing => false,
            #[cfg(feature = "tokio")]
            Found::Tokio(tokio) => tokio.is_gone(),
            #[cfg(feature = "async-std")]
            Found::AsyncStd(_) => false,
        }
    }

    /// Calls `f` with the spawner of this one, or with that for where there is none.
    #[inline]
    pub(crate) fn serve<R>(&self, f: impl FnOnce(&dyn Spawner) -> R) -> R {
        match self {
            Found::Nothing => f(without_runtime()),
            #[cfg(feature = "tokio")]
            Found::Tokio(tokio) => f(tokio),
            #[cfg(feature = "async-std")]
            Found::AsyncStd(async_std) => f(async_std),
        }
    }

    /// Calls `f` with the spawner: the Runner's own, or the [first](Found::first) that there is.
    #[inline]
    pub(crate) fn with<R>(self, core: &Core, f: impl FnOnce(&dyn Spawner) -> R) -> R {
        if let Some(spawner) = &core.spawner {
            return f(&**spawner);
        }
        self.first(core).serve(f)
    }
}
