//! The unit of work, and the lists of it.
//!
//! To be read in this order: `result`, `sealed`, `order`; `closure`, `node`, `queue`, `hook`; `collected`; `marks`, `ready`.

mod closure;
mod collected;
mod hook;
mod marks;
mod node;
mod order;
mod queue;
mod ready;
mod result;
pub(crate) mod sealed;

pub use self::{
    closure::BlockingWork,
    hook::{TaskFuture, TaskOutput},
    order::Order,
    result::{BoxError, Ok, TaskResult},
};
pub(crate) use self::{
    closure::Slot,
    collected::Collected,
    hook::Wrapped,
    node::{Link, Node, Times, Work},
    order::Condition,
    queue::Queue,
    ready::{MOST_POLLS, Ready},
    result::End,
};
