//! The typed values of one scope: see [`context`](crate::context).

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Weak},
};

use crate::report;

type ValueMap = HashMap<TypeId, Arc<dyn Any + Send + Sync>, BuildHasherDefault<TypeHasher>>;

/// A type's id is a hash already, and nobody from outside can choose it.
#[derive(Default)]
struct TypeHasher {
    hash: u64,
}

impl Hasher for TypeHasher {
    fn write(&mut self, bytes: &[u8]) {
        // A `TypeId` is hashed by `write_u64`; what it is hashed by otherwise is no promise of std's.
        for byte in bytes {
            self.hash = self.hash.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.hash = hash;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

/// The values of one scope. Cloning shares them; a change after that copies the map, not the values.
#[derive(Clone, Default)]
pub(crate) struct Values {
    values: Option<Arc<ValueMap>>,
}

impl Drop for Values {
    #[inline]
    fn drop(&mut self) {
        if let Some(values) = self.values.take() {
            drop_values(values);
        }
    }
}

/// The values of a scope that is over, for as long as a task of its own still has them.
#[derive(Default)]
pub(crate) struct Past {
    values: Weak<ValueMap>,
}

impl Past {
    pub(crate) fn context(&self) -> Values {
        Values {
            values: self.values.upgrade(),
        }
    }
}

/// Each value's destructor is the user's code: one that panics leaves the others, and us, unharmed.
#[cold]
fn drop_values(values: Arc<ValueMap>) {
    for value in Arc::into_inner(values).into_iter().flatten() {
        report::clean_up("a context value", || drop(value));
    }
}

impl Values {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_none()
    }

    pub(crate) fn past(&self) -> Past {
        Past {
            values: self.values.as_ref().map_or_else(Weak::new, Arc::downgrade),
        }
    }

    pub(crate) fn value<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.values.as_ref()?.get(&TypeId::of::<T>())?.clone();
        value.downcast().ok()
    }

    pub(crate) fn insert(
        &mut self,
        id: TypeId,
        value: Arc<dyn Any + Send + Sync>,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        Arc::make_mut(self.values.get_or_insert_default()).insert(id, value)
    }
}
