use std::{
    future::{Ready, ready},
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::{
    error::{AbortError, BoxDynError, RetryAfterError},
    layers::{Layer, Service},
    task::Task,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, abortable},
};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{JobResult, lane::Shared};
use crate::{
    Job, Running,
    error::chain,
    job::MAX_ATTEMPTS,
    store::{Ended, Verdict},
};

/// A function as a service of apalis.
pub(super) struct Handler<J, F> {
    handler: Arc<F>,
    job: PhantomData<fn(J)>,
}

impl<J, F> Handler<J, F> {
    pub(super) fn new(handler: F) -> Self {
        Handler {
            handler: Arc::new(handler),
            job: PhantomData,
        }
    }
}

impl<J, F, Fut, R> Service<Task<J>> for Handler<J, F>
where
    J: Job,
    F: Fn(J) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = R> + Send + 'static,
    R: JobResult,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<J>) -> Self::Future {
        let handler = self.handler.clone();
        // In the job's task, not in the worker's: a handler may do something before its future is polled.
        async move { handler(task.args).await.into_result() }.boxed()
    }
}

/// Around apalis' own layers: runs each job as a task of `after`, with a scope of its own.
#[derive(Clone)]
pub(crate) struct RunLayer {
    shared: Arc<Shared>,
}

impl RunLayer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        RunLayer { shared }
    }
}

impl<S> Layer<S> for RunLayer {
    type Service = Run<S>;

    fn layer(&self, inner: S) -> Run<S> {
        Run {
            inner,
            shared: self.shared.clone(),
        }
    }
}

pub(crate) struct Run<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, J> Service<Task<J>> for Run<S>
where
    J: Job,
    S: Service<Task<J>>,
    S::Future: Send + 'static,
    S::Response: Serialize + Send + 'static,
    S::Error: Into<BoxDynError>,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<J>) -> Self::Future {
        let ctx = task.ctx().clone();
        let Some(id) = ctx.task_id().cloned() else {
            let nameless: Ready<_> = ready(Err("a job without an id".into()));
            return nameless.boxed();
        };
        let shared = self.shared.clone();
        let slot = Slot(shared.clone());
        let most = ctx.max_attempts().unwrap_or(MAX_ATTEMPTS);
        let running = Running {
            name: J::NAME,
            id: id.clone(),
            // apalis counts it when the future is first polled.
            attempt: ctx.attempt() + 1,
            max_attempts: most,
        };
        let job = self.inner.call(task);
        let (answer, answered) = oneshot::channel();

        let attempt = {
            let shared = shared.clone();
            let id = id.clone();
            async move {
                let slot = slot;
                let attempt = running.attempt;
                let request = shared
                    .runner
                    .scope(async move {
                        after::context::set(running);
                        job.await.map_err(Into::into)
                    })
                    .failed_if(Result::is_err);
                let (verdict, result) = match AssertUnwindSafe(request).catch_unwind().await {
                    Ok(Ok(response)) => match serde_json::to_value(&response) {
                        Ok(value) => (Verdict::Done(value), Ok(Ok(()))),
                        Err(error) => (Verdict::Done(error.to_string().into()), Ok(Ok(()))),
                    },
                    Ok(Err(error)) => {
                        let error: BoxDynError = error;
                        let text = chain(&*error);
                        let verdict = if error.downcast_ref::<AbortError>().is_some() {
                            Verdict::Dead { error: text }
                        } else {
                            match (
                                shared.again_or_dead(attempt, most, text),
                                error.downcast_ref::<RetryAfterError>(),
                            ) {
                                (Verdict::Again { error, .. }, Some(again)) => Verdict::Again {
                                    error,
                                    after: again.get_duration(),
                                },
                                (verdict, _) => verdict,
                            }
                        };
                        (verdict, Ok(Err(error)))
                    }
                    Err(panic) => {
                        let text = format!("panicked: {}", message(&*panic));
                        (shared.again_or_dead(attempt, most, text), Err(panic))
                    }
                };
                if let Some(held) = shared.held().get_mut(&id.to_string()) {
                    held.abort = None;
                }
                shared.end(Ended {
                    id,
                    attempt,
                    verdict,
                });
                drop(slot);
                result
            }
        };
        let (attempt, abort) = abortable(attempt);
        if let Some(held) = shared.held().get_mut(&id.to_string()) {
            held.abort = Some(abort);
        }
        let mut open = shared.runner.open();
        open.enter(|| {
            after::task(J::NAME).defer(async move {
                match attempt.await {
                    Ok(Ok(result)) => {
                        let _ = answer.send(());
                        result
                    }
                    // The Runner counts it, and reports it, as for any task.
                    Ok(Err(panic)) => {
                        let _ = answer.send(());
                        std::panic::resume_unwind(panic)
                    }
                    Err(_) => Err("stopped at the worker's limit, and given back".into()),
                }
            });
        });
        open.end(after::Outcome::Finished);
        async move {
            // It has been reported; to apalis' worker it is an event.
            answered
                .await
                .map_err(|_| BoxDynError::from("stopped, or lost by the Runner"))
        }
        .boxed()
    }
}

/// Given back when the job has ended, in whatever way.
struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.add_permits(1);
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
