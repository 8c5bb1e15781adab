//! A request that is not one future: opened once, entered for each of its pieces, ended once.

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    panic::resume_unwind,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use super::handle::Handle;
use crate::{
    batch::Batch,
    limit::{Place, Room},
    report::{self, Outcome},
    runner::{Registry, Runner, current},
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
/// one [`Batch`], as a [`Scope`](crate::Scope) does it: in one order, with one context, and a key means the same task in all
/// pieces. The pieces may run on different threads, one after the other.
///
/// # When to use it
///
/// - A framework that calls back: one function for the request, one for each chunk, one when all was sent. That is the
///   example below.
/// - A future and then something else: a body that goes on when the future has resolved. The layer of feature `tower`
///   is such a thing.
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
    /// For how many tasks `ready` has waited, and what it was given.
    ready: usize,
    place: Option<Place>,
}

impl OpenScope {
    #[inline]
    fn with(registry: Registry) -> Self {
        OpenScope {
            registry: Mutex::new(registry),
            order: None,
            ready: 0,
            place: None,
        }
    }

    #[inline]
    pub(crate) fn on(runner: Runner) -> Self {
        OpenScope::with(Registry::given(runner))
    }

    #[inline]
    fn registry(&mut self) -> &Registry {
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
    /// Others wait for the end of each such scope for 10 ms at the most, and then pass as if no room was kept for it. At its end
    /// it has that room again; only a scope that ends as `Cancelled` may find it gone. Dropping the future gives up its
    /// place in the line, and nothing else. Ending the scope uses what it has waited for; [`hold`](OpenScope::hold) gives that up.
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
        let ready = self.ready;
        let Some((tasks, mut room)) = self.registry().room_beyond(ready) else {
            return;
        };
        poll_fn(|cx| room.poll(cx)).await;
        self.ready = tasks;
        self.keep(room);
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
        self.hand_over(outcome);
    }

    /// The request is over, and the caller decides when its tasks are handed over.
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
        // Room that was promised goes with `self`: nobody knows when this batch will use it, if at all.
        self.collect(outcome)
    }

    fn collect(&mut self, outcome: Outcome) -> Batch {
        let order = self.order;
        Batch::collect(self.registry(), outcome, order)
    }

    /// A second time it finds nothing: the registry was taken out by the first.
    #[inline]
    fn hand_over(&mut self, outcome: Outcome) {
        let batch = self.collect(outcome);
        if !batch.is_done() {
            self.release(batch);
        }
    }

    /// Keeps what `ready` was given until the end of the scope, and lends it meanwhile: how long that takes may be up to a
    /// client.
    fn keep(&mut self, room: Room) {
        let mut place = room.take();
        if let Some(earlier) = self.place.take() {
            place = place.and(earlier);
        }
        place.lend(!current::in_scope());
        self.place = Some(place);
    }

    /// Hands over, with what `ready` was given.
    fn release(&mut self, batch: Batch) {
        match self.place.take() {
            Some(place) => batch.release_in(place),
            None => batch.release(),
        }
    }
}

impl Drop for OpenScope {
    #[inline]
    fn drop(&mut self) {
        self.hand_over(Outcome::Cancelled);
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
    /// The scope is current while the inner future is polled and while it is dropped, so that its destructors may defer. The
    /// inner future is dropped as soon as it resolves.
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

/// A panic of the future's destructor goes on when there is an output already. That goes first, in the scope: its destructor
/// may defer, and one that panics while another panic unwinds aborts the process.
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
