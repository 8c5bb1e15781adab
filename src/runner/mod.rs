//! A Runner, and what it keeps of each of its scopes, from the first `defer` to the end of the batch.
//!
//! To be read in this order: `runtime`, `seen`, `launch`, `core`; `values`, `inbox`, `attachment`; `gate`, `group`, `permits`,
//! `state`, `spare`; `registry`, `current`, `attached`, `reserve`; `runner`, `builder`, `stopping`.

mod attached;
mod attachment;
mod builder;
mod core;
pub(crate) mod current;
pub(crate) mod gate;
mod group;
mod inbox;
mod launch;
mod permits;
mod registry;
mod reserve;
mod runner;
mod runtime;
mod seen;
pub(crate) mod spare;
mod state;
mod stopping;
mod values;

pub(crate) use self::{
    attachment::Attachment,
    core::{Core, RunnerRef},
    group::Group,
    inbox::{Inbox, Late},
    launch::Launch,
    registry::Registry,
    runtime::Found,
    state::{Active, Apart},
};
pub use self::{
    builder::RunnerBuilder,
    current::{in_scope, outcome},
    runner::{InstallError, Runner, shutdown, stop},
    stopping::{Stopping, stopping},
};
