//! A request that is not one future: opened once, entered for each of its pieces, ended once.

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    mem,
    panic::resume_unwind,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use super::handle::Handle;
use crate::{
    batch::Batch,
    limit::Room,
    report::{self, Outcome},
    runner::{Registry, Runner, ScopeState, current, gate::Hold},
    task::Order,
};

/// Opens a request that comes in several pieces, on the global [`Runner`]: see [`OpenScope`].
///
/// ```
/// # futures::executor::block_on(async {
/// let mut request = after::open();
/// let answer = request.enter(|| {
///     after::defer(async { println!("the answer is out") });
///     "the answer"
/// });
/// println!("{answer}");
/// request.end(after::Outcome::Finished);
/// # after::Runner::global().drain().await;
/// # });
/// ```
#[inline]
pub fn open() -> OpenScope {
    OpenScope::with(Registry::global())
}

/// A request that is not one future; made by [`open`] and [`Runner::open`].
///
/// Opened once, entered for each piece, ended once. What its pieces have deferred is then handed to the Runner's spawner as
/// one [`Batch`], as a [`Scope`](crate::Scope) does it: in one order, with one context, and a key means the same task
/// in all pieces. The pieces may run on different threads, one after the other.
///
/// # When to use it
///
/// - A framework that calls back: one function for the request, one for each chunk, one when all was sent. That is the
///   example below.
/// - A future and then something else: a body that goes on when the future has resolved. The layer of feature `tower`
///   is such a thing, and uses nothing but this and what else is public here.
/// - Code that may run outside a request, as a library's does, and that has no future to wrap: open one if there is none.
///   `examples/library.rs` shows it.
///
/// A request that is one future is for [`scope`](crate::scope): it knows by itself how the request ends, and waits for room
/// before its answer. Other threads that defer while a piece runs here have a [`Handle`].
///
/// # How it ends
///
/// | | Outcome |
/// |---|---|
/// | [`end`](OpenScope::end), [`hold`](OpenScope::hold) | as the caller says |
/// | dropped without either | [`Cancelled`](Outcome::Cancelled); handed over |
/// | [`hand_over`](OpenScope::hand_over), before one of these | as the caller says; the request goes on |
/// | a piece panics | none: the panic goes on, and the scope stays open |
///
/// Whoever catches the panic of a piece may go on, or `end` with [`Outcome::Panicked`]. If nobody does, the unwinding drops
/// the scope, which then ends as `Cancelled`. Dropping never panics.
///
/// Until something is deferred it allocates nothing, locks nothing and counts nothing, but for one reference to a Runner
/// that is not the global one. What it has collected is pending until its end, so one that is leaked
/// ([`std::mem::forget`]) keeps [`Runner::drain`] waiting for good.
///
/// On a Runner that pushes back ([`Overflow::Backpressure`](crate::Overflow::Backpressure)) its end does not wait for room:
/// await [`ready`](OpenScope::ready) before the answer.
///
/// # In a type of one's own
///
/// An integration keeps it in its future, its body or its connection. What such a type needs besides:
///
/// | To | |
/// |---|---|
/// | wait for room in a `poll` | [`poll_ready`](OpenScope::poll_ready), [`answered`](OpenScope::answered) |
/// | drop in a destructor what is left of the request | [`clean_up`](OpenScope::clean_up) |
/// | run the tasks of a stream without an end at its head | [`hand_over`](OpenScope::hand_over) |
/// | start the tasks when the last byte is written | [`start_guard`](OpenScope::start_guard) |
/// | tell its tasks of the request | [`context::set`](crate::context::set), in a piece |
/// | give the tasks to who waits for them | [`hold`](OpenScope::hold) |
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
///     // And when the client goes the server drops it: `Cancelled`.
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
    outcome: Option<Outcome>,
    /// `hand_over` has handed something over, and `registry` is one that lets others join that.
    attached: bool,
    /// It stands in the line for room: its turn is with the registry, as is the place that it has got.
    waits: bool,
    /// It has a place that is not lent yet.
    keeps: bool,
    /// Of its guards, while there are any.
    gate: Option<Hold>,
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
    pub(crate) fn on(runner: Runner) -> Self {
        OpenScope::with(Registry::given(runner))
    }

    #[inline]
    fn registry(&mut self) -> &mut Registry {
        // Never locked, so never poisoned.
        self.registry
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How the tasks of this scope run beside each other. Default: what the Runner says.
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

    /// A piece of the request that is a future: it is polled, and dropped, with the scope current.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// async fn handler() -> Result<u32, std::num::ParseIntError> {
    ///     after::task("receipt").on_success().defer(async { println!("receipt") });
    ///     "7".parse()
    /// }
    ///
    /// let mut request = after::open();
    /// let answer = request.scope(handler()).await;
    /// request.ready().await;
    /// // .. the answer is sent, in pieces ..
    /// request.end(match answer {
    ///     Ok(_) => after::Outcome::Finished,
    ///     Err(_) => after::Outcome::Failed,
    /// });
    /// # after::Runner::global().drain().await;
    /// # });
    /// ```
    pub fn scope<F: Future>(&mut self, future: F) -> Entered<'_, F> {
        Entered {
            future: Some(future),
            scope: self,
        }
    }

    /// A handle to this scope, as [`handle`](crate::handle()) gives it inside: for other tasks and threads. It does not
    /// keep the scope open.
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

    /// Waits for room for what was deferred so far, on a Runner that pushes back; resolves at once on all others.
    ///
    /// To be awaited before the answer is given out. With [`Overflow::Backpressure`](crate::Overflow::Backpressure) it
    /// resolves when there is room for the tasks, first come, first served. If more is deferred after that, call it again,
    /// and it waits for the rest. What was never waited for, by the end, counts as what can't wait. With nothing deferred,
    /// without limits, and in a deferred task, it resolves at once.
    ///
    /// Others wait for the end of each such scope for 10 ms at the most, and then pass as if no room was kept for it.
    /// At its end it has that room again; only a scope that ends as `Cancelled` may find it gone. Dropping the future
    /// gives up its place in the line, and nothing else. Ending the scope uses what it has waited for;
    /// [`hold`](OpenScope::hold) gives that up.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use after::{Outcome, Overflow, Runner};
    ///
    /// let runner = Runner::builder()
    ///     .max_running(64)
    ///     .max_waiting(1_000)
    ///     .overflow(Overflow::Backpressure)
    ///     .build();
    /// let mut request = runner.open();
    /// let answer = request.enter(|| {
    ///     after::defer(async { println!("the answer is out") });
    ///     "the answer"
    /// });
    /// request.ready().await;
    /// println!("{answer}");
    /// request.end(Outcome::Finished);
    /// # runner.drain().await;
    /// # });
    /// ```
    pub async fn ready(&mut self) {
        let waiting = Waiting { scope: self };
        poll_fn(|cx| waiting.scope.poll_ready(cx)).await;
        waiting.scope.answered();
    }

    /// As [`ready`](OpenScope::ready), for a future of one's own that has the scope in it.
    ///
    /// While it is pending the scope stands in the line, with what was deferred when it came, and wakes the waker of
    /// the last call when there is room. It leaves the line when it ends, is held or dropped.
    ///
    /// Others wait for the room that it was given until the request ends, or until [`answered`](OpenScope::answered)
    /// says that the answer is out: call that if the request goes on then, as with a body that is still to be read.
    ///
    /// ```
    /// use std::{
    ///     future::Future,
    ///     pin::Pin,
    ///     task::{Context, Poll, ready},
    /// };
    ///
    /// use after::{OpenScope, Outcome};
    ///
    /// /// Resolves when the answer may be given out.
    /// struct Answering {
    ///     request: Option<OpenScope>,
    ///     answer: &'static str,
    /// }
    ///
    /// impl Future for Answering {
    ///     type Output = (&'static str, OpenScope);
    ///
    ///     fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
    ///         let request = self.request.as_mut().expect("polled after completion");
    ///         ready!(request.poll_ready(cx));
    ///         let request = self.request.take().expect("it was there");
    ///         Poll::Ready((self.answer, request))
    ///     }
    /// }
    ///
    /// # futures::executor::block_on(async {
    /// let mut request = after::open();
    /// request.enter(|| after::defer(async { println!("the answer is out") }));
    /// let (answer, request) = Answering { request: Some(request), answer: "the answer" }.await;
    /// println!("{answer}");
    /// request.end(Outcome::Finished);
    /// # after::Runner::global().drain().await;
    /// # });
    /// ```
    #[inline]
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waits {
            let room = match self.attached {
                // What joins tasks that were handed over already can't wait.
                true => None,
                false => self.registry().room(),
            };
            return match room {
                None => Poll::Ready(()),
                Some(room) => self.poll_room(room, cx),
            };
        }
        self.wait_on(cx)
    }

    #[cold]
    fn wait_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.leave_line() {
            Some(room) => self.poll_room(room, cx),
            None => Poll::Ready(()),
        }
    }

    /// What it is given is kept until the end of the scope.
    #[cold]
    fn poll_room(&mut self, mut room: Room, cx: &mut Context<'_>) -> Poll<()> {
        // Out of the registry meanwhile, because the waker is the user's code. If that panics the turn is given up.
        if room.poll(cx).is_pending() {
            self.registry()
                .peek(|state| state.extras_mut().room = Some(room));
            self.waits = true;
            return Poll::Pending;
        }
        let mut place = room.take();
        let earlier = self.registry().peek(ScopeState::take_place);
        if let Some(earlier) = earlier.flatten() {
            place = place.and(earlier);
        }
        self.registry()
            .peek(|state| state.extras_mut().place = Some(place));
        self.keeps = true;
        Poll::Ready(())
    }

    /// The answer is out, and the request goes on: how long it takes from here on may be up to a client.
    ///
    /// So others wait for the room that [`poll_ready`](OpenScope::poll_ready) was given for a short time only, as
    /// [`ready`](OpenScope::ready) says; that calls this itself. Does nothing where there is no such room, and a second
    /// time. Not needed where the request ends at once, or is [handed over](OpenScope::hand_over): it uses its room then.
    ///
    /// ```
    /// use std::task::{Context, Poll};
    ///
    /// /// The head of an answer, whose body is still to be read.
    /// fn poll_head(request: &mut after::OpenScope, cx: &mut Context<'_>) -> Poll<&'static str> {
    ///     std::task::ready!(request.poll_ready(cx));
    ///     request.answered();
    ///     Poll::Ready("200 OK")
    /// }
    /// # let mut request = after::open();
    /// # let mut cx = Context::from_waker(std::task::Waker::noop());
    /// # assert!(poll_head(&mut request, &mut cx).is_ready());
    /// # request.end(after::Outcome::Finished);
    /// ```
    #[inline]
    pub fn answered(&mut self) {
        if self.keeps {
            self.lend();
        }
    }

    #[cold]
    fn lend(&mut self) {
        self.keeps = false;
        // Out of the registry: whom this wakes is the user's code.
        let place = self.registry().peek(ScopeState::take_place);
        if let Some(mut place) = place.flatten() {
            place.lend(!current::in_scope());
            self.registry()
                .peek(|state| state.extras_mut().place = Some(place));
        }
    }

    fn leave_line(&mut self) -> Option<Room> {
        self.waits = false;
        let room = |state: &mut ScopeState| state.extras_if_any()?.room.take();
        self.registry().peek(room).flatten()
    }

    /// Drops what is left of the request, with the scope current: for the destructors of an integration's own types.
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
        if let Err(payload) = report::catch(|| self.enter(f)) {
            report::unnamed_panicked(of_what, payload);
        }
    }

    /// Keeps the tasks of this scope from starting until the guard is dropped, and all others of this scope and their
    /// clones: see [`StartGuard`].
    ///
    /// The scope itself is over when it is ended, guards or not: its outcome and its conditions are decided there, and it
    /// is handed over to the spawner, or given out by [`hold`](OpenScope::hold). The tasks wait there. A guard that is
    /// taken after [`hand_over`](OpenScope::hand_over) has handed tasks over keeps nothing from starting.
    ///
    /// The first one costs an allocation, and none is made until then.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use after::{Outcome, Runner};
    ///
    /// let runner = Runner::builder().build();
    /// let mut request = runner.open();
    /// request.enter(|| after::defer(async { println!("the last byte is written") }));
    /// let unwritten = request.start_guard();
    /// request.end(Outcome::Finished);
    /// assert_eq!(runner.stats().pending, 1);
    /// // .. when the socket has taken the last byte ..
    /// drop(unwritten);
    /// runner.drain().await;
    /// # assert_eq!(runner.stats().completed, 1);
    /// # });
    /// ```
    #[inline]
    pub fn start_guard(&mut self) -> StartGuard {
        StartGuard {
            hold: self.gate.get_or_insert_with(Hold::new).clone(),
        }
    }

    /// Hands over what was deferred so far, while the request goes on: for a stream without an end, when its head is out.
    ///
    /// `outcome` is how the request counts as ended from here on, for all its tasks: what a later call of this or the
    /// end of the scope says does not matter any more. The [`context`](crate::context) is frozen when something is
    /// handed over: later pieces read it, and can't change it. What they defer joins the tasks that were handed over
    /// while these run, and is handed over at once, each by itself, when they have ended.
    ///
    /// If nothing was deferred, nothing set and no handle taken so far, it is as if nothing had been called but for the
    /// outcome. So call it after each piece: it does nothing once something was handed over. What a piece has deferred when
    /// none of the calls came after it is handed over at the end.
    ///
    /// Never panics.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use after::Outcome;
    ///
    /// let mut request = after::open();
    /// request.enter(|| after::defer(async { println!("somebody is watching: {:?}", after::outcome()) }));
    /// // The head is out.
    /// request.hand_over(Outcome::Finished);
    /// for event in ["tick", "tock"] {
    ///     request.enter(|| after::defer(async move { println!("{event} is out") }));
    ///     request.hand_over(Outcome::Finished);
    /// }
    /// // The client has gone, as they all do.
    /// drop(request);
    /// # after::Runner::global().drain().await;
    /// # assert_eq!(after::Runner::global().stats().completed, 3);
    /// # });
    /// ```
    #[inline]
    pub fn hand_over(&mut self, outcome: Outcome) {
        if !self.attached {
            let outcome = *self.outcome.get_or_insert(outcome);
            self.hand_over_so_far(outcome);
        }
    }

    #[cold]
    fn hand_over_so_far(&mut self, outcome: Outcome) {
        if !self.registry().is_used() {
            return;
        }
        let handle = self.registry().handle();
        // Before the end, so that later pieces keep the values of the request.
        let attached = handle.frozen_registry();
        let batch = self.collect(outcome);
        *self.registry() = attached;
        self.attached = true;
        batch.release();
    }

    /// The request is over: its tasks are handed over, if there are any. Never panics.
    ///
    /// ```
    /// let mut request = after::open();
    /// request.enter(|| after::task("alarm").on_failure().defer(async { println!("it went wrong") }));
    /// request.end(after::Outcome::Failed);
    /// # futures::executor::block_on(after::Runner::global().drain());
    /// ```
    #[inline]
    pub fn end(mut self, outcome: Outcome) {
        self.collect(outcome).release();
        // Nothing is left in it, and the destructor would look for it.
        mem::forget(self);
    }

    /// The request is over, and the caller decides when its tasks are handed over. Never panics. Empty after
    /// [`hand_over`](OpenScope::hand_over) has handed over what there was.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let mut request = after::open();
    /// request.enter(|| after::task("audit").defer(async { println!("not before the answer is sent") }));
    /// let batch = request.hold(after::Outcome::Finished);
    /// assert!(batch.names().eq(["audit"]));
    /// println!("sending the answer");
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

    /// Ends the registry. A second time it finds nothing.
    #[inline]
    fn collect(&mut self, outcome: Outcome) -> Batch {
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
        let (outcome, order) = (self.outcome.unwrap_or(outcome), self.order);
        Batch::collect(self.registry(), outcome, order)
    }

    #[cold]
    fn wait_for(&mut self, hold: Hold) {
        let gate = hold.gate().clone();
        // The gate that this opens nobody waits for yet.
        drop(hold);
        if !gate.is_open() && !self.attached {
            self.registry().wait_for(gate);
        }
    }
}

/// Gives up the place in the line when it is dropped.
struct Waiting<'a> {
    scope: &'a mut OpenScope,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.scope.waits {
            drop(self.scope.leave_line());
        }
    }
}

/// Keeps the tasks of an [`OpenScope`] from starting, until it is dropped and with it all others of its scope; made by
/// [`OpenScope::start_guard`].
///
/// For "written": give one out with each piece of the answer, to be dropped with it. The layer of feature `tower` does
/// so with each data frame, under `RunAfter::Written`.
///
/// Dropping it may be done anywhere, under a lock of a server, too: the last one marks the tasks as ready and wakes the
/// executor, and none of your code runs there, no task, no destructor, no observer. One that is leaked, or kept for
/// ever, keeps the tasks waiting for ever: they stay pending. Tasks whose batch is dropped meanwhile are lost, as ever.
///
/// Time limits, and the line for permits, begin when the last one is dropped. What a [`Handle`] defers
/// meanwhile starts with the rest. `Send` and `Sync`; cloning and dropping it costs two atomic operations.
///
/// ```
/// # futures::executor::block_on(async {
/// use after::StartGuard;
/// use bytes::Bytes;
///
/// /// A piece of the answer.
/// struct Piece {
///     data: &'static [u8],
///     _unwritten: StartGuard,
/// }
///
/// impl AsRef<[u8]> for Piece {
///     fn as_ref(&self) -> &[u8] {
///         self.data
///     }
/// }
///
/// let mut request = after::open();
/// request.enter(|| after::defer(async { println!("all is written") }));
/// let pieces: Vec<Bytes> = [&b"the "[..], b"answer"]
///     .into_iter()
///     .map(|data| Bytes::from_owner(Piece { data, _unwritten: request.start_guard() }))
///     .collect();
/// request.end(after::Outcome::Finished);
/// drop(pieces); // by the server, one by one
/// # after::Runner::global().drain().await;
/// # });
/// ```
#[must_use = "a guard that is dropped at once keeps nothing from starting"]
#[derive(Clone)]
pub struct StartGuard {
    #[allow(dead_code)] // For its destructor.
    hold: Hold,
}

impl fmt::Debug for StartGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartGuard").finish_non_exhaustive()
    }
}

impl Drop for OpenScope {
    #[inline]
    fn drop(&mut self) {
        self.collect(Outcome::Cancelled).release();
    }
}

impl fmt::Debug for OpenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenScope")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// A future that runs in an [`OpenScope`], as a piece of its request; made by [`OpenScope::scope`].
    ///
    /// The scope is current while the inner future is polled and while it is dropped, so that its destructors may
    /// defer. The inner future is dropped as soon as it resolves.
    ///
    /// Dropping it before that drops the inner future, and leaves the scope open. This never panics: a panic of the inner
    /// future's destructor is caught there and reported.
    ///
    /// # Panics
    ///
    /// When polled after it has resolved. A panic of the inner future passes through, and leaves the scope open, as one in
    /// [`enter`](OpenScope::enter) does.
    #[must_use = "futures do nothing unless polled"]
    pub struct Entered<'a, F> {
        // `Some` until it has resolved or is dropped.
        #[pin]
        future: Option<F>,
        scope: &'a mut OpenScope,
    }

    impl<F> PinnedDrop for Entered<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                let dropped = report::catch(|| this.scope.enter(|| this.future.set(None)));
                if let Err(payload) = dropped {
                    report::unnamed_panicked("a future in an open scope", payload);
                }
            }
        }
    }
}

impl<F: Future> Future for Entered<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let registry = this.scope.registry();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            panic!("`Entered` polled after completion: its future has resolved already");
        };
        let Poll::Ready(output) = current::enter(registry, || future.poll(cx)) else {
            return Poll::Pending;
        };
        // Its destructors may defer. They are before the answer.
        match report::catch(|| current::enter(registry, || this.future.set(None))) {
            Ok(()) => Poll::Ready(output),
            Err(payload) => panic_with(registry, output, payload),
        }
    }
}

/// A panic of the future's destructor goes on when there is an output already. That goes first, in the scope: its
/// destructor may defer, and one that panics while another panic unwinds aborts the process.
#[cold]
fn panic_with<T>(registry: &Registry, output: T, payload: Box<dyn Any + Send>) -> ! {
    if let Err(second) = report::catch(|| current::enter(registry, || drop(output))) {
        report::unnamed_panicked("what a future in an open scope has resolved to", second);
    }
    resume_unwind(payload)
}

impl<F> fmt::Debug for Entered<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered")
            .field("over", &self.future.is_none())
            .finish_non_exhaustive()
    }
}
