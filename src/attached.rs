//! What code keeps that a handle has brought along: such code may go on when its request has ended.
//!
//! As long as the request lasts, it reads and sets the request's values. When the request has ended they are frozen, and
//! when its tasks have too they are dropped ([`Inbox`]). For this code they stay what they were: its [`Hold`] keeps them,
//! and what it sets goes to a copy of its own, in an inbox of its own, which ends with the code.
//!
//! Nothing here may be reached from the values themselves, or they would keep each other for ever. An attached future may
//! lie in them. So one that was never polled has only a snapshot from before it could get there; and one that is polled by
//! its own request, which ends before the request does, holds nothing.

use std::{mem, sync::Arc};

use crate::{active::Active, context::Context, inbox::Inbox, registry::Registry};

/// What the registry of attached code has besides its inbox.
#[derive(Default)]
pub(crate) struct Attachment {
    /// The values as they stood when it was attached, until it is polled.
    snapshot: Context,
    hold: Option<Hold>,
    own: Option<Own>,
    /// A closure of the request's, or its body after the head: it can't set values, as no task can.
    frozen: bool,
}

/// Keeps the values of a request for this code, beyond the end of the request's tasks.
pub(crate) struct Hold {
    inbox: Arc<Inbox>,
}

impl Hold {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Hold { inbox }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inbox.release();
    }
}

/// The inbox of one piece of attached code, with values of its own.
struct Own {
    inbox: Arc<Inbox>,
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

impl Active {
    fn attachment(&mut self) -> Option<&mut Attachment> {
        self.uncommon_if_any()?.attached.as_mut()
    }
}

impl Registry {
    pub(crate) fn is_attached(&self) -> bool {
        self.peek(|active| active.attachment().is_some()) == Some(true)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let frozen = self.peek(|active| Some(active.attachment()?.frozen));
        frozen.flatten() == Some(true)
    }

    /// Before attached code is polled or dropped, while `outer` is current.
    pub(crate) fn attach(&self, outer: Option<&Registry>) {
        let Some(inbox) = self.inbox() else { return };
        let inside = outer
            .and_then(Registry::inbox)
            .is_some_and(|outer| Arc::ptr_eq(outer.root(), inbox.root()));
        let settled = self.peek(|active| {
            let attachment = active.attachment()?;
            let keeps = attachment.hold.is_some();
            Some(match inside {
                _ if attachment.own.is_some() => true,
                true => !keeps && attachment.snapshot.is_empty(),
                false => keeps,
            })
        });
        if settled.flatten() != Some(false) {
            return;
        }
        let hold = if inside { None } else { inbox.hold() };
        if hold.is_none() && !inside {
            // The request is over, with its tasks, and this has not begun.
            self.split_off();
            return;
        }
        // Values may go with these: where nothing of ours is taken out.
        let gone = self.peek(|active| {
            let attachment = active.attachment()?;
            let snapshot = mem::take(&mut attachment.snapshot);
            Some((snapshot, mem::replace(&mut attachment.hold, hold)))
        });
        drop(gone);
    }

    /// Gives attached code an inbox of its own, with the values as they stand. Returns false for other code.
    #[cold]
    pub(crate) fn split_off(&self) -> bool {
        let parts = self.peek(|active| {
            let snapshot = active.attachment()?.snapshot.clone();
            Some((active.inbox.clone()?, snapshot))
        });
        let Some(Some((inbox, snapshot))) = parts else {
            return false;
        };
        let own = inbox.split_off(snapshot);
        let gone = self.peek(|active| {
            let before = active.inbox.replace(own.clone());
            let attachment = active.attachment()?;
            let snapshot = mem::take(&mut attachment.snapshot);
            Some((before, snapshot, attachment.own.replace(Own { inbox: own })))
        });
        drop(gone);
        true
    }
}
