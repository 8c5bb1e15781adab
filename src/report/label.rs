//! What reports and events say of a task.

use std::{fmt, panic::Location};

use super::key::Key;

/// A task as it is named when it is no more.
#[derive(Clone)]
pub(crate) struct Label {
    pub(crate) name: &'static str,
    pub(crate) key: Option<Key>,
    pub(crate) location: &'static Location<'static>,
}

impl Label {
    /// Without its key, if it has one.
    pub(crate) fn plain(name: &'static str, location: &'static Location<'static>) -> Self {
        Label {
            name,
            key: None,
            location,
        }
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_ref().map(Key::as_str)
    }

    /// For a task that was not given its key.
    pub(crate) fn with_key(mut self, key: &Key) -> Self {
        self.key.get_or_insert_with(|| key.clone());
        self
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Label { name, location, .. } = self;
        match self.key() {
            Some(key) => write!(f, "`{name}` (key `{key}`, {location})"),
            None => write!(f, "`{name}` ({location})"),
        }
    }
}
