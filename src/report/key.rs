//! The key of a task.

use std::{
    borrow::{Borrow, Cow},
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Shared by the task, by the collection in which it can be replaced, and by the roster: cloning it allocates nothing.
#[derive(Clone)]
pub(crate) enum Key {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Key {
    #[inline]
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Key::Static(key) => key,
            Key::Shared(key) => key,
        }
    }

    pub(crate) fn into_cow(self) -> Cow<'static, str> {
        match self {
            Key::Static(key) => key.into(),
            Key::Shared(key) => String::from(&*key).into(),
        }
    }
}

impl From<Cow<'static, str>> for Key {
    #[inline]
    fn from(key: Cow<'static, str>) -> Self {
        match key {
            Cow::Borrowed(key) => Key::Static(key),
            Cow::Owned(key) => Key::Shared(key.into()),
        }
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
