//! One request and its response: the scope that service, future and body have in common.
//!
//! It moves with what is in progress: from `call` into the future, from there into the body. Whoever has it runs the
//! user's code through [`run`], and gives it up through [`Exchange::close`] or [`Exchange::abandon`], once.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
};

use bytes::Bytes;
use http::response::Parts;
use http_body::Frame;

use super::{
    layer::{AfterLayer, RunAfter, Terms},
    progress::{Asks, Progress, Said},
    written,
};
use crate::{OpenScope, Outcome};

pub(super) struct Exchange {
    pub(super) scope: OpenScope,
    /// From the head on with what the response has said itself.
    pub(super) terms: Terms,
    pub(super) progress: Progress,
}

impl Exchange {
    #[inline]
    pub(super) fn begin(layer: &AfterLayer, asks: Asks) -> Exchange {
        let scope = match &layer.runner {
            Some(runner) => runner.open(),
            None => crate::open(),
        };
        let scope = match layer.order {
            Some(order) => scope.order(order),
            None => scope,
        };
        Exchange {
            scope,
            terms: layer.terms,
            progress: Progress::new(asks, layer.terms.grpc),
        }
    }

    /// Runs in the scope what the server asks the body between two polls. If that panics, the request goes on to its drop.
    #[inline]
    pub(super) fn asks<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let unwinding = Unwinding {
            progress: &mut self.progress,
        };
        let answer = self.scope.enter(f);
        mem::forget(unwinding);
        answer
    }

    /// The head is about to be given out.
    #[inline]
    pub(super) fn answers(&mut self, head: &Parts, failed: bool, said: Said) {
        self.progress.answers(head, failed);
        self.progress.hears(said);
        // Who has made the response knows best. It stays there: a layer around this one waits for the same body.
        if let Some(own) = head.extensions.get::<RunAfter>() {
            self.terms.run_after = *own;
        }
        match self.terms.run_after {
            RunAfter::Head => self.keep_up(),
            // How long the response takes from here on is up to the client. A scope around this one may have to wait for
            // room before it gives out this very response.
            _ => self.scope.answered(),
        }
    }

    /// With [`RunAfter::Head`]: hands over what was collected before the head, or since by the body. What comes when
    /// something was handed over joins that, or is a batch of its own.
    #[inline]
    pub(super) fn keep_up(&mut self) {
        if self.terms.run_after == RunAfter::Head {
            self.scope.hand_over(self.progress.outcome_of_head());
        }
    }

    /// A frame is about to be given out.
    #[inline]
    pub(super) fn gives_out<E>(&mut self, next: &mut Option<Result<Frame<Bytes>, E>>, said: Said) {
        if let Some(Ok(frame)) = next {
            self.progress.delivers(frame);
        }
        self.progress.hears(said);
        self.keep_up();
        if self.terms.run_after == RunAfter::Written {
            written::guard(next, &mut self.scope);
        }
    }

    /// The request is over: its tasks are handed over; with [`RunAfter::Written`] they start with the last byte.
    #[inline]
    pub(super) fn close(self, outcome: Outcome) {
        self.scope.end(outcome);
    }

    /// As `close`, when something is left of the user's, which `rest` drops.
    #[cold]
    pub(super) fn abandon(mut self, outcome: Outcome, of_what: &str, rest: impl FnOnce()) {
        self.drops(of_what, rest);
        self.close(outcome);
    }

    /// Drops what is the user's: in the scope, because destructors may defer.
    ///
    /// Never panics: this may run while a panic unwinds. `clean_up` catches, and ending an `OpenScope` never panics.
    pub(super) fn drops(&mut self, of_what: &str, f: impl FnOnce()) {
        self.scope.clean_up(of_what, f);
    }
}

/// Remembers a panic; forgotten if there is none.
struct Unwinding<'a> {
    progress: &'a mut Progress,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.progress.panics();
    }
}

/// Calls the user's code. What a panic leaves half done is dropped by the callers, never used again.
#[inline]
pub(super) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Runs the user's code on `part`, in the scope. If it panics, the request is over: what is left is dropped, the tasks are
/// handed over, and the panic goes on.
///
/// What `f` makes it puts into `made`, so that a panic that comes then does not drop it while unwinding, where a second
/// panic would abort the process.
#[inline]
pub(super) fn run<T, M, R>(
    slot: &mut Option<Exchange>,
    mut part: Pin<&mut Option<T>>,
    made: &mut Option<M>,
    f: impl FnOnce(Pin<&mut Option<T>>, &mut Option<M>) -> R,
) -> R {
    let caught = {
        let (part, made) = (part.as_mut(), &mut *made);
        match slot {
            Some(exchange) => catch(|| exchange.scope.enter(|| f(part, made))),
            None => return f(part, made),
        }
    };
    match caught {
        Ok(result) => result,
        Err(payload) => {
            if let Some(mut exchange) = slot.take() {
                exchange.drops("what a request had made before a panic", || *made = None);
                exchange.abandon(Outcome::Panicked, "what a panic left of a request", || {
                    part.set(None);
                });
            }
            resume_unwind(payload)
        }
    }
}
