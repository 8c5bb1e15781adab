//! A deferred closure: one half runs on a thread that may block, the other waits for it in the batch.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};

use crate::{
    current,
    handle::Handle,
    losses::Loss,
    node::Work,
    report,
    signal::{Kept, drop_waker, wake},
    spawner::BlockingWork,
    sync::{Mutex, MutexGuard},
    task::End,
};

pub(crate) struct Blocking<C> {
    /// `None` once it was given to the spawner.
    work: Option<C>,
    slot: Arc<Slot>,
}

/// Where the two halves meet.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The closure is running, or has run.
    begun: bool,
    /// Nobody waits for it any more: if it has not begun, it does not.
    abandoned: bool,
    end: Option<End>,
    waker: Kept,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the closure from running, unless it has begun: then it can't be stopped, and this returns false.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.lock();
        state.abandoned = !state.begun;
        state.abandoned
    }

    /// Whether the closure has returned, and nobody has heard how.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    pub(crate) fn take_end(&self) -> Option<End> {
        self.lock().end.take()
    }

    /// What its spawner has dropped was dropped by that panic.
    fn spawner_panicked(&self) {
        if let Some(End::Lost(why)) = &mut self.lock().end {
            *why = Loss::SpawnerPanicked;
        }
    }

    fn begin(&self) -> bool {
        let mut state = self.lock();
        state.begun = !state.abandoned;
        state.begun
    }

    fn finish(&self, end: End) {
        let mut state = self.lock();
        state.end = Some(end);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl<C> Blocking<C> {
    pub(crate) fn new(work: C, slot: Arc<Slot>) -> Self {
        let work = Some(work);
        Blocking { work, slot }
    }
}

impl<C> Drop for Blocking<C> {
    fn drop(&mut self) {
        // What is counted as lost or timed out must not run after that, if it can be helped.
        self.slot.abandon();
    }
}

// The closure is moved out to be called, never pinned.
impl<C> Unpin for Blocking<C> {}

// Not a future: its end is not a `TaskResult`, because it knows of panics and losses on another thread.
impl<C: FnOnce() -> End + Send + 'static> Work for Blocking<C> {
    fn poll_work(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(work) = self.work.take() {
            start(work, &self.slot);
        }
        let waker = cx.waker().clone();
        let mut state = self.slot.lock();
        if let Some(end) = state.end.take() {
            drop(state);
            drop_waker(Some(waker));
            return Poll::Ready(end);
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop_waker(before);
        Poll::Pending
    }
}

/// Gives the closure to the spawner of the batch that is current: only a batch polls its tasks.
fn start(work: impl FnOnce() -> End + Send + 'static, slot: &Arc<Slot>) {
    let batch =
        current::with(|registry| registry.map(|registry| (registry.handle(), registry.runner())));
    let Some((handle, runner)) = batch else {
        return slot.finish(End::Lost(Loss::Dropped));
    };
    let found = handle.found().serving(runner.get());
    let job = Job {
        work: Some(work),
        handle,
        slot: slot.clone(),
    };
    let work = BlockingWork::new(move || {
        // What nobody waits for any more is dropped here: an error whose destructor panics, say.
        if let Err(payload) = report::catch(|| job.run()) {
            report::forget_payload(payload);
        }
    });
    let spawned = report::catch(|| {
        found.with(runner.get(), |spawner| spawner.spawn_blocking(work));
    });
    if let Err(payload) = spawned {
        slot.spawner_panicked();
        report::spawner_panicked(payload);
    }
}

/// The half that runs elsewhere. Dropped unrun, by a pool that goes down, it says that the work is lost.
struct Job<C: FnOnce() -> End> {
    work: Option<C>,
    handle: Handle,
    slot: Arc<Slot>,
}

impl<C: FnOnce() -> End> Job<C> {
    fn run(mut self) {
        let Some(work) = self.work.take() else { return };
        let slot = &self.slot;
        let mut begun = false;
        // In its scope first: nothing is between the look and the closure.
        let end = report::catch(|| {
            self.handle.frozen_scope(|| {
                begun = slot.begin();
                begun.then(work)
            })
        });
        match end {
            Ok(end) => slot.finish(end.unwrap_or(End::Lost(Loss::Pool))),
            Err(payload) if begun => slot.finish(End::Panicked(payload)),
            Err(payload) => {
                report::unnamed_panicked("a deferred closure", payload);
                slot.finish(End::Lost(Loss::Pool));
            }
        }
    }
}

impl<C: FnOnce() -> End> Drop for Job<C> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            // The destructors of what it captured may defer, and may panic.
            let dropped = report::catch(|| self.handle.frozen_scope(|| drop(work)));
            if let Err(payload) = dropped {
                report::unnamed_panicked("a deferred closure", payload);
            }
            self.slot.finish(End::Lost(Loss::Pool));
        }
    }
}
