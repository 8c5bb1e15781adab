//! What few scopes have, in a box of its own.

use std::sync::Arc;

use super::{
    attachment::Attachment, gate::Gate, inbox::Inbox, permits::Permits, state::SpawnedBatches,
    values::Values, wait_group::WaitGroup,
};
use crate::{
    account::Counts,
    limit::{Place, Room, ScopeDeadline},
    platform::Instant,
};

/// What few scopes have, and their batches.
#[derive(Default)]
pub(crate) struct Extras {
    /// Made by the first `handle()`; from then on it holds what is collected, and the context. Given up at the hand-over, if
    /// no handle is left.
    pub(crate) inbox: Option<Arc<Inbox>>,
    /// Unused once there is an inbox, until that is over or given up.
    pub(crate) context: Values,
    /// With the spawner, and not to start before this is open.
    pub(crate) gate: Option<Arc<Gate>>,
    /// For observers: when the gate was opened. Nothing could start before.
    pub(crate) opened: Option<Instant>,
    /// Split off at the hand-over, and not handed to the spawner yet.
    pub(crate) spawned: SpawnedBatches,
    /// Split off and waited for.
    pub(crate) group: Option<Arc<WaitGroup>>,
    /// This one was split off, and somebody waits for it.
    pub(crate) member_of: Option<Arc<WaitGroup>>,
    /// What the open scope waits for.
    pub(crate) room: Option<Room>,
    /// What the scope has waited for, until the batch stands in the queue.
    pub(crate) place: Option<Place>,
    pub(crate) permits: Option<Permits>,
    /// The time of all tasks of the request, if its Runner limits it.
    pub(crate) deadline: Option<ScopeDeadline>,
    /// This is the registry of code that a handle has brought along.
    pub(crate) attached: Option<Attachment>,
    /// What the account does not know yet, besides tasks that were deferred, have completed or were discarded.
    pub(crate) unpublished: Option<Box<Counts>>,
    /// What is lost with it is counted, and not reported.
    pub(crate) unreported: bool,
}

impl Extras {
    /// Field by field: to write the whole costs more than to make a new one.
    pub(super) fn clear(&mut self) {
        let Extras {
            inbox,
            context,
            gate,
            opened,
            spawned,
            group,
            member_of,
            room,
            place,
            permits,
            deadline,
            attached,
            unpublished,
            unreported,
        } = self;
        *inbox = None;
        *context = Values::default();
        *gate = None;
        *opened = None;
        *spawned = Vec::new();
        *group = None;
        *member_of = None;
        *room = None;
        *place = None;
        *permits = None;
        *deadline = None;
        *attached = None;
        *unpublished = None;
        *unreported = false;
    }

    /// Whether a batch with these needs anything but the fast path. A gate is looked for at the first poll of each.
    pub(crate) fn need_slow_path(&self) -> bool {
        self.inbox.is_some()
            || !self.spawned.is_empty()
            || self.group.is_some()
            || self.member_of.is_some()
            || self.room.is_some()
            || self.place.is_some()
            || self.permits.is_some()
            || self.deadline.is_some()
    }

    /// Whether there is something to look at before each turn.
    pub(crate) fn concern_each_turn(&self) -> bool {
        self.inbox.is_some() || self.permits.is_some() || self.deadline.is_some()
    }

    /// Whether nothing is waited for: nothing that may join, no task that waits for a permit, no batch that was split off.
    pub(crate) fn await_nothing(&self) -> bool {
        let permits = self.permits.as_ref();
        self.inbox.is_none()
            && self.group.is_none()
            && permits.is_none_or(|permits| permits.waiting.is_empty())
    }
}
