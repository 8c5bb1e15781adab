//! One request and its response: the scope that service, future and body have in common.
//!
//! It moves with what is in progress: from `call` into the future, from there into the body. Whoever has it runs the
//! user's code through [`run`], and gives it up through [`Exchange::close`] or [`Exchange::abandon`], once.

use std::{mem, panic::resume_unwind, pin::Pin};

use bytes::Bytes;
use http::response::Parts;
use http_body::Frame;

use crate::{
    batch::Batch,
    limit::{Place, Room},
    report::{self, Outcome},
    runner::{Registry, Runner, current, gate::Hold},
    tower::{
        layer::{RunAfter, Terms},
        progress::{Asks, Progress, Said},
        written,
    },
};

pub(super) struct Exchange {
    registry: Registry,
    pub(super) terms: Terms,
    pub(super) asks: Asks,
    pub(super) progress: Progress,
    /// What its tasks have waited for before the head was given out, on a Runner that pushes back; lent from then on.
    pub(super) place: Option<Place>,
    /// With [`RunAfter::Written`]: the body's, which its data frames share.
    unwritten: Option<Hold>,
    /// With [`RunAfter::Head`], once the head was given out: how the request has ended.
    decided: Option<Outcome>,
    /// With [`RunAfter::Head`]: its tasks were handed over, and `registry` is one that lets others join them.
    attached: bool,
}

impl Exchange {
    #[inline]
    pub(super) fn begin(runner: Option<Runner>, terms: Terms, asks: Asks) -> Exchange {
        Exchange {
            registry: runner.map_or_else(Registry::global, Registry::given),
            terms,
            asks,
            progress: Progress::new(terms.grpc),
            place: None,
            unwritten: None,
            decided: None,
            attached: false,
        }
    }

    /// Runs `f` in the scope. A panic passes through, so this is for code that is caught elsewhere, and for our own.
    #[inline]
    pub(super) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        current::enter(&self.registry, f)
    }

    /// As `enter`, for what the server asks the body between two polls. If that panics, the request goes on to its drop.
    #[inline]
    pub(super) fn asks<R>(&self, f: impl FnOnce() -> R) -> R {
        let unwinding = Unwinding {
            progress: &self.progress,
        };
        let answer = self.enter(f);
        mem::forget(unwinding);
        answer
    }

    /// Room for what was collected so far, if the Runner makes its scopes wait for it.
    #[inline]
    pub(super) fn wants_room(&self) -> Option<Room> {
        self.registry.room()
    }

    /// The head is about to be given out.
    #[inline]
    pub(super) fn answers(&mut self, head: &Parts, failed: bool, said: Said) {
        self.progress.answers(self.asks, head, failed);
        self.progress.hears(said);
        // Who has made the response knows best. It stays there: a layer around this one waits for the same body.
        let own = head.extensions.get::<RunAfter>();
        match own.copied().unwrap_or(self.terms.run_after) {
            RunAfter::Body => {}
            RunAfter::Written => self.unwritten = Some(Hold::new()),
            RunAfter::Head => {
                self.decided = Some(self.progress.outcome_of_head());
                self.keep_up();
            }
        }
        // How long the response takes from here on is up to the client, so nobody else is to wait for that. A scope around
        // this one may have to wait for room before it gives out this very response.
        if let Some(place) = &mut self.place {
            place.lend(!current::in_scope());
        }
    }

    /// With [`RunAfter::Head`]: hands over what was collected before the head, or since by the body. What comes when
    /// something was handed over joins that, or is a batch of its own.
    #[inline]
    pub(super) fn keep_up(&mut self) {
        if let (Some(outcome), false) = (self.decided, self.attached) {
            self.hand_over_at_head(outcome);
        }
    }

    #[cold]
    fn hand_over_at_head(&mut self, outcome: Outcome) {
        if !self.registry.is_used() {
            return;
        }
        let handle = self.registry.handle();
        // Before the end, so that the body keeps the values of its request.
        let attached = handle.frozen_registry();
        let batch = Batch::collect(&self.registry, outcome, self.terms.order);
        self.registry = attached;
        self.attached = true;
        release(batch, self.place.take());
    }

    /// A frame is about to be given out.
    #[inline]
    pub(super) fn gives_out(&mut self, frame: Frame<Bytes>, said: Said) -> Frame<Bytes> {
        self.progress.delivers(&frame);
        self.progress.hears(said);
        self.keep_up();
        match &self.unwritten {
            Some(unwritten) => frame.map_data(|data| written::guarded(data, unwritten)),
            None => frame,
        }
    }

    /// The request is over: its tasks are handed over; with [`RunAfter::Written`] they start with the last byte.
    pub(super) fn close(self, outcome: Outcome) {
        if self.attached {
            return;
        }
        let outcome = self.decided.unwrap_or(outcome);
        if let Some(hold) = self.unwritten {
            let gate = hold.gate().clone();
            // The gate that this opens nobody waits for yet.
            drop(hold);
            if !gate.is_open() {
                self.registry.wait_for(gate);
            }
        }
        let batch = Batch::collect(&self.registry, outcome, self.terms.order);
        release(batch, self.place);
    }

    /// As `close`, when something is left of the user's, which `rest` drops.
    #[cold]
    pub(super) fn abandon(self, outcome: Outcome, of_what: &str, rest: impl FnOnce()) {
        self.drops(of_what, rest);
        self.close(outcome);
    }

    /// Drops what is the user's: in the scope, because destructors may defer.
    ///
    /// Never panics: this may run while a panic unwinds.
    pub(super) fn drops(&self, of_what: &str, f: impl FnOnce()) {
        drops(of_what, || self.enter(f));
    }
}

/// Hands over, with the place that was waited for if there was one.
#[inline]
fn release(batch: Batch, place: Option<Place>) {
    match place {
        // With nothing to hand over, the place is given back by being dropped.
        Some(place) if !batch.is_done() => batch.release_in(place),
        _ => batch.release(),
    }
}

/// Remembers a panic; forgotten if there is none.
struct Unwinding<'a> {
    progress: &'a Progress,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.progress.panics();
    }
}

fn drops(of_what: &str, f: impl FnOnce()) {
    if let Err(payload) = report::catch(f) {
        report::unnamed_panicked(of_what, payload);
    }
}

/// Calls the user's code when it has made something already. If it panics, that is dropped here and not by the
/// unwinding, where a second panic would abort the process.
#[inline]
pub(super) fn beside<T, R>(made: T, of_what: &str, f: impl FnOnce() -> R) -> (T, R) {
    match report::catch(f) {
        Ok(result) => (made, result),
        Err(payload) => {
            drops(of_what, || drop(made));
            resume_unwind(payload)
        }
    }
}

/// Runs the user's code on `part`, in the scope. If it panics, the request is over: what is left is dropped, the tasks are
/// handed over, and the panic goes on.
#[inline]
pub(super) fn run<T, R>(
    slot: &mut Option<Exchange>,
    mut part: Pin<&mut Option<T>>,
    f: impl FnOnce(Pin<&mut Option<T>>) -> R,
) -> R {
    let caught = {
        let part = part.as_mut();
        match slot {
            Some(exchange) => report::catch(|| exchange.enter(|| f(part))),
            None => return f(part),
        }
    };
    caught.unwrap_or_else(|payload| {
        if let Some(exchange) = slot.take() {
            exchange.abandon(Outcome::Panicked, "what a panic left of a request", || {
                part.set(None);
            });
        }
        resume_unwind(payload)
    })
}
