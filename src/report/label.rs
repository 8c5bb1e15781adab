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
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_ref().map(Key::as_str)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&named(self.name, self.key(), self.location))
    }
}

/// A task in a line of text, with its key, if it has one, and where it was deferred: `` `mail` (key `7`, main.rs:4:9) ``.
pub(crate) fn named(name: &str, key: Option<&str>, place: impl fmt::Display) -> String {
    match key {
        Some(key) => format!("`{name}` (key `{key}`, {place})"),
        None => format!("`{name}` ({place})"),
    }
}
