//! The registry of attached code: see `attachment`.

use std::{mem, sync::Arc};

use super::{
    attachment::{Attachment, Own},
    inbox::Inbox,
    registry::Registry,
    spare,
};

impl Registry {
    /// A registry that brings what it collects to an inbox: everything it is asked goes there.
    pub(crate) fn attached(inbox: &Arc<Inbox>, attachment: Attachment) -> Registry {
        let mut state = spare::take(inbox.runner.clone());
        let extras = state.extras_mut();
        extras.inbox = Some(inbox.clone());
        extras.attached = Some(attachment);
        state.slow_path = true;
        state.on_account = true;
        Registry::of(state)
    }

    /// As `attached`, for a part of the request's own that is after its end, which can't set values.
    pub(crate) fn frozen(inbox: &Arc<Inbox>) -> Registry {
        Registry::attached(inbox, Attachment::held(inbox, true))
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.peek(|state| state.attachment().is_some()) == Some(true)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let frozen = self.peek(|state| Some(state.attachment()?.frozen));
        frozen.flatten() == Some(true)
    }

    /// Before attached code is polled or dropped, while `outer` is current.
    pub(crate) fn attach(&self, outer: Option<&Registry>) {
        let Some(inbox) = self.inbox() else { return };
        let inside = outer
            .and_then(Registry::inbox)
            .is_some_and(|outer| Arc::ptr_eq(outer.root(), inbox.root()));
        let settled = self.peek(|state| {
            let attachment = state.attachment()?;
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
        let gone = self.peek(|state| {
            let attachment = state.attachment()?;
            let snapshot = mem::take(&mut attachment.snapshot);
            Some((snapshot, mem::replace(&mut attachment.hold, hold)))
        });
        drop(gone);
    }

    /// Gives attached code an inbox of its own, with the values as they stand. Returns false for other code.
    #[cold]
    pub(crate) fn split_off(&self) -> bool {
        let parts = self.peek(|state| {
            let snapshot = state.attachment()?.snapshot.clone();
            Some((state.inbox()?.clone(), snapshot))
        });
        let Some(Some((inbox, snapshot))) = parts else {
            return false;
        };
        let own = inbox.split_off(snapshot);
        let gone = self.peek(|state| {
            let before = state.extras_mut().inbox.replace(own.clone());
            let attachment = state.attachment()?;
            let snapshot = mem::take(&mut attachment.snapshot);
            Some((before, snapshot, attachment.own.replace(Own { inbox: own })))
        });
        drop(gone);
        true
    }
}
