//! What code keeps that a handle has brought along: such code may go on when its request has ended.
//!
//! As long as the request lasts, it reads and sets the request's values. When the request has ended they are frozen, and
//! when its tasks have too they are dropped ([`Inbox`]). For this code they stay what they were: its [`ValuesGuard`]
//! keeps them, and what it sets goes to a copy of its own, in an inbox of its own, which ends with the code.
//!
//! Nothing here may be reached from the values themselves, or they would keep each other for ever. An attached future may
//! lie in them. So one that was never polled has only a snapshot from before it could get there; and one that is polled by
//! its own request, which ends before the request does, holds nothing.

use std::sync::Arc;

use super::{
    inbox::{Inbox, ValuesGuard},
    values::Values,
};

/// What the registry of attached code has besides its inbox.
#[derive(Default)]
pub(crate) struct Attachment {
    /// The values as they stood when it was attached, until it is polled.
    pub(super) snapshot: Values,
    pub(super) hold: Option<ValuesGuard>,
    pub(super) own: Option<Own>,
    /// A closure of the request's, or its body after the head: it can't set values, as no task can.
    pub(super) frozen: bool,
}

/// The inbox of one piece of attached code, with values of its own.
pub(super) struct Own {
    pub(super) inbox: Arc<Inbox>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.inbox.end_own();
    }
}

impl Attachment {
    /// Of what runs here and now, and is not kept.
    pub(crate) fn held(inbox: &Arc<Inbox>, frozen: bool) -> Self {
        Attachment {
            hold: inbox.hold(),
            frozen,
            ..Attachment::default()
        }
    }

    /// Of what is not polled yet.
    pub(crate) fn waiting(inbox: &Inbox) -> Self {
        Attachment {
            snapshot: inbox.context(false),
            ..Attachment::default()
        }
    }
}
