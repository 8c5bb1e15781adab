//! The kinds of tasks, each of which ends in a way of its own.

use std::panic;

/// What becomes of a task, by the plan of whoever has deferred it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Kind {
    /// Every request defers one, first of all: it completes.
    Audit,
    /// Runs if the request has finished.
    OnSuccess,
    /// Runs if it has not.
    OnFailure,
    /// Two with one key: the first is discarded.
    Keyed,
    Fails,
    Panics,
    /// Past the Runner's limit.
    Hangs,
    /// Past a limit of its own.
    TimesOut,
    /// Defers others.
    DefersAgain,
    /// On the blocking pool.
    Blocks,
    /// A closure that goes on past its limit.
    BlocksTooLong,
    /// A task of the runtime of its own.
    Spawned,
    /// Deferred while the body is streamed.
    FromBody,
    /// Deferred by a destructor, also of a handler that is dropped.
    FromDestructor,
    /// Deferred through a handle when the batch is over, or runs.
    Late,
}

pub(crate) const KINDS: usize = Kind::ALL.len();

impl Kind {
    pub(crate) const ALL: [Kind; 15] = [
        Kind::Audit,
        Kind::OnSuccess,
        Kind::OnFailure,
        Kind::Keyed,
        Kind::Fails,
        Kind::Panics,
        Kind::Hangs,
        Kind::TimesOut,
        Kind::DefersAgain,
        Kind::Blocks,
        Kind::BlocksTooLong,
        Kind::Spawned,
        Kind::FromBody,
        Kind::FromDestructor,
        Kind::Late,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Audit => "audit",
            Kind::OnSuccess => "on success",
            Kind::OnFailure => "on failure",
            Kind::Keyed => "keyed",
            Kind::Fails => "fails",
            Kind::Panics => "panics",
            Kind::Hangs => "hangs",
            Kind::TimesOut => "times out",
            Kind::DefersAgain => "defers again",
            Kind::Blocks => "blocks",
            Kind::BlocksTooLong => "blocks too long",
            Kind::Spawned => "spawned",
            Kind::FromBody => "from the body",
            Kind::FromDestructor => "from a destructor",
            Kind::Late => "late",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The payload of the panics that belong to the load.
pub(crate) struct Deliberate;

/// Any other panic is printed as ever.
pub(crate) fn expect_deliberate_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Deliberate>() {
            default(info);
        }
    }));
}
