//! The request phase: scopes, and deferring into them.
//!
//! To be read in this order: `scope`, `waiting`, `held`; `open`, `entered`, `open_hand_over`, `open_room`,
//! `start_guard`; `error`, `place`, `builder`, `defer`, `handle`; `context`. A builder may have a handle, and a handle
//! makes builders.

mod builder;
pub mod context;
mod defer;
mod entered;
mod error;
mod handle;
mod held;
mod open;
mod open_hand_over;
mod open_room;
mod place;
mod scope;
mod start_guard;
mod waiting;

pub use self::{
    builder::{TaskBuilder, task},
    defer::{defer, defer_blocking, forget, try_defer},
    entered::{Attached, Entered},
    error::TryDeferError,
    handle::{Handle, handle, try_handle},
    held::Held,
    open::{OpenScope, open},
    scope::{Scope, scope},
    start_guard::StartGuard,
};
