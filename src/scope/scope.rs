//! The request phase: a future during which work is collected, and which hands it over however it ends.

use std::{
    any::Any,
    fmt,
    future::Future,
    mem::{self, ManuallyDrop},
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll},
};

use super::{held::Held, waiting::WaitingAnswer};
use crate::{
    batch::Batch,
    report::{self, Outcome},
    runner::{Registry, Runner, ScopeState, current},
    task::Order,
};

/// Wraps a request: what code inside it [defers](crate::defer()) runs when the request ends.
///
/// On the global [`Runner`], which need not exist yet. See [`Scope`] for what "over" means.
///
/// Unlike `std::thread::scope`, this does not wait for the tasks: it resolves when `request` does, to the same value.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// async fn handler() -> Result<&'static str, String> {
///     after::defer(async { println!("audit: somebody was here") });
///     Ok("hello")
/// }
///
/// let response = after::scope(handler()).failed_if(Result::is_err).await;
/// assert_eq!(response.as_deref(), Ok("hello"));
/// # after::shutdown(std::time::Duration::from_secs(5)).await;
/// # }
/// ```
#[inline]
pub fn scope<F: Future>(request: F) -> Scope<F> {
    Scope::with(Registry::global(), request)
}

impl Runner {
    /// Wraps a request, like [`scope`](crate::scope), on this Runner.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// // In a test: its statistics are those of this request alone.
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async {}) }).await;
    /// runner.drain().await;
    /// assert_eq!(runner.stats().completed, 1);
    /// # });
    /// ```
    #[inline]
    pub fn scope<F: Future>(&self, request: F) -> Scope<F> {
        Scope::with(Registry::given(self.clone()), request)
    }
}

/// How a request has ended, and what it has collected, if anything.
pub(super) struct EndedRequest {
    state: Option<Box<ScopeState>>,
    outcome: Outcome,
    order: Option<Order>,
}

impl EndedRequest {
    pub(super) fn into_batch(self) -> Batch {
        Batch::collect(self.state, self.outcome, self.order)
    }
}

pin_project_lite::pin_project! {
    /// Future of a request that collects deferred tasks and starts them when it ends; made by [`scope`] and
    /// [`Runner::scope`].
    ///
    /// The request ends when the inner future resolves, when this is dropped before that, or when the inner future panics.
    /// The tasks then go to the Runner's spawner as one [`Batch`], exactly once. If there are none, nothing is spawned. Until the first `defer` a scope allocates nothing, locks nothing and counts nothing, but for one
    /// reference to a Runner that is not the global one.
    ///
    /// The scope is current while the inner future is polled and while it is dropped, so its destructors may defer. The
    /// inner future is dropped as soon as it resolves, before the tasks start. Scopes nest: the innermost collects.
    ///
    /// On a Runner with backpressure ([`Overflow::Backpressure`](crate::Overflow::Backpressure)) a scope that has collected
    /// tasks resolves when the queue has capacity for them. It may hold the output meanwhile, so a scope is `Send` only if
    /// `F` and `F::Output` are, on every Runner.
    ///
    /// # Cancel safety
    ///
    /// Dropping it before it resolves cancels the request, and loses no task: the inner future is dropped, and the tasks
    /// start, with [`Outcome::Cancelled`]. Dropping never panics: a panic of the inner future's destructor, or of the
    /// destructor of an output that waits for the queue, is caught and reported.
    ///
    /// # Leaking it
    ///
    /// A scope that is leaked ([`std::mem::forget`], a cycle of `Arc`s) never ends: its tasks never run and are never
    /// dropped. They stay pending, so [`Runner::drain`] never returns, and a shutdown waits up to its limit and says how
    /// many tasks are "of requests that have not ended": at least one of each such request.
    ///
    /// # Panics
    ///
    /// When polled after it has resolved. A panic of the inner future propagates; the tasks start before.
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F: Future> {
        // `Some` until it has resolved, panicked, or is dropped.
        #[pin]
        future: Option<F>,
        // Empty whenever `future` is `None`, and so at the end of our `Drop`: nothing is left for the compiler to drop, and
        // what it would insert into every request to look is a tenth of an idle scope's cost.
        registry: ManuallyDrop<Registry>,
        failed_if: Option<fn(&F::Output) -> bool>,
        pub(super) order: Option<Order>,
        // `Some` while its tasks wait for room, and the answer with them. Taken out by our `Drop`.
        pub(super) waiting: ManuallyDrop<Option<Box<WaitingAnswer<F::Output>>>>,
    }

    impl<F: Future> PinnedDrop for Scope<F> {
        fn drop(this: Pin<&mut Self>) {
            if this.future.is_some() || this.waiting.is_some() {
                this.drop_early();
            }
        }
    }
}

impl<F: Future> Scope<F> {
    #[inline]
    fn with(registry: Registry, request: F) -> Self {
        Scope {
            future: Some(request),
            registry: ManuallyDrop::new(registry),
            failed_if: None,
            order: None,
            waiting: ManuallyDrop::new(None),
        }
    }

    /// Returns the tasks to the caller, as a [`Batch`], instead of starting them.
    ///
    /// For servers that know when the response is written:
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let audit = async { println!("not before the response is sent") };
    /// let request = async { after::defer(audit) };
    /// let ((), batch) = after::scope(request).held().await;
    /// println!("sending the response");
    /// batch.release();
    /// # });
    /// ```
    pub fn held(self) -> Held<F> {
        Held { scope: self }
    }

    /// Decides from the output whether the request counts as [`Outcome::Failed`].
    ///
    /// Without it every output, also an `Err`, counts as [`Outcome::Finished`].
    ///
    /// `failed` runs with the scope current. If it panics, the outcome is [`Outcome::Panicked`] and the panic propagates.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let request = async {
    ///     after::defer(async { assert_eq!(after::outcome(), Some(after::Outcome::Failed)) });
    ///     "x".parse::<u8>()
    /// };
    /// assert!(after::scope(request).failed_if(Result::is_err).await.is_err());
    /// # });
    /// ```
    #[inline]
    pub fn failed_if(mut self, failed: fn(&F::Output) -> bool) -> Self {
        self.failed_if = Some(failed);
        self
    }

    /// Order of the tasks of this scope. Default: that of the [Runner](crate::RunnerBuilder::order).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let request = async {
    ///     after::defer(async { println!("first this") });
    ///     after::defer(async { println!("then that") });
    /// };
    /// after::scope(request).order(after::Order::Sequential).await;
    /// # });
    /// ```
    #[inline]
    pub fn order(mut self, order: Order) -> Self {
        self.order = Some(order);
        self
    }

    pub(super) fn is_over(&self) -> bool {
        self.future.is_none()
    }

    /// Polls the request; when it resolves, ends it and calls `ended` with its tasks. Calls `over` if it had ended before.
    #[inline]
    pub(super) fn poll_request<R>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        ended: impl FnOnce(Pin<&mut Self>, &mut Context<'_>, F::Output, EndedRequest) -> Poll<R>,
        over: impl FnOnce(Pin<&mut Self>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut unwinding = UnwindGuard { scope: self };
        let this = unwinding.scope.as_mut().project();
        let Some(future) = this.future.as_pin_mut() else {
            return over(unwinding.scope.as_mut(), cx);
        };
        // Nothing else inside `enter`: this is what every poll of every request pays.
        let polled = current::enter(this.registry, || future.poll(cx));
        let Poll::Ready(output) = polled else {
            mem::forget(unwinding);
            return Poll::Pending;
        };
        let (output, how) = unwinding.scope.as_mut().end(output);
        let result = ended(unwinding.scope.as_mut(), cx, output, how);
        mem::forget(unwinding);
        result
    }

    /// The request has resolved. Its future is dropped first, because its destructors may defer.
    #[inline]
    fn end(self: Pin<&mut Self>, output: F::Output) -> (F::Output, EndedRequest) {
        let mut this = self.project();
        // Entered for the user's code alone: most futures without a destructor need no more than this test.
        let outcome = if mem::needs_drop::<F>() || this.failed_if.is_some() {
            let judged = report::catch(|| {
                current::enter(this.registry, || {
                    this.future.set(None);
                    match this.failed_if {
                        Some(failed) if failed(&output) => Outcome::Failed,
                        _ => Outcome::Finished,
                    }
                })
            });
            match judged {
                Ok(outcome) => outcome,
                Err(payload) => {
                    panic_with(this.registry, "the answer of a request", output, payload)
                }
            }
        } else {
            this.future.set(None);
            Outcome::Finished
        };
        let ended = EndedRequest {
            state: this.registry.close(),
            outcome,
            order: *this.order,
        };
        (output, ended)
    }

    #[cold]
    fn drop_early(mut self: Pin<&mut Self>) {
        if self.future.is_some() {
            self.as_mut().abandon(Outcome::Cancelled);
        }
        // With it goes the answer, whose destructor may panic.
        let waiting = self.project().waiting.take();
        report::clean_up("the answer of a request", || drop(waiting));
    }

    /// The request will not resolve: its future is dropped, and what it has deferred is handed over.
    ///
    /// Never panics: this may run while a panic unwinds, where a second one would abort the process. The future's
    /// destructor is caught here. The conditions, hooks and destructors of tasks are caught where `Batch::collect`
    /// calls them, and the spawner in `Batch::release`. All else is our own code, which finds its cells filled
    /// (invariant 1).
    #[cold]
    fn abandon(self: Pin<&mut Self>, outcome: Outcome) {
        let mut this = self.project();
        report::clean_up("the future of a request", || {
            current::enter(this.registry, || this.future.set(None));
        });
        Batch::collect(this.registry.close(), outcome, *this.order).release();
    }
}

/// A panic goes on, of the future's destructor or of `failed_if`, when there is an answer already. That goes first, in the
/// scope: its destructor may defer, and one that panics while another panic unwinds aborts the process.
#[cold]
pub(super) fn panic_with<T>(
    registry: &Registry,
    of_what: &str,
    output: T,
    payload: Box<dyn Any + Send>,
) -> ! {
    report::clean_up(of_what, || current::enter(registry, || drop(output)));
    resume_unwind(payload)
}

/// Ends the request if a user's code panics in a poll; forgotten otherwise.
struct UnwindGuard<'a, F: Future> {
    scope: Pin<&'a mut Scope<F>>,
}

impl<F: Future> Drop for UnwindGuard<'_, F> {
    #[inline]
    fn drop(&mut self) {
        self.scope.as_mut().abandon(Outcome::Panicked);
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_request(
            cx,
            |scope, cx, output, ended| match ended.state {
                None => Poll::Ready(output),
                Some(state) => scope.hand_over(cx, output, state, ended.outcome),
            },
            Scope::poll_room,
        )
    }
}

impl<F: Future> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}

#[cold]
pub(super) fn polled_after_completion() -> ! {
    panic!("`Scope` polled after completion: its request has resolved or panicked already");
}
