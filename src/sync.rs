//! What threads share state through: std's, or loom's models of it.
//!
//! Built with `--cfg after_loom`, the tests in `tests/loom` run the interleavings of a few threads one after the other. For
//! that, all that the threads of a Runner share must be in loom's types, so the rest of the crate takes them from here.
//! Not so:
//!
//! - `Arc`. `std::task::Wake` asks for std's, and nothing of ours hangs on the order of reference counts.
//! - What belongs to the process: the global Runner, the pool of `spawner::Threads`. Loom's types live as long as one
//!   run of a model, and can't stand in a `static`. No model touches these.
//! - The thread-local that keeps spare boxes: nothing in a spare box is shared, and none is taken or kept while loom
//!   changes threads.
//! - The thread-locals of `batch::close` and `batch::refused`, which mark a call of a spawner on this thread: no model
//!   gives up its thread inside one.
//! - Clocks, and the threads of timers, which a model can't wait for. A model's `Spawner::sleep` is its own, its limits
//!   of `shutdown` are zero or beyond the clock, and the thread that reports losses is not started.

use std::{io, sync::PoisonError, thread, time::Duration};

#[cfg(after_loom)]
pub(crate) use self::model::*;
#[cfg(not(after_loom))]
pub(crate) use self::real::*;

/// No user code runs under a lock of ours, so nothing panics there, and poison means nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread of std's, for what no model has.
pub(crate) fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.into());
    thread.spawn(work).map(drop)
}

/// Starts one that comes by again and again: after the first pause, and after each that `visit` asks for.
pub(crate) fn come_by(
    name: &str,
    first: Duration,
    mut visit: impl FnMut() -> Option<Duration> + Send + 'static,
) -> io::Result<()> {
    start_thread(name, move || {
        let mut next = Some(first);
        while let Some(pause) = next {
            thread::sleep(pause);
            next = visit();
        }
    })
}

#[cfg(not(after_loom))]
mod real {
    pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
    use std::{
        cell::Cell,
        sync::atomic::{AtomicU64, Ordering},
    };

    thread_local! {
        // Without a destructor, so that it works in the destructors of other thread-locals.
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    // Does not come round, on 32 bits either: no two threads have the same small number.
    static NEXT: AtomicU64 = AtomicU64::new(0);

    /// This thread's number: they are counted as they come.
    pub(crate) fn thread_number() -> usize {
        NUMBER.with(|number| {
            if number.get() == usize::MAX {
                // Acquire, with the Release in `numbered_threads`.
                let next = NEXT.fetch_add(1, Ordering::Acquire);
                number.set(usize::try_from(next).unwrap_or(usize::MAX - 1));
            }
            number.get()
        })
    }

    /// How many threads have a number; at least more than `known`, if there are. A thread that is not among them, once
    /// this returns `known`, gets its number later, and sees what was done before this call.
    pub(crate) fn numbered_threads(known: usize) -> usize {
        // Relaxed: more than are known need only be known.
        let mut numbered = NEXT.load(Ordering::Relaxed);
        if numbered <= known as u64 {
            // A read-modify-write, in one order with those in `thread_number`: who is not counted here comes after it, and
            // reads what it has written. Release, with the Acquire there.
            numbered = NEXT.fetch_add(0, Ordering::Release);
        }
        usize::try_from(numbered).unwrap_or(usize::MAX)
    }

    /// How many threads run at once.
    pub(crate) fn parallelism() -> usize {
        std::thread::available_parallelism().map_or(4, usize::from)
    }

    /// Runs what blocks on a thread that may.
    #[cfg(all(
        feature = "threads",
        not(all(target_family = "wasm", target_os = "unknown"))
    ))]
    pub(crate) fn unblock(work: impl FnOnce() + Send + 'static) {
        ::blocking::unblock(work).detach();
    }

    /// The same without a pool. If no thread can be started, the work is dropped.
    #[cfg(all(
        not(feature = "threads"),
        not(all(target_family = "wasm", target_os = "unknown"))
    ))]
    pub(crate) fn unblock(work: impl FnOnce() + Send + 'static) {
        drop(super::start_thread("after-blocking", work));
    }

    /// The same where there are no threads: here and now. Nothing there can block, so all that it does is to compute.
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    pub(crate) fn unblock(work: impl FnOnce() + Send + 'static) {
        work();
    }
}

#[cfg(after_loom)]
mod model {
    use std::cell::Cell;

    pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
    use scoped_tls_hkt::ScopedKey;

    use self::atomic::{AtomicUsize, Ordering};

    loom::thread_local! {
        static NUMBER: Cell<Option<usize>> = Cell::new(None);
    }

    loom::lazy_static! {
        // Made anew in each run.
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }

    /// Below `loom::MAX_THREADS`.
    pub(crate) fn thread_number() -> usize {
        NUMBER.with(|number| {
            let own = number.get();
            let own = own.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Acquire));
            number.set(Some(own));
            own
        })
    }

    /// Without the first look, which only spares the second: it would be one more place to change threads.
    pub(crate) fn numbered_threads(_known: usize) -> usize {
        NEXT.fetch_add(0, Ordering::Release)
    }

    /// The same on every machine: a model's runs must repeat themselves. It gives the account two shards.
    pub(crate) fn parallelism() -> usize {
        1
    }

    pub(crate) fn unblock(work: impl FnOnce() + Send + 'static) {
        drop(loom::thread::spawn(work));
    }

    /// A scoped thread-local for each thread of a model: they are coroutines of one thread, and share what std keeps for
    /// that.
    pub(crate) struct ScopedKeys<T: 'static> {
        pub(crate) keys: [&'static ScopedKey<T>; loom::MAX_THREADS],
    }

    impl<T> ScopedKeys<T> {
        fn own(&self) -> &'static ScopedKey<T> {
            self.keys[thread_number()]
        }

        pub(crate) fn set<R>(&self, value: &T, f: impl FnOnce() -> R) -> R {
            self.own().set(value, f)
        }

        pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
            self.own().with(f)
        }

        pub(crate) fn is_set(&self) -> bool {
            self.own().is_set()
        }
    }

    macro_rules! scoped_keys {
        ($type:ty) => {{
            scoped_tls_hkt::scoped_thread_local!(static FIRST: $type);
            scoped_tls_hkt::scoped_thread_local!(static SECOND: $type);
            scoped_tls_hkt::scoped_thread_local!(static THIRD: $type);
            scoped_tls_hkt::scoped_thread_local!(static FOURTH: $type);
            scoped_tls_hkt::scoped_thread_local!(static FIFTH: $type);
            $crate::sync::ScopedKeys {
                keys: [&FIRST, &SECOND, &THIRD, &FOURTH, &FIFTH],
            }
        }};
    }

    pub(crate) use scoped_keys;
}
