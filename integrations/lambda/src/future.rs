//! One invocation: the runtime's own future, which ends when the response is sent, and then the tasks.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use after::{Batch, OpenScope, Outcome, Runner, context};
use lambda_runtime::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::ending::{Ending, Told};

pin_project_lite::pin_project! {
    /// The future of an [`AfterLambdaService`](crate::AfterLambdaService): resolves when the response is sent and what was
    /// deferred is done, or cut off.
    ///
    /// Dropped before the response is sent, it hands over as [`Cancelled`](Outcome::Cancelled); dropped after that, what
    /// is unfinished is lost and reported. Never panics when it is dropped.
    #[must_use = "futures do nothing unless polled"]
    pub struct AfterLambdaFuture<F> {
        // `Some` until the response is sent.
        #[pin]
        inner: Option<F>,
        sent: Option<Result<(), Error>>,
        // `Some` until the outcome is known.
        scope: Option<OpenScope>,
        told: Told,
        batch: Option<Batch>,
        // Where the platform freezes: whose tasks all have to end first.
        runner: Option<Runner>,
        rest: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
        // The request's, for the log.
        id: String,
        until: Instant,
        // Made when there is something to wait for.
        #[pin]
        deadline: Option<Sleep>,
    }

    impl<F> PinnedDrop for AfterLambdaFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(scope) = this.scope {
                // What its destructors defer is of this invocation. It ends as cancelled when its field is dropped.
                scope.clean_up("an invocation", || this.inner.set(None));
            }
        }
    }
}

impl<F> AfterLambdaFuture<F> {
    pub(crate) fn begin(
        mut scope: OpenScope,
        runner: Option<Runner>,
        id: String,
        until: Instant,
        call: impl FnOnce() -> F,
    ) -> Self {
        let (ending, told) = Ending::new();
        let inner = scope.enter(|| {
            context::set(ending);
            call()
        });
        AfterLambdaFuture {
            inner: Some(inner),
            sent: None,
            scope: Some(scope),
            told,
            batch: None,
            runner,
            rest: None,
            id,
            until,
            deadline: None,
        }
    }
}

impl<F> Future for AfterLambdaFuture<F>
where
    F: Future<Output = Result<(), Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let (Some(inner), Some(scope)) = (this.inner.as_mut().as_pin_mut(), &mut *this.scope) {
            *this.sent = Some(ready!(scope.enter(|| inner.poll(cx))));
            scope.enter(|| this.inner.set(None));
        }
        let until = *this.until;
        let mut is_late = |cx: &mut Context<'_>| {
            // The timer rounds up to its next tick, and where no time is left nothing begins.
            if Instant::now() >= until {
                return true;
            }
            if this.deadline.is_none() {
                this.deadline.set(Some(sleep_until(until)));
            }
            let deadline = this.deadline.as_mut().as_pin_mut();
            deadline.is_none_or(|deadline| deadline.poll(cx).is_ready())
        };
        if this.scope.is_some() {
            let outcome = match this.told.poll(cx) {
                Poll::Ready(Some(outcome)) => outcome,
                Poll::Ready(None) if matches!(this.sent, Some(Err(_))) => Outcome::Failed,
                Poll::Ready(None) => Outcome::Finished,
                // The platform has its answer, and the body is still there: a stream that was broken off.
                Poll::Pending if is_late(cx) => Outcome::Cancelled,
                Poll::Pending => return Poll::Pending,
            };
            *this.batch = this.scope.take().map(|scope| scope.hold(outcome));
        }
        if let Some(batch) = &mut *this.batch {
            if Pin::new(&mut *batch).poll(cx).is_pending() {
                if !is_late(cx) {
                    return Poll::Pending;
                }
                let (id, count) = (&*this.id, batch.len());
                let names: Vec<_> = batch.names().map(|name| format!("`{name}`")).collect();
                let names = names.join(", ");
                eprintln!(
                    "after-lambda: the deadline of invocation {id} cuts off {count} unfinished: {names}"
                );
            }
            // What is left is lost, and reported by `after` with the place of its `defer`.
            *this.batch = None;
        }
        // What a scope inside this one has collected, or came through a handle when the batch was over.
        if let Some(runner) = this.runner.take_if(|_| this.rest.is_none()) {
            if runner.stats().pending > 0 {
                let drained = runner.clone();
                *this.rest = Some(Box::pin(async move { drained.drain().await }));
                *this.runner = Some(runner);
            }
        }
        if let Some(rest) = &mut *this.rest {
            if rest.as_mut().poll(cx).is_pending() {
                if !is_late(cx) {
                    return Poll::Pending;
                }
                for task in this.runner.iter().flat_map(Runner::unfinished) {
                    let (id, name, location) = (&*this.id, task.name, task.location);
                    eprintln!(
                        "after-lambda: at the deadline of invocation {id} `{name}` ({location}) is unfinished: it is frozen"
                    );
                }
            }
            *this.rest = None;
            *this.runner = None;
        }
        Poll::Ready(this.sent.take().expect("polled after completion"))
    }
}

impl<F> fmt::Debug for AfterLambdaFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterLambdaFuture")
            .field("id", &self.id)
            .field("sent", &self.inner.is_none())
            .finish_non_exhaustive()
    }
}
