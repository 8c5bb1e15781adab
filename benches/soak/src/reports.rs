//! A subscriber that counts the reports of failures instead of printing them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

/// How many error events of the crate there were.
#[derive(Clone, Default)]
pub(crate) struct Reports {
    count: Arc<AtomicU64>,
}

impl Reports {
    /// For all threads of the process.
    pub(crate) fn install() -> Result<Reports, tracing::subscriber::SetGlobalDefaultError> {
        let reports = Reports::default();
        tracing::subscriber::set_global_default(reports.clone())?;
        Ok(reports)
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Subscriber for Reports {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "after" && *metadata.level() == Level::ERROR
    }

    fn event(&self, _event: &Event<'_>) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    // No span is enabled.
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}
