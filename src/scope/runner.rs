//! Scopes on a Runner of one's own.

use std::future::Future;

use super::{open::OpenScope, scope::Scope};
use crate::runner::Runner;

impl Runner {
    /// Wraps a request, like [`scope`](crate::scope), on this Runner.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// // In a test: its statistics are those of this request alone.
    /// let runner = after::Runner::builder().build();
    /// runner.scope(async { after::defer(async {}) }).await;
    /// runner.drain().await;
    /// assert_eq!(runner.stats().completed, 1);
    /// # });
    /// ```
    #[inline]
    pub fn scope<F: Future>(&self, request: F) -> Scope<F> {
        Scope::on(self.clone(), request)
    }

    /// Opens a request in several pieces, like [`open`](crate::open), on this Runner.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let runner = after::Runner::builder().build();
    /// let mut request = runner.open();
    /// request.enter(|| after::defer(async { println!("once it has ended") }));
    /// request.end(after::Outcome::Finished);
    /// runner.drain().await;
    /// assert_eq!(runner.stats().completed, 1);
    /// # });
    /// ```
    #[inline]
    pub fn open(&self) -> OpenScope {
        OpenScope::on(self.clone())
    }
}
