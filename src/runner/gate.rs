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
    thread,
};

use crate::{
    report::{KeptWaker, drop_waker, wake},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Shut while anybody has a [`Hold`] on it.
pub(crate) struct Gate {
    holds: AtomicUsize,
    /// The batch's.
    waker: Mutex<KeptWaker>,
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
    fn lock(&self) -> MutexGuard<'_, KeptWaker> {
        // No user code runs under this lock.
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_open(&self) -> bool {
        // Acquire, with the Release of the last hold: whoever sees the gate open sees what was done before.
        self.holds.load(Ordering::Acquire) == 0
    }

    /// Whether it is open; otherwise `waker` is woken when it is.
    pub(crate) fn poll(&self, waker: &Waker) -> bool {
        if self.is_open() {
            return true;
        }
        let waker = waker.clone();
        let before = self.lock().replace(waker);
        drop_waker(before);
        // The last hold may have gone before it could see the waker. If its `take` came before our `replace`, the lock
        // orders its subtraction before this load.
        self.is_open()
    }

    /// The batch does not wait any more.
    pub(crate) fn leave(&self) {
        let waker = self.lock().take();
        drop_waker(waker);
    }
}

impl Hold {
    /// The first hold on a new gate.
    pub(crate) fn new() -> Hold {
        Hold {
            gate: Arc::new(Gate {
                holds: AtomicUsize::new(1),
                waker: Mutex::default(),
            }),
        }
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        // Relaxed: ours is there, so the gate is not opened meanwhile.
        self.gate.holds.fetch_add(1, Ordering::Relaxed);
        Hold {
            gate: self.gate.clone(),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // AcqRel, with the Acquire in `is_open`: the last one passes on what all the others have done.
        if self.gate.holds.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let waker = self.gate.lock().take();
        if let Some(waker) = waker {
            let outer = OPENING.with(|opening| opening.replace(true));
            wake(waker);
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
    let started = thread::Builder::new()
        .name("after-aside".into())
        .spawn(move || {
            let work = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(work) = work {
                work();
            }
        });
    if started.is_err() {
        mem::forget(slot);
    }
}
