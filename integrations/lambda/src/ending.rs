//! How an invocation has ended, from where it is seen (inside) to where it is waited for (outside).

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use after::{Outcome, context};
use tokio::sync::oneshot;

/// In the context of each invocation, until somebody inside takes the sender.
#[derive(Clone)]
pub(crate) struct Ending(Slot);

type Slot = Arc<Mutex<Option<oneshot::Sender<Outcome>>>>;

/// The outer end.
pub(crate) struct Told {
    slot: Slot,
    receiver: oneshot::Receiver<Outcome>,
}

/// The inner end: tells once. One that is dropped without a word stands for `Cancelled`.
pub(crate) struct Teller(Option<oneshot::Sender<Outcome>>);

impl Ending {
    pub(crate) fn new() -> (Ending, Told) {
        let (sender, receiver) = oneshot::channel();
        let slot = Arc::new(Mutex::new(Some(sender)));
        let told = Told {
            slot: slot.clone(),
            receiver,
        };
        (Ending(slot), told)
    }
}

impl Told {
    /// Ready with `None` where nobody inside looks at how it ends.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        if self
            .slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            return Poll::Ready(None);
        }
        let told = Pin::new(&mut self.receiver).poll(cx);
        told.map(|told| Some(told.unwrap_or(Outcome::Cancelled)))
    }
}

impl Teller {
    /// For the invocation whose scope is current. The first one has it; those further in, and those outside an
    /// invocation, tell nobody.
    pub(crate) fn of_current() -> Teller {
        let ending = context::get::<Ending>();
        Teller(ending.and_then(|ending| {
            let mut slot = ending.0.lock().unwrap_or_else(PoisonError::into_inner);
            slot.take()
        }))
    }

    /// For what comes after: from here on this one tells nobody.
    pub(crate) fn take(&mut self) -> Teller {
        Teller(self.0.take())
    }

    pub(crate) fn tells(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn tell(&mut self, outcome: Outcome) {
        if let Some(sender) = self.0.take() {
            // Nobody waits any more when the deadline was first.
            let _ = sender.send(outcome);
        }
    }
}
