use std::{
    collections::HashMap,
    convert::Infallible,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use after::Runner;
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::Task,
    worker::context::WorkerContext,
};
use futures_util::future::AbortHandle;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

use super::{Outage, Settings, Wake, finish::Message, run::RunLayer};
use crate::{
    Job, Jobs,
    error::chain,
    job::MAX_ATTEMPTS,
    report::report,
    store::{Ended, Registration, Verdict},
};

/// What the parts of one name's worker share.
pub(crate) struct Shared {
    pub(crate) jobs: Jobs,
    pub(crate) registration: Registration,
    pub(crate) settings: Arc<Settings>,
    pub(crate) runner: Runner,
    /// One permit a job that may still be fetched. A fetched job takes its permit along, and its end gives it back.
    pub(crate) slots: Semaphore,
    pub(crate) wake: Wake,
    pub(crate) finisher: mpsc::UnboundedSender<Message>,
    /// For the finisher to take, once.
    pub(crate) ended: Mutex<Option<mpsc::UnboundedReceiver<Message>>>,
    pub(crate) outage: Outage,
    held: Mutex<HashMap<String, Held>>,
}

/// A job between its fetch and the record of its end: what the store says is ours, and is.
pub(crate) struct Held {
    pub(crate) since: Instant,
    /// While it runs.
    pub(crate) abort: Option<AbortHandle>,
}

impl Shared {
    pub(crate) fn new(
        jobs: Jobs,
        registration: Registration,
        settings: Arc<Settings>,
        runner: Runner,
    ) -> Self {
        let (finisher, ended) = mpsc::unbounded_channel();
        Shared {
            jobs,
            registration,
            slots: Semaphore::new(settings.concurrency),
            settings,
            runner,
            wake: Wake::new(),
            finisher,
            ended: Mutex::new(Some(ended)),
            outage: Outage::default(),
            held: Mutex::default(),
        }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn held_ids(&self) -> Vec<String> {
        self.held().keys().cloned().collect()
    }

    pub(crate) fn end(&self, ended: Ended) {
        // The finisher goes only after everything else.
        let _ = self.finisher.send(Message::Ended(ended));
    }

    /// What a failed attempt comes to.
    pub(crate) fn again_or_dead(&self, attempt: usize, most: usize, error: String) -> Verdict {
        if attempt >= most {
            report!(
                error,
                "job `{}` is dead after {attempt} attempts: {error}",
                self.registration.queue
            );
            Verdict::Dead { error }
        } else {
            Verdict::Again {
                error,
                after: self.settings.backoff.after(attempt),
            }
        }
    }
}

/// apalis' backend: hands out what was fetched.
pub(crate) struct Lane<J> {
    shared: Arc<Shared>,
    tasks: mpsc::UnboundedReceiver<Task<Vec<u8>>>,
    job: PhantomData<fn() -> J>,
}

impl<J: Job> Lane<J> {
    pub(crate) fn new(shared: Arc<Shared>, tasks: mpsc::UnboundedReceiver<Task<Vec<u8>>>) -> Self {
        Lane {
            shared,
            tasks,
            job: PhantomData,
        }
    }

    /// An older version's payload, or a newer one's: kept, for a worker of another version, and then as a dead letter.
    fn unreadable(&self, task: &Task<Vec<u8>>, error: &serde_json::Error) {
        let ctx = task.ctx();
        let attempt = ctx.attempt() + 1;
        let error = format!(
            "the payload can't be read as this version's `{}`: {}",
            J::NAME,
            chain(error)
        );
        let Some(id) = ctx.task_id() else { return };
        report!(
            warn,
            "job `{}` {id}, attempt {attempt}: {error}; it is kept",
            J::NAME
        );
        let verdict =
            self.shared
                .again_or_dead(attempt, ctx.max_attempts().unwrap_or(MAX_ATTEMPTS), error);
        self.shared.end(Ended {
            id: id.clone(),
            attempt,
            verdict,
        });
        self.shared.slots.add_permits(1);
    }
}

impl<J: Job> Backend for Lane<J> {
    type Task = Task<J>;
    /// Whatever is wrong with the store, the fetcher waits for.
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<J>, Infallible>>> {
        loop {
            match self.tasks.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    // apalis' worker ends in order only if it was told to.
                    let _ = worker.stop();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(task)) => match serde_json::from_slice::<J>(&task.args) {
                    Ok(job) => return Poll::Ready(Some(Ok(task.map_args(|_| job)))),
                    Err(error) => self.unreadable(&task, &error),
                },
            }
        }
    }

    fn poll_close(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl<J: Job> BackendConfig for Lane<J> {
    type Args = J;
    type Id = ulid::Ulid;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = RunLayer;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> RunLayer {
        RunLayer::new(self.shared.clone())
    }
}
