//! Work that runs once the response is out.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod account;
mod batch;
mod blocking;
mod collected;
pub mod context;
mod current;
mod error;
mod handle;
mod losses;
mod node;
mod outcome;
mod ready;
mod registry;
mod report;
mod runner;
mod scope;
mod spare;
pub mod spawner;
mod stats;
mod task;
mod turn;

#[doc(inline)]
pub use crate::spawner::Spawner;
pub use crate::{
    account::Stopping,
    batch::Batch,
    current::in_scope,
    error::{InstallError, TryDeferError},
    handle::{Attached, Handle, handle, try_handle},
    outcome::{Order, Outcome, outcome},
    runner::{Runner, RunnerBuilder, shutdown, stopping},
    scope::{Held, Scope, scope},
    stats::{ShutdownReport, Stats, Unfinished},
    task::{BoxError, Ok, TaskBuilder, TaskResult, defer, defer_blocking, forget, task, try_defer},
};
