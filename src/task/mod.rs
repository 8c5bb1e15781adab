//! The unit of work, and the lists of it.
//!
//! To be read in this order: `result`, `sealed`, `into_task`, `order`; `closure`, `cell`, `queue`, `hook`, `wrapped`; `backlog`; `wake_bits`,
//! `ready_set`.

mod backlog;
mod cell;
mod closure;
mod hook;
mod into_task;
mod order;
mod queue;
mod ready_set;
mod result;
pub(crate) mod sealed;
mod wake_bits;
mod wrapped;

pub(crate) use self::{
    backlog::Backlog,
    cell::{BoxedTask, PollTask, TaskCell, Times},
    closure::BlockingShared,
    order::Condition,
    queue::Queue,
    ready_set::{MOST_POLLS, ReadySet},
    result::{End, Ended},
    wrapped::{PastLimit, Wrapped},
};
pub use self::{
    closure::BlockingWork,
    hook::{TaskFuture, TaskOutput},
    into_task::IntoTask,
    order::Order,
    result::{BoxError, Ok, TaskResult},
};
