//! A deferred closure: one half runs on a thread that may block, the other waits for it in the batch.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    report::{self, Loss},
    runner::{Inbox, Launch, Registry, current},
    task::{BlockingShared, BlockingWork, End, Ended, PollTask},
};

pub(crate) struct Blocking<C> {
    /// `None` once it was given to the spawner.
    work: Option<C>,
    shared: Arc<BlockingShared>,
}

impl<C> Blocking<C> {
    pub(crate) fn new(work: C, shared: Arc<BlockingShared>) -> Self {
        let work = Some(work);
        Blocking { work, shared }
    }
}

impl<C> Drop for Blocking<C> {
    fn drop(&mut self) {
        // What is counted as lost or timed out must not run after that, if it can be helped.
        self.shared.abandon();
    }
}

// The closure is moved out to be called, never pinned.
impl<C> Unpin for Blocking<C> {}

// Not a future: its end is not a `TaskResult`, because it knows of panics and losses on another thread.
impl<C: FnOnce() -> End + Send + 'static> PollTask for Blocking<C> {
    fn poll_task(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(work) = self.work.take() {
            start(work, &self.shared);
        }
        self.shared.poll(cx).map(Ended::from)
    }
}

/// Gives the closure to the spawner of the batch that is current: only a batch polls its tasks.
fn start(work: impl FnOnce() -> End + Send + 'static, shared: &Arc<BlockingShared>) {
    let batch =
        current::with(|registry| registry.map(|registry| (registry.share(), registry.runner())));
    let Some((inbox, runner)) = batch else {
        return shared.finish(End::Lost(Loss::Dropped));
    };
    let core = runner.get();
    let runtime = core.serving_runtime(inbox.runtime());
    let job = Job {
        work: Some(work),
        inbox,
        shared: shared.clone(),
    };
    let work = BlockingWork::new(move || {
        // What nobody waits for any more is dropped here: an error whose destructor panics, say.
        report::quietly(|| job.run());
    });
    let spawned = report::catch(|| {
        core.with_spawner(runtime, |spawner: &dyn Launch| {
            spawner.launch_blocking(work)
        });
    });
    if let Err(payload) = spawned {
        shared.spawner_panicked();
        report::spawner_panicked(payload);
    }
}

/// The half that runs elsewhere. Dropped unrun, by a pool that goes down, it says that the work is lost.
struct Job<C: FnOnce() -> End> {
    work: Option<C>,
    inbox: Arc<Inbox>,
    shared: Arc<BlockingShared>,
}

impl<C: FnOnce() -> End> Job<C> {
    fn run(mut self) {
        let Some(work) = self.work.take() else { return };
        let shared = &self.shared;
        let mut begun = false;
        // In its scope first: nothing is between the look and the closure.
        let end = report::catch(|| {
            self.in_scope(|| {
                begun = shared.begin();
                begun.then(work)
            })
        });
        match end {
            Ok(end) => shared.finish(end.unwrap_or(End::Lost(Loss::Pool))),
            Err(payload) if begun => shared.finish(End::Panicked(payload)),
            Err(payload) => {
                report::unnamed_panicked("a deferred closure", payload);
                shared.finish(End::Lost(Loss::Pool));
            }
        }
    }
}

impl<C: FnOnce() -> End> Job<C> {
    /// As a closure of the request's own, which can't set values.
    fn in_scope<R>(&self, f: impl FnOnce() -> R) -> R {
        current::enter(&Registry::frozen(&self.inbox), f)
    }
}

impl<C: FnOnce() -> End> Drop for Job<C> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            // The destructors of what it captured may defer, and may panic.
            report::clean_up("a deferred closure", || self.in_scope(|| drop(work)));
            self.shared.finish(End::Lost(Loss::Pool));
        }
    }
}
