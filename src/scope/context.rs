//! Typed values of the request, readable in its tasks.
//!
//! [`set`] a value anywhere in a request, [`get`] it anywhere below the same scope: later in the request, in its deferred
//! tasks, in its destructors, and in what a [`Handle`](crate::Handle) has brought along. There is one value for each
//! type, so give it a type of its own. A nested scope starts empty. When the request ends the values are frozen: its
//! tasks read them as they stood then.
//!
//! They are dropped when the request and its tasks have ended, before [`drain`](crate::Runner::drain) returns, whoever
//! still has a handle: a value may hold a [`Handle`](crate::Handle) of its own request. Work that is deferred through
//! a handle after that runs with no values.
//!
//! Code that a handle has brought along ([`Handle::scope`](crate::Handle::scope),
//! [`Handle::sync_scope`](crate::Handle::sync_scope)) may go on when its request has ended: a handler that was detached
//! from its connection, when the client has disconnected. It keeps the values, and what it sets then is its own: it sees it,
//! and so does what it defers from then on; the tasks of the request do not.
//!
//! ```
//! #[derive(Clone)]
//! struct UserId(u64);
//!
//! # futures::executor::block_on(after::scope(async {
//! after::context::set(UserId(7));
//! after::defer(async {
//!     let UserId(id) = after::context::get().expect("set by the request");
//!     println!("audit: user {id}");
//! });
//! # }));
//! ```

use std::{any::TypeId, sync::Arc};

use super::error::outside_scope;
use crate::runner::current;

/// Keeps `value` for the rest of the request and for its tasks. A value of the same type is replaced and dropped.
///
/// # Panics
///
/// Outside a scope; in a deferred task or closure; in a body under `RunAfter::Head`, whose request has ended. At the
/// caller's line. [`try_set`] does not panic. In code that a [`Handle`](crate::Handle) has brought along it never
/// panics: after the end of the request it sets a value of that code's own.
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::context::set(String::from("request-17"));
/// assert_eq!(after::context::get::<String>().as_deref(), Some("request-17"));
/// # }));
/// ```
#[track_caller]
pub fn set<T: Send + Sync + 'static>(value: T) {
    if try_set(value).is_err() {
        refused();
    }
}

/// Keeps `value` like [`set`], but returns it where there is no request to keep it.
///
/// # Errors
///
/// The value, untouched, outside a scope and in a deferred task or closure.
///
/// ```
/// assert_eq!(after::context::try_set("outside"), Err("outside"));
/// ```
pub fn try_set<T: Send + Sync + 'static>(value: T) -> Result<(), T> {
    current::with(|registry| {
        let Some(registry) = registry else {
            return Err(value);
        };
        let replaced = registry.change_context(value, |context, value| {
            context.insert(TypeId::of::<T>(), Arc::new(value))
        });
        // The replaced value is dropped here, when nothing of ours is borrowed or locked: its destructor may defer.
        replaced.map(drop)
    })
}

/// Clone of the value of this type, if one was set in this scope.
///
/// ```
/// #[derive(Clone, Debug, PartialEq)]
/// struct UserId(u64);
///
/// # futures::executor::block_on(after::scope(async {
/// after::context::set(UserId(7)); // in a middleware that authenticates
/// assert_eq!(after::context::get(), Some(UserId(7))); // in the handler, and in its tasks
/// # }));
/// assert_eq!(after::context::get::<UserId>(), None); // outside a scope
/// ```
pub fn get<T: Clone + Send + Sync + 'static>() -> Option<T> {
    with(T::clone)
}

/// Calls `read` with the value of this type, if one was set in this scope, without cloning it.
///
/// No borrow of ours is held meanwhile: `read` may defer, and may set another value of the same type.
///
/// ```
/// # futures::executor::block_on(after::scope(async {
/// after::context::set(vec![1, 2, 3]);
/// assert_eq!(after::context::with(|list: &Vec<i32>| list.len()), Some(3));
/// # }));
/// ```
pub fn with<T: Send + Sync + 'static, R>(read: impl FnOnce(&T) -> R) -> Option<R> {
    let value = current::with(|registry| registry?.context().value::<T>())?;
    Some(read(&value))
}

#[cold]
#[track_caller]
fn refused() -> ! {
    if current::in_scope() {
        panic!(
            "`context::set` called in a deferred task, after the end of the request: the context is frozen, so set it in the request or use `try_set`"
        );
    }
    let so = ", so nothing would keep the value";
    outside_scope("context::set", so, "use `try_set`");
}
