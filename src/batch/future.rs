//! The after phase: a batch is polled.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{
    batch::Batch,
    close,
    release::{begin_time, release_spawned, take_place},
    turn,
};
use crate::{
    platform::Instant,
    report::wake,
    runner::{
        current,
        gate::{self, Gate},
    },
};

impl Future for Batch {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let batch = self.get_mut();
        let Some(state) = batch.registry.state_mut() else {
            return Poll::Ready(());
        };
        if !state.started {
            batch.poll_first(cx);
            return Poll::Pending;
        }
        let kind = (!state.slow_path).then(|| state.next_polls());
        let registry = &batch.registry;
        let done = match kind {
            Some(kind) => current::enter(registry, || turn::run(registry, cx, kind)),
            None => current::enter_tasks(registry, || turn::run_on_slow_path(registry, cx)),
        };
        if !done {
            return Poll::Pending;
        }
        if let Some(state) = registry.close() {
            close::settle(state);
        }
        Poll::Ready(())
    }
}

impl Batch {
    /// The first poll, which starts nothing. Apart, so that the others are small enough to be inlined into the runtime's.
    #[inline(never)]
    fn poll_first(&mut self, cx: &mut Context<'_>) {
        let Some(state) = self.registry.state_mut() else {
            return;
        };
        if let Some(gate) = state.gate().cloned() {
            return self.poll_gate(&gate, cx.waker());
        }
        state.started = true;
        // At its release that was done.
        if state.slow_path && !state.released {
            self.begin_on_slow_path();
        }
        cx.waker().wake_by_ref();
    }

    /// The first polls of a batch with a gate, until that is open.
    #[cold]
    fn poll_gate(&mut self, gate: &Gate, waker: &Waker) {
        if gate::is_opening() {
            // An executor that polls where it is woken.
            let waker = waker.clone();
            return gate::aside(|| wake(waker));
        }
        if !gate.poll(waker) {
            return;
        }
        gate.leave();
        if let Some(state) = self.registry.state_mut() {
            drop(state.take_gate());
            state.started = true;
            if state.slow_path {
                if !state.runner.get().observers.is_empty() {
                    state.open_at(Instant::now());
                }
                self.begin_on_slow_path();
            }
        }
        waker.wake_by_ref();
    }

    /// The first turn of a batch that was held and is awaited, or had a gate: what is split off goes to the spawner, and if
    /// this one is awaited it is waited for.
    #[cold]
    fn begin_on_slow_path(&mut self) {
        let Some(state) = self.registry.state_mut() else {
            return;
        };
        begin_time(state, true);
        take_place(state);
        let spawned = state.take_spawned();
        if !spawned.is_empty() {
            // Before the last of these can end: whoever waits for that finds the values gone.
            self.is_over();
            release_spawned(&self.registry, spawned);
        }
        self.queue_for_permits();
    }
}
