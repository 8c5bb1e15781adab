//! The after phase: a batch is polled.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    batch::{Batch, Turn},
    close,
    release::{begin_time, send_apart, take_place},
    turn,
};
use crate::{
    report::wake,
    runner::{Registry, current, gate},
};

impl Future for Batch {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut active) = self.active.take() else {
            return Poll::Ready(());
        };
        let special = active.special;
        if !active.started {
            if active.gate.is_some() {
                self.active = Some(active);
                self.poll_gate(cx);
                return Poll::Pending;
            }
            active.started = true;
            self.active = Some(active);
            if special {
                self.begin_specially();
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let plan = active.begin_turn();
        // The tasks run in a registry of their own on this stack.
        let turn = Turn::begin(&mut self, active);
        let registry = &turn.registry;
        let done = match special {
            false => current::enter(registry, || turn::run(registry, cx, plan)),
            true => current::enter_tasks(registry, || turn::run(registry, cx, plan)),
        };
        turn.end();
        if !done {
            return Poll::Pending;
        }
        if let Some(active) = self.active.take() {
            close::settle(active);
        }
        Poll::Ready(())
    }
}

impl Batch {
    /// The first polls of a batch with a gate, until that is open.
    #[cold]
    fn poll_gate(&mut self, cx: &mut Context<'_>) {
        let waker = cx.waker();
        let Some(gate) = self.active.as_ref().and_then(|active| active.gate.clone()) else {
            return;
        };
        if gate::is_opening() {
            // An executor that polls where it is woken.
            let waker = waker.clone();
            return gate::aside(|| wake(waker));
        }
        if !gate.poll(waker) {
            return;
        }
        gate.leave();
        if let Some(active) = &mut self.active {
            active.gate = None;
            active.started = true;
            if active.special {
                if !active.runner.get().observers.is_empty() {
                    active.open_at(Instant::now());
                }
                self.begin_specially();
            }
        }
        waker.wake_by_ref();
    }

    /// The first turn of a batch that was held and is awaited, or had a gate: what is split off goes to the spawner, and if
    /// this one is awaited it is waited for.
    #[cold]
    fn begin_specially(&mut self) {
        let Some(mut active) = self.active.take() else {
            return;
        };
        begin_time(&active, true);
        take_place(&mut active);
        let apart = active.take_apart();
        if !apart.is_empty() {
            let registry = Registry::active(active);
            send_apart(&registry, apart);
            self.active = registry.close();
        } else {
            self.active = Some(active);
        }
        self.line_up();
    }
}
