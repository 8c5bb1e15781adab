//! A deferred closure: one half runs on a thread that may block, the other waits for it in the batch.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{current, handle::Handle, node::Work, report, spawner::BlockingWork, task::End};

pub(crate) enum Blocking<C> {
    Waiting(C),
    Running(Arc<Slot>),
    Done,
}

/// Where the two halves meet.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    end: Option<End>,
    waker: Option<Waker>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, end: End) {
        let mut state = self.lock();
        state.end = Some(end);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<C> Blocking<C> {
    pub(crate) fn new(work: C) -> Self {
        Blocking::Waiting(work)
    }
}

// The closure is moved out to be called, never pinned.
impl<C> Unpin for Blocking<C> {}

// Not a future: its end is not a `TaskResult`, because it knows of panics and losses on another thread.
impl<C: FnOnce() -> End + Send + 'static> Work for Blocking<C> {
    fn poll_work(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let slot = match mem::replace(&mut *self, Blocking::Done) {
            Blocking::Waiting(work) => match start(work) {
                Some(slot) => slot,
                None => return Poll::Ready(End::Lost),
            },
            Blocking::Running(slot) => slot,
            Blocking::Done => return Poll::Ready(End::Lost),
        };
        let waker = cx.waker().clone();
        let mut state = slot.lock();
        if let Some(end) = state.end.take() {
            return Poll::Ready(end);
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        *self = Blocking::Running(slot);
        Poll::Pending
    }
}

/// Gives the closure to the spawner of the batch that is current. `None` if there is no batch, which does not happen:
/// only a batch polls its tasks.
fn start(work: impl FnOnce() -> End + Send + 'static) -> Option<Arc<Slot>> {
    let handle = current::with(|registry| registry.map(|registry| registry.handle()))?;
    let runner = current::with(|registry| registry.map(|registry| registry.runner()))?;
    let slot = Arc::new(Slot::default());
    let job = Job {
        work: Some(work),
        handle: handle.clone(),
        slot: slot.clone(),
    };
    let work = BlockingWork::new(move || {
        // What nobody waits for any more is dropped here: an error whose destructor panics, say.
        if let Err(payload) = report::catch(|| job.run()) {
            report::forget_payload(payload);
        }
    });
    let spawned = report::catch(|| {
        handle
            .found()
            .with(runner.get(), |spawner| spawner.spawn_blocking(work));
    });
    if let Err(payload) = spawned {
        report::spawner_panicked(payload);
    }
    Some(slot)
}

/// The half that runs elsewhere. Dropped unrun, by a pool that goes down, it says that the work is lost.
struct Job<C: FnOnce() -> End> {
    work: Option<C>,
    handle: Handle,
    slot: Arc<Slot>,
}

impl<C: FnOnce() -> End> Job<C> {
    fn run(mut self) {
        if let Some(work) = self.work.take() {
            let end = report::catch(|| self.handle.sync_scope(work));
            self.slot.finish(end.unwrap_or_else(End::Panicked));
        }
    }
}

impl<C: FnOnce() -> End> Drop for Job<C> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            // The destructors of what it captured may defer, and may panic.
            let dropped = report::catch(|| self.handle.sync_scope(|| drop(work)));
            if let Err(payload) = dropped {
                report::unnamed_panicked("a deferred closure", payload);
            }
            self.slot.finish(End::Lost);
        }
    }
}
