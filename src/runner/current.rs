//! Which registry is current on this thread.
//!
//! A registry is entered around every poll and every drop of what it belongs to, and the one before it is put back on
//! leaving, on unwinding too. `scoped_tls_hkt` keeps one reference in a thread-local without a destructor, so this works
//! in the destructors of other thread-locals as well, where no scope is ever current.

use self::key::{CURRENT, TASK};
use super::registry::Registry;
use crate::report::Outcome;

#[cfg(not(after_loom))]
mod key {
    use std::cell::Cell;

    use scoped_tls_hkt::ScopedKey;

    use super::Registry;

    thread_local! {
        static POINTER: Cell<Option<&'static Registry>> = const { Cell::new(None) };
    }

    // What `scoped_thread_local!` makes, but as a constant: a static of this crate is a symbol to the crates that
    // `enter` is inlined into, so that each poll pays calls through pointers. The field is public for the macro's sake.
    // Of this crate the guard that puts the pointer back is inlined too, which of `scoped-tls` it is not: 18
    // instructions a poll instead of 40.
    pub(super) const CURRENT: &ScopedKey<Registry> = &ScopedKey { inner: &POINTER };

    scoped_tls_hkt::scoped_thread_local!(pub(super) static TASK: Registry);
}

#[cfg(after_loom)]
mod key {
    use super::Registry;
    use crate::sync::{ScopedKeys, scoped_keys};

    pub(super) const CURRENT: ScopedKeys<Registry> = scoped_keys!(Registry);
    pub(super) const TASK: ScopedKeys<Registry> = scoped_keys!(Registry);
}

/// Runs `f` with `registry` as the current one.
#[inline]
pub(crate) fn enter<R>(registry: &Registry, f: impl FnOnce() -> R) -> R {
    CURRENT.set(registry, f)
}

/// As `enter`, for the registry of a batch that may have a limit: see [`in_a_task`].
#[inline]
pub(crate) fn enter_tasks<R>(registry: &Registry, f: impl FnOnce() -> R) -> R {
    TASK.set(registry, || enter(registry, f))
}

/// Whether a batch that may have a limit is polled on this thread, whatever scopes were entered inside it.
pub(crate) fn in_a_task() -> bool {
    TASK.is_set()
}

/// Calls `f` with the innermost registry, if there is one.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(Option<&Registry>) -> R) -> R {
    if CURRENT.is_set() {
        CURRENT.with(|registry| f(Some(registry)))
    } else {
        f(None)
    }
}

/// Whether a scope is current on this thread, so that [`defer`](crate::defer()) works.
///
/// True in a request, in its deferred tasks, and in what a [`Handle`](crate::Handle) has brought along elsewhere.
///
/// ```
/// assert!(!after::in_scope());
/// # futures::executor::block_on(async {
/// after::scope(async { assert!(after::in_scope()) }).await;
/// # });
/// ```
pub fn in_scope() -> bool {
    CURRENT.is_set()
}

/// How the request ended, asked in a deferred task. `None` before the end of the request and outside scopes.
///
/// ```
/// # futures::executor::block_on(async {
/// let request = async {
///     assert_eq!(after::outcome(), None);
///     after::defer(async { assert_eq!(after::outcome(), Some(after::Outcome::Failed)) });
///     Err::<(), _>("no such user")
/// };
/// let _ = after::scope(request).failed_if(Result::is_err).await;
/// # });
/// ```
pub fn outcome() -> Option<Outcome> {
    with(|registry| registry.and_then(|registry| registry.outcome()))
}
