//! A Runner, and what it keeps of each of its scopes, from the first `defer` to the end of the batch.
//!
//! To be read in this order: `runtime`, `remembered`, `launch`, `core`; `values`, `inbox`, `attachment`; `wait_group`,
//! `gate`, `permits`, `extras`, `state`, `spare`; `registry`, `current`, `attached`, `reserve`; `runner`, `builder`,
//! `stopping`.

mod attached;
mod attachment;
mod builder;
mod core;
pub(crate) mod current;
mod extras;
pub(crate) mod gate;
mod inbox;
mod launch;
mod permits;
mod registry;
mod remembered;
mod reserve;
mod runner;
mod runtime;
pub(crate) mod spare;
mod state;
mod stopping;
mod values;
mod wait_group;

pub(crate) use self::{
    attachment::Attachment,
    core::{Core, RunnerRef},
    extras::Extras,
    inbox::{Inbox, Late},
    launch::Launch,
    registry::{Collected, Registry},
    runtime::DetectedRuntime,
    state::{ScopeState, SpawnedBatches},
    wait_group::WaitGroup,
};
pub use self::{
    builder::RunnerBuilder,
    current::{in_scope, outcome},
    runner::{InstallError, Runner, shutdown, stop},
    stopping::{Stopping, stopping},
};
