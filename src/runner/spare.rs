//! Boxes of ended batches, kept for the next: making and dropping one is the dearest part of a scope with one task.

use std::cell::Cell;

use super::{core::RunnerRef, runtime::Found, state::Active};
use crate::task::Order;

/// The most that a thread keeps: about 16 kB.
const MOST: usize = 64;

/// A list of boxes, each of which holds the next.
struct Spares {
    top: Cell<Option<Box<Active>>>,
    len: Cell<usize>,
}

thread_local! {
    static SPARES: Spares = const { Spares { top: Cell::new(None), len: Cell::new(0) } };
}

/// A box from an ended batch, or a new one.
#[inline]
pub(crate) fn active(runner: RunnerRef) -> Box<Active> {
    // An error where this thread's locals are being destroyed.
    let spare = SPARES.try_with(|spares| {
        let mut active = spares.top.take()?;
        spares.top.set(active.next_spare.take());
        spares.len.set(spares.len.get() - 1);
        Some(active)
    });
    match spare {
        Ok(Some(mut active)) => {
            active.special = runner.get().special;
            active.runner = runner;
            active
        }
        // Written where it is, as in `Node::boxed`.
        _ => Box::write(Box::new_uninit(), Active::new(runner)),
    }
}

/// Keeps the box of a batch that has ended, if it is a plain one.
#[inline]
pub(crate) fn keep(mut active: Box<Active>) {
    if !active.is_plain() {
        return;
    }
    active.runner = RunnerRef::global();
    active.found = Found::Nothing;
    active.collected.restart();
    active.round = 0;
    active.split = false;
    active.fresh = 0;
    active.released = false;
    active.keyed = false;
    active.polls = 0;
    active.joined = 0;
    active.outcome = None;
    active.order = Order::default();
    active.started = false;
    active.seat = None;
    active.on_account = false;
    let _ = SPARES.try_with(|spares| {
        let len = spares.len.get();
        if len < MOST {
            active.next_spare = spares.top.take();
            spares.top.set(Some(active));
            spares.len.set(len + 1);
        }
    });
}

impl Active {
    /// Whether it holds nothing that is rare: what is, is dropped with its box.
    #[inline]
    fn is_plain(&self) -> bool {
        self.inbox.is_none()
            && self.look_uncommon().is_none()
            && self.context.is_empty()
            && self.queue.is_empty()
            && self.ready.is_none()
            && self.gate.is_none()
            && self.collected.len() == 0
            && self.unpublished.is_empty()
    }
}
