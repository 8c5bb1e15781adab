//! A batch that waits for others to let go: of a response's last byte, with the layer's `RunAfter::Written`.
//!
//! The request has ended and its batch is with the spawner, but the batch does nothing until its [`Gate`] is open. The open
//! scope and each of its guards (of the layer, the body and each of its data frames) have a [`Hold`] on the gate, and the
//! last of them to go opens it.
//!
//! Invariant 4: a hold's destructor marks and wakes, and does nothing else. It runs where the server drops a frame, and
//! that may be under a lock of the server's (h2 has one for all streams of a connection), which the destructors of a
//! request's tasks may want. So nothing of the user's runs there. A wake-up that makes somebody drop or poll the batch
//! on the spot, because its executor has gone, say, is finished by another thread: [`aside`].

use std::{
    cell::Cell,
    mem,
    sync::{Arc, PoisonError},
    task::Waker,
};

use super::wait_group::WaitGroup;
use crate::sync::start_thread;

/// Shut while anybody has a [`Hold`] on it.
#[derive(Default)]
pub(crate) struct Gate {
    /// For which the batch waits.
    holds: WaitGroup,
}

/// Keeps a gate shut.
pub(crate) struct Hold {
    gate: Arc<Gate>,
}

#[cfg(not(after_loom))]
thread_local! {
    // Without a destructor: it works in the destructors of other thread-locals.
    static OPENING: Cell<bool> = const { Cell::new(false) };
}

#[cfg(after_loom)]
loom::thread_local! {
    // A model's threads share what std keeps for one.
    static OPENING: Cell<bool> = Cell::new(false);
}

impl Gate {
    pub(crate) fn is_open(&self) -> bool {
        self.holds.is_done()
    }

    /// Whether it is open; otherwise `waker` is woken when it is.
    pub(crate) fn poll(&self, waker: &Waker) -> bool {
        self.holds.poll(waker)
    }

    /// The batch does not wait any more.
    pub(crate) fn leave(&self) {
        self.holds.stop_waiting();
    }
}

impl Hold {
    /// The first hold on a new gate.
    pub(crate) fn new() -> Hold {
        Hold::on(&Arc::default())
    }

    fn on(gate: &Arc<Gate>) -> Hold {
        gate.holds.join();
        Hold { gate: gate.clone() }
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        Hold::on(&self.gate)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let batch = self.gate.holds.leave();
        if !batch.is_empty() {
            let outer = OPENING.with(|opening| opening.replace(true));
            batch.wake();
            OPENING.with(|opening| opening.set(outer));
        }
    }
}

/// Whether this thread is in the destructor of a frame, where no user code may run: see invariant 4.
pub(crate) fn is_opening() -> bool {
    OPENING.with(Cell::get)
}

/// Does elsewhere what may not be done where a frame is dropped.
///
/// If no thread can be started it is not done: tasks that are lost, or that were to be woken, stay pending then, which a
/// shutdown reports. To do it here could stop the server for ever.
pub(crate) fn aside(f: impl FnOnce() + Send + 'static) {
    // Boxed, so that it can be forgotten if it comes back with the error.
    let mut work = Some(f);
    if cfg!(after_loom) {
        // A model's threads are loom's.
        return work.take().into_iter().for_each(|work| work());
    }
    let slot = Arc::new(std::sync::Mutex::new(work));
    let taken = slot.clone();
    let started = start_thread("after-aside", move || {
        let work = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work();
        }
    });
    if started.is_err() {
        mem::forget(slot);
    }
}
