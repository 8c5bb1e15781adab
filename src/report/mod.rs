//! The boundary to the user's code: what panics is caught, who waits is woken, what fails is said aloud, who watches is
//! told.
//!
//! To be read in this order: `unwind`, `waker`, `wait_cell`; `outcome`, `key`, `label`, `loss`; `lines`; `observer`.

mod key;
mod label;
mod lines;
mod loss;
mod observer;
mod outcome;
mod unwind;
mod wait_cell;
mod waker;

#[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
pub(crate) use self::lines::no_runtime;
#[cfg(feature = "threads")]
pub(crate) use self::lines::no_threads;
pub(crate) use self::{
    key::Key,
    label::{Label, named},
    lines::{
        Chain, clean_up, destructor_panicked, drop_part, failed, lost, no_timer, overdue, panicked,
        spawner_panicked, timed_out, unnamed_panicked,
    },
    loss::{Gathered, Loss},
    observer::Observers,
    unwind::{Payload, catch, drop_silently, forget_payload, message, quietly},
    wait_cell::{ALONE, WaitCell},
    waker::{KeptWaker, WakeList, drop_waker, wake, wake_by_ref},
};
pub use self::{
    observer::{Observer, TaskDeferred, TaskEnd, TaskFinished, TaskInfo, TaskStarted},
    outcome::Outcome,
};
