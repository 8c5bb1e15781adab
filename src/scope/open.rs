//! A request that is not one future: opened once, entered for each of its pieces, ended once.

use std::{
    fmt, mem,
    sync::{Mutex, PoisonError},
};

use super::handle::Handle;
use crate::{
    batch::Batch,
    report::{self, Outcome},
    runner::{Registry, Runner, ScopeState, current, gate::Hold},
    task::Order,
};

/// Opens a request that is not one future, on the global [`Runner`]: see [`OpenScope`].
///
/// ```
/// # futures::executor::block_on(async {
/// let mut request = after::open();
/// let response = request.enter(|| {
///     after::defer(async { println!("the response is out") });
///     "the response"
/// });
/// println!("{response}");
/// request.end(after::Outcome::Finished);
/// # after::Runner::global().drain().await;
/// # });
/// ```
#[inline]
pub fn open() -> OpenScope {
    OpenScope::with(Registry::global())
}

impl Runner {
    /// Opens a request in several pieces, like [`open`](crate::open), on this Runner.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// let mut request = runner.open();
    /// request.enter(|| after::defer(async { println!("once it has ended") }));
    /// request.end(after::Outcome::Finished);
    /// runner.drain().await;
    /// assert_eq!(runner.stats().completed, 1);
    /// # });
    /// ```
    #[inline]
    pub fn open(&self) -> OpenScope {
        OpenScope::with(Registry::given(self.clone()))
    }
}

/// Scope of a request that is not one future, for integrations; made by [`open`] and [`Runner::open`].
///
/// Opened once, entered for each piece, ended once. What its pieces have deferred then goes to the Runner's spawner as one
/// [`Batch`], as with a [`Scope`](crate::Scope): in one order, with one context, and a key means the same task
/// in all pieces. The pieces may run on different threads, one after the other.
///
/// # When to use it
///
/// - A framework that calls back: one function for the request, one for each chunk, one when all was sent. That is the
///   example below.
/// - A future and then something else: a body that goes on when the future has resolved. The layer of feature `tower`
///   does that, and uses only what is public here.
/// - Code that may run outside a request, as a library's does, and that has no future to wrap: open one if there is none.
///   `examples/library.rs` shows it.
///
/// For a request that is one future use [`scope`](crate::scope): it sees how the request ends, and waits for the queue
/// before its response. Other threads that defer while a piece runs here have a [`Handle`].
///
/// # How it ends
///
/// | | Outcome |
/// |---|---|
/// | [`end`](OpenScope::end), [`hold`](OpenScope::hold) | as the caller says |
/// | dropped without either | [`Cancelled`](Outcome::Cancelled); the tasks start |
/// | [`hand_over`](OpenScope::hand_over), before one of these | as the caller says; the request goes on |
/// | a piece panics | none: the panic propagates, and the scope stays open |
///
/// Whoever catches the panic of a piece may go on, or `end` with [`Outcome::Panicked`]. If nobody does, the unwinding drops
/// the scope, which then ends as `Cancelled`.
///
/// # Cancel safety
///
/// Dropping it ends the request as `Cancelled`, and loses no task. It never panics.
///
/// Until something is deferred it allocates nothing, locks nothing and counts nothing, but for one reference to a Runner
/// that is not the global one. What it has collected is pending until its end, so one that is leaked
/// ([`std::mem::forget`]) keeps [`Runner::drain`] waiting forever.
///
/// On a Runner with backpressure ([`Overflow::Backpressure`](crate::Overflow::Backpressure)) its end does not wait for the
/// queue: await [`ready`](OpenScope::ready) before the response.
///
/// # In your own type
///
/// An integration keeps it in its future, its body or its connection. What such a type also needs:
///
/// | To | |
/// |---|---|
/// | wait for the queue in a `poll` | [`poll_ready`](OpenScope::poll_ready), [`answered`](OpenScope::answered) |
/// | drop in a destructor what is left of the request | [`clean_up`](OpenScope::clean_up) |
/// | run the tasks of an endless stream when its head is sent | [`hand_over`](OpenScope::hand_over) |
/// | start the tasks when the last byte is written | [`start_guard`](OpenScope::start_guard) |
/// | pass values of the request to its tasks | [`context::set`](crate::context::set), in a piece |
/// | return the tasks to a caller that awaits them | [`hold`](OpenScope::hold) |
///
/// # Example
///
/// A connection of a server that calls back, on whichever thread is free:
///
/// ```
/// use after::{OpenScope, Outcome};
///
/// struct Connection {
///     request: OpenScope,
/// }
///
/// impl Connection {
///     fn on_request(path: &str) -> Connection {
///         let mut request = after::open();
///         request.enter(|| {
///             after::context::set(path.to_owned());
///             after::task("audit").defer(async {
///                 let path = after::context::get::<String>();
///                 println!("audit: {path:?}, {:?}", after::outcome());
///             });
///         });
///         Connection { request }
///     }
///
///     fn on_chunk(&mut self, chunk: &str) -> String {
///         // Runs once, however many chunks there are.
///         let count = async { println!("counted") };
///         self.request.enter(|| after::task("count").key("count").defer(count));
///         chunk.to_uppercase()
///     }
///
///     fn on_sent(self) {
///         self.request.end(Outcome::Finished);
///     }
///
///     fn on_error(self) {
///         self.request.end(Outcome::Failed);
///     }
///
///     // When the client disconnects the server drops it: `Cancelled`.
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut connection = Connection::on_request("/upload");
/// let thread = std::thread::spawn(move || {
///     assert_eq!(connection.on_chunk("abc"), "ABC");
///     assert_eq!(connection.on_chunk("def"), "DEF");
///     connection
/// });
/// thread.join().unwrap().on_sent();
/// # Connection::on_request("/").on_error();
/// # after::Runner::global().drain().await;
/// # let stats = after::Runner::global().stats();
/// # assert_eq!((stats.completed, stats.discarded), (3, 1));
/// # }
/// ```
#[must_use = "a scope that is dropped at once ends at once"]
pub struct OpenScope {
    /// For `Sync` alone: nobody ever locks it. A registry is two cells, and they are reached through `&mut self` only, so
    /// `get_mut` serves, which takes no lock. std's and not `crate::sync`'s: there is no race for a model to run.
    registry: Mutex<Registry>,
    order: Option<Order>,
    /// What `hand_over` was told: it stays so.
    pub(super) outcome: Option<Outcome>,
    /// `hand_over` has handed something over, and `registry` is one that lets others join that.
    pub(super) attached: bool,
    /// It stands in the line for room: its turn is with the registry, as is the place that it has got.
    pub(super) waits: bool,
    /// It has a place that is not lent yet.
    pub(super) keeps: bool,
    /// Of its guards, while there are any.
    pub(super) gate: Option<Hold>,
}

impl OpenScope {
    #[inline]
    fn with(registry: Registry) -> Self {
        OpenScope {
            registry: Mutex::new(registry),
            order: None,
            outcome: None,
            attached: false,
            waits: false,
            keeps: false,
            gate: None,
        }
    }

    #[inline]
    pub(super) fn registry(&mut self) -> &mut Registry {
        // Never locked, so never poisoned.
        self.registry
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Order of the tasks of this scope. Default: that of the [Runner](crate::RunnerBuilder::order).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let mut request = after::open().order(after::Order::Sequential);
    /// request.enter(|| after::defer(async { println!("first this") }));
    /// request.enter(|| after::defer(async { println!("then that") }));
    /// request.end(after::Outcome::Finished);
    /// # after::Runner::global().drain().await;
    /// # });
    /// ```
    #[inline]
    pub fn order(mut self, order: Order) -> Self {
        self.order = Some(order);
        self
    }

    /// Runs `f`, a piece of the request, with the scope current.
    ///
    /// Scopes nest: in a request that is itself inside another, the innermost collects, and leaving restores the outer one.
    ///
    /// # Panics
    ///
    /// If `f` does. The scope stays open and as it was, with all that `f` has deferred until then: it may be entered again,
    /// ends as the caller says, and as [`Cancelled`](Outcome::Cancelled) if it is dropped.
    ///
    /// ```
    /// let mut request = after::open();
    /// let length = request.enter(|| {
    ///     assert!(after::in_scope());
    ///     "a piece".len()
    /// });
    /// assert_eq!(length, 7);
    /// assert!(!after::in_scope());
    /// # request.end(after::Outcome::Finished);
    /// ```
    #[inline]
    pub fn enter<R>(&mut self, f: impl FnOnce() -> R) -> R {
        current::enter(self.registry(), f)
    }

    /// Handle to this scope, like [`handle`](crate::handle()) inside: for other tasks and threads. It does not keep the
    /// scope open.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let mut request = after::open();
    /// let handle = request.handle();
    /// std::thread::spawn(move || handle.defer(async { println!("from another thread") }))
    ///     .join()
    ///     .unwrap();
    /// request.end(after::Outcome::Finished);
    /// # after::Runner::global().drain().await;
    /// # });
    /// ```
    pub fn handle(&mut self) -> Handle {
        self.registry().handle()
    }

    /// Runs a closure that drops what is left of the request, with the scope current: for destructors of an integration.
    ///
    /// `f` runs as in [`enter`](OpenScope::enter), but a panic in it is caught, and reported as one of the destructor of
    /// `of_what`. So this never panics, and may run while a panic unwinds, where a second one would abort the process.
    ///
    /// ```
    /// use after::{OpenScope, Outcome};
    ///
    /// struct Body<B> {
    ///     body: Option<B>,
    ///     request: Option<OpenScope>,
    /// }
    ///
    /// impl<B> Drop for Body<B> {
    ///     fn drop(&mut self) {
    ///         if let Some(mut request) = self.request.take() {
    ///             // What the body's destructor defers is of this request.
    ///             request.clean_up("a body", || self.body = None);
    ///             request.end(Outcome::Cancelled);
    ///         }
    ///     }
    /// }
    /// # struct Deferring;
    /// # impl Drop for Deferring {
    /// #     fn drop(&mut self) { after::defer(async {}) }
    /// # }
    /// # drop(Body { body: Some(Deferring), request: Some(after::open()) });
    /// # futures::executor::block_on(after::Runner::global().drain());
    /// # assert_eq!(after::Runner::global().stats().completed, 1);
    /// ```
    pub fn clean_up(&mut self, of_what: &str, f: impl FnOnce()) {
        report::clean_up(of_what, || self.enter(f));
    }

    /// Ends the request: its tasks start, if there are any. Never panics.
    ///
    /// ```
    /// let mut request = after::open();
    /// let alarm = async { println!("it went wrong") };
    /// request.enter(|| after::task("alarm").on_failure().defer(alarm));
    /// request.end(after::Outcome::Failed);
    /// # futures::executor::block_on(after::Runner::global().drain());
    /// ```
    #[inline]
    pub fn end(mut self, outcome: Outcome) {
        self.release(outcome);
        // Nothing is left in it, and the destructor would look for it.
        mem::forget(self);
    }

    /// Ends the request, and returns its tasks to the caller instead of starting them. Never panics. Empty after
    /// [`hand_over`](OpenScope::hand_over) has started what there was.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let mut request = after::open();
    /// let audit = async { println!("not before the response is sent") };
    /// request.enter(|| after::task("audit").defer(audit));
    /// let batch = request.hold(after::Outcome::Finished);
    /// assert!(batch.names().eq(["audit"]));
    /// println!("sending the response");
    /// batch.release();
    /// # after::Runner::global().drain().await;
    /// # });
    /// ```
    pub fn hold(mut self, outcome: Outcome) -> Batch {
        // Nobody knows when this batch will use what was waited for, if at all.
        let place = self.registry().peek(ScopeState::take_place);
        drop(place);
        self.collect(outcome)
    }

    #[inline]
    fn release(&mut self, outcome: Outcome) {
        // As a rule there is nothing, and then not even an empty batch.
        if let Some(state) = self.close() {
            let outcome = self.outcome.unwrap_or(outcome);
            Batch::hand_over(state, outcome, self.order).release();
        }
    }

    pub(super) fn collect(&mut self, outcome: Outcome) -> Batch {
        let state = self.close();
        Batch::collect(state, self.outcome.unwrap_or(outcome), self.order)
    }

    /// Ends the registry. A second time it finds nothing.
    #[inline]
    fn close(&mut self) -> Option<Box<ScopeState>> {
        if self.waits {
            drop(self.leave_line());
        }
        if let Some(hold) = self.gate.take() {
            self.wait_for(hold);
        }
        if self.attached {
            // What it has collected is elsewhere.
            *self.registry() = Registry::global();
            self.attached = false;
        }
        self.registry().close()
    }
}

impl Drop for OpenScope {
    #[inline]
    fn drop(&mut self) {
        self.release(Outcome::Cancelled);
    }
}

impl fmt::Debug for OpenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenScope")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}
