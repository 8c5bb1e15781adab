//! Spawners that pass on to another, and those that are a function.

use std::{fmt, sync::Arc, time::Duration};

use super::Spawner;
use crate::{batch::Batch, limit::Sleep, task::BlockingWork};

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: Spawner + ?Sized> Spawner for $pointer {
            fn spawn(&self, batch: Batch) {
                (**self).spawn(batch);
            }

            fn spawn_blocking(&self, work: BlockingWork) {
                (**self).spawn_blocking(work);
            }

            fn sleep(&self, duration: Duration) -> Sleep {
                (**self).sleep(duration)
            }
        }
    )*};
}

forward!(Arc<S>, Box<S>, &'static S);

/// A [`Spawner`] that is a function; made by [`from_fn`].
pub struct FromFn<F> {
    spawn: F,
}

/// A [`Spawner`] from a function, which keeps to the [contract](Spawner).
///
/// ```
/// use after::{Runner, spawner};
///
/// // A thread for each batch.
/// let runner = Runner::new(spawner::from_fn(|batch| {
///     std::thread::spawn(|| futures::executor::block_on(batch));
/// }));
/// # drop(runner);
/// ```
pub fn from_fn<F: Fn(Batch) + Send + Sync + 'static>(spawn: F) -> FromFn<F> {
    FromFn { spawn }
}

impl<F: Fn(Batch) + Send + Sync + 'static> Spawner for FromFn<F> {
    fn spawn(&self, batch: Batch) {
        (self.spawn)(batch);
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}
