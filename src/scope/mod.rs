//! The request phase: scopes, and deferring into them.
//!
//! To be read in this order: `scope`, `waiting`, `held`; `open`, `runner`; `error`, `place`, `defer`; `builder`, `handle`;
//! `context`. A builder may have a handle, and a handle makes builders.

mod builder;
pub mod context;
mod defer;
mod error;
mod handle;
mod held;
mod open;
mod place;
mod runner;
mod scope;
mod waiting;

pub use self::{
    builder::{TaskBuilder, task},
    defer::{defer, defer_blocking, forget, try_defer},
    error::TryDeferError,
    handle::{Attached, Handle, handle, try_handle},
    held::Held,
    open::{Entered, OpenScope, StartGuard, open},
    scope::{Scope, scope},
};
