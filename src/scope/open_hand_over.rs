//! An open scope whose tasks start while it goes on.

use super::open::OpenScope;
use crate::report::Outcome;

impl OpenScope {
    /// Starts what was deferred so far, while the request goes on: for an endless stream, when its head is sent.
    ///
    /// `outcome` is how the request counts as ended from here on, for all its tasks: what a later call of this or the
    /// end of the scope says is ignored. The [`context`](crate::context) is frozen when the first tasks start: later
    /// pieces read it, and can't change it. What they defer joins the running tasks, and once those have ended starts at
    /// once, each task by itself.
    ///
    /// If nothing was deferred, nothing set and no handle taken so far, it is as if nothing had been called but for the
    /// outcome. So call it after each piece: it does nothing once tasks have started. What a piece has deferred without a
    /// call after it starts at the end.
    ///
    /// Never panics.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use after::Outcome;
    ///
    /// let mut request = after::open();
    /// request.enter(|| after::defer(async { println!("somebody is watching") }));
    /// // The head is sent.
    /// request.hand_over(Outcome::Finished);
    /// for event in ["tick", "tock"] {
    ///     request.enter(|| after::defer(async move { println!("{event} is sent") }));
    ///     request.hand_over(Outcome::Finished);
    /// }
    /// // The client disconnects, as they all do.
    /// drop(request);
    /// # after::Runner::global().drain().await;
    /// # assert_eq!(after::Runner::global().stats().completed, 3);
    /// # });
    /// ```
    #[inline]
    pub fn hand_over(&mut self, outcome: Outcome) {
        if !self.attached {
            let outcome = *self.outcome.get_or_insert(outcome);
            self.hand_over_so_far(outcome);
        }
    }

    #[cold]
    fn hand_over_so_far(&mut self, outcome: Outcome) {
        if !self.registry().is_used() {
            return;
        }
        let handle = self.registry().handle();
        // Before the end, so that later pieces keep the values of the request.
        let attached = handle.frozen_registry();
        let batch = self.collect(outcome);
        *self.registry() = attached;
        self.attached = true;
        batch.release();
    }
}
