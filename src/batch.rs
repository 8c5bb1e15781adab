//! The after phase: the tasks of one scope, as one future.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    current,
    outcome::{Order, Outcome},
    registry::{Active, Registry},
    report, spare,
    spawner::Found,
    turn,
};

/// The tasks of one scope, as one future: `Send + Unpin + 'static`.
///
/// A [`Spawner`](crate::Spawner) gets it to run, and a held scope gives it to its caller, who awaits it or
/// [releases](Batch::release) it. It resolves when all its tasks have ended, those included which they deferred in turn.
///
/// Its first poll starts nothing: it wakes itself and returns, so that whatever stands behind it in the runtime's queue
/// comes first; as a rule that is the connection that writes the response. After that each turn polls at most 32 times
/// before it goes back to the runtime's queue, and each turn starts one task further on than the last.
///
/// # Dropping it
///
/// Its unfinished tasks are dropped, with their scope current, counted as lost and reported. What their destructors
/// defer is lost in turn. This never panics.
#[must_use = "dropping a batch loses its tasks: await it or `release` it"]
pub struct Batch {
    /// `None` when all is done. One pointer: what is moved from scope to spawner to the runtime's cell is this.
    active: Option<Box<Active>>,
}

impl Batch {
    /// Ends a request: what its registry holds becomes a batch, on the roster.
    #[inline]
    pub(crate) fn collect(registry: &Registry, outcome: Outcome, order: Option<Order>) -> Batch {
        match registry.close() {
            None => Batch { active: None },
            Some(active) => Batch::hand_over(active, outcome, order),
        }
    }

    #[inline(never)]
    fn hand_over(mut active: Box<Active>, outcome: Outcome, order: Option<Order>) -> Batch {
        active.outcome = Some(outcome);
        active.queue = match &active.inbox {
            None => active.collected.take(),
            Some(inbox) => inbox.hand_over(outcome, &active.found),
        };
        active.order = order.unwrap_or(active.runner.get().order);
        active.joined = active.queue.len() as u64;
        let counts = mem::take(&mut active.unpublished);
        if active.queue.is_empty() {
            dispose_of(&mut active);
            active.runner.get().account.publish(counts);
            return Batch { active: None };
        }
        let seat = active.runner.get().account.seat(counts, &active.queue);
        active.seat = Some(seat);
        Batch {
            active: Some(active),
        }
    }

    /// A batch of one for a task that came when its scope's batch was over.
    pub(crate) fn late(active: Box<Active>) -> Batch {
        let outcome = active.outcome.unwrap_or(Outcome::Finished);
        Batch::hand_over(active, outcome, None)
    }

    /// Hands it to the Runner's spawner. An empty one is dropped.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async { after::defer(async {}) }).held().await;
    /// batch.release();
    /// # });
    /// ```
    #[inline]
    pub fn release(self) {
        // Apart, so that what is inlined into every request's poll is this one test.
        if self.active.is_some() {
            self.spawn();
        }
    }

    #[inline(never)]
    fn spawn(mut self) {
        let Some(active) = &mut self.active else {
            return;
        };
        // Both go out of the batch, because the spawner may drop it before it returns.
        let found = mem::replace(&mut active.found, Found::Nothing);
        let runner = active.runner.clone();
        let spawned = report::catch(|| found.with(runner.get(), |spawner| spawner.spawn(self)));
        if let Err(payload) = spawned {
            report::spawner_panicked(payload);
        }
    }

    /// How many tasks have not ended.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async { after::defer(async {}) }).held().await;
    /// assert_eq!(batch.len(), 1);
    /// batch.await;
    /// # });
    /// ```
    pub fn len(&self) -> usize {
        self.active.as_ref().map_or(0, |active| {
            let joining = active.inbox.as_ref().map_or(0, |inbox| inbox.len());
            active.unfinished() + joining
        })
    }

    /// Whether all its tasks have ended, or there were none.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let ((), batch) = after::scope(async {}).held().await;
    /// assert!(batch.is_empty());
    /// # drop(batch);
    /// # });
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the tasks that have not ended; before the first poll in the order of deferral.
    ///
    /// Tasks that a [`Handle`](crate::Handle) deferred after the hand-over are not among them before the next poll.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let request = async { after::task("audit").defer(async {}) };
    /// let ((), batch) = after::scope(request).held().await;
    /// assert!(batch.names().eq(["audit"]));
    /// batch.await;
    /// # });
    /// ```
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.active
            .iter()
            .flat_map(|active| active.tasks())
            .map(|node| node.name())
    }
}

impl Future for Batch {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut active) = self.active.take() else {
            return Poll::Ready(());
        };
        if !active.started {
            active.started = true;
            self.active = Some(active);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // The tasks run in a registry of their own on this stack; it goes back into the batch, also on unwinding: a
        // waker that panics must not take the tasks along.
        let turn = Turn {
            registry: Registry::active(active),
            batch: &mut self,
        };
        let done = current::enter(&turn.registry, || turn::run(&turn.registry, cx));
        drop(turn);
        if !done {
            return Poll::Pending;
        }
        if let Some(active) = self.active.take() {
            settle(active);
        }
        Poll::Ready(())
    }
}

struct Turn<'a> {
    registry: Registry,
    batch: &'a mut Batch,
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        self.batch.active = self.registry.close();
    }
}

/// Takes a batch without tasks off the roster. Outside its scope: whoever waits for the account is woken here.
#[inline]
fn settle(mut active: Box<Active>) {
    dispose_of(&mut active);
    let counts = mem::take(&mut active.unpublished);
    let account = &active.runner.get().account;
    match active.seat {
        Some(seat) => account.vacate(seat, counts),
        None => account.publish(counts),
    }
    spare::keep(active);
}

/// Drops the scope's context, unless a handle keeps it; the values' destructors are the user's code.
#[inline]
fn dispose_of(active: &mut Active) {
    if active.context.is_empty() {
        return;
    }
    let context = mem::take(&mut active.context);
    if let Err(payload) = report::catch(|| drop(context)) {
        report::unnamed_panicked("a context value", payload);
    }
}

impl Drop for Batch {
    #[inline]
    fn drop(&mut self) {
        if let Some(active) = self.active.take() {
            lose(active);
        }
    }
}

#[cold]
fn lose(active: Box<Active>) {
    let runner = active.runner.clone();
    let registry = Registry::active(active);
    current::enter(&registry, || {
        loop {
            let inbox = registry.inbox();
            let mut tasks = registry.peek(Active::take_tasks).unwrap_or_default();
            if let Some(inbox) = inbox {
                // Over only when nothing is left whose destructor might defer: until then that is lost with the batch.
                tasks.append(match tasks.is_empty() {
                    true => inbox.batch_ends(),
                    false => inbox.batch_runs(),
                });
            }
            if tasks.is_empty() {
                break;
            }
            let names = tasks.iter().map(|node| (node.name(), node.location()));
            runner.get().account.lose(&runner, names);
            registry.peek(|active| active.unpublished.lost += tasks.len() as u64);
            while let Some(node) = tasks.pop_front() {
                report::drop_quietly(node);
            }
        }
    });
    if let Some(active) = registry.close() {
        settle(active);
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `len` would lock the inbox; `Debug` does not.
        let unfinished = self.active.as_ref().map_or(0, |active| active.unfinished());
        f.debug_struct("Batch")
            .field("unfinished", &unfinished)
            .finish_non_exhaustive()
    }
}
