//! The runtime that a scope has found, where its Runner has no spawner of its own.

#[cfg(feature = "tokio")]
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

#[cfg(feature = "tokio")]
use tokio::runtime::Handle;

#[cfg(feature = "tokio")]
use crate::report;

/// What a scope knows of its spawner, if its Runner has none of its own.
///
/// Only one variant has anything in it, so that this moves in two registers, and not through memory.
#[derive(Clone, Default)]
pub(crate) enum DetectedRuntime {
    #[default]
    Nothing,
    #[cfg(feature = "tokio")]
    Tokio(Handle),
    #[cfg(feature = "async-std")]
    AsyncStd,
}

impl DetectedRuntime {
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, DetectedRuntime::Nothing)
    }

    #[inline]
    pub(crate) fn of_this_thread() -> DetectedRuntime {
        #[cfg(feature = "tokio")]
        if let Result::Ok(runtime) = Handle::try_current() {
            return DetectedRuntime::Tokio(runtime);
        }
        #[cfg(feature = "async-std")]
        if ::async_std::task::try_current().is_some() {
            return DetectedRuntime::AsyncStd;
        }
        DetectedRuntime::Nothing
    }

    /// Whether it is a runtime that takes nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            DetectedRuntime::Nothing => false,
            #[cfg(feature = "tokio")]
            DetectedRuntime::Tokio(runtime) => has_gone(runtime),
            #[cfg(feature = "async-std")]
            DetectedRuntime::AsyncStd => false,
        }
    }
}

/// Whether the runtime has gone: what it is given is dropped inside the call. One that lives gets a task that does
/// nothing, so this is for where it matters and no runtime is current.
#[cfg(feature = "tokio")]
fn has_gone(runtime: &Handle) -> bool {
    let probe = Probe {
        refused: Arc::default(),
        polled: false,
    };
    let refused = probe.refused.clone();
    report::quietly(|| drop(runtime.spawn(probe)));
    // Relaxed: a runtime that has gone drops the probe on this thread, inside `spawn`.
    refused.load(Ordering::Relaxed)
}

/// Tells if it is dropped without having been polled.
#[cfg(feature = "tokio")]
struct Probe {
    refused: Arc<AtomicBool>,
    polled: bool,
}

#[cfg(feature = "tokio")]
impl Future for Probe {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.polled = true;
        Poll::Ready(())
    }
}

#[cfg(feature = "tokio")]
impl Drop for Probe {
    fn drop(&mut self) {
        if !self.polled {
            self.refused.store(true, Ordering::Relaxed);
        }
    }
}
