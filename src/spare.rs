//! Boxes of ended batches, kept for the next: making and dropping one is the dearest part of a scope with one task.

use std::cell::Cell;

use crate::{active::Active, outcome::Order, runner::RunnerRef, spawner::Found};

/// The most that a thread keeps: about 16 kB.
const MOST: usize = 64;

/// A list of boxes, each of which holds the next.
#[derive(Default)]
struct Spares {
    top: Option<Box<Active>>,
    len: usize,
}

thread_local! {
    static SPARES: Cell<Spares> = const { Cell::new(Spares { top: None, len: 0 }) };
}

/// A box from an ended batch, or a new one.
#[inline]
pub(crate) fn active(runner: RunnerRef) -> Box<Active> {
    // An error where this thread's locals are being destroyed.
    let spare = SPARES.try_with(|spares| {
        let Spares { top, len } = spares.take();
        let mut active = top?;
        let top = active.next_spare.take();
        spares.set(Spares { top, len: len - 1 });
        Some(active)
    });
    match spare {
        Ok(Some(mut active)) => {
            active.special = runner.get().special;
            active.runner = runner;
            active
        }
        _ => Box::new(Active::new(runner)),
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
    active.polls = 0;
    active.joined = 0;
    active.outcome = None;
    active.order = Order::default();
    active.started = false;
    active.seat = None;
    active.on_account = false;
    let _ = SPARES.try_with(|spares| {
        let Spares { top, len } = spares.take();
        if len >= MOST {
            spares.set(Spares { top, len });
            return;
        }
        active.next_spare = top;
        let top = Some(active);
        spares.set(Spares { top, len: len + 1 });
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
            && self.collected.len() == 0
            && self.unpublished.is_empty()
    }
}
