//! Running what a recorder has recorded.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    failures::{Elsewhere, Stuck, Verdict},
    recorder::Recorder,
    records::Records,
    running::Running,
};
use crate::{
    account::{Counts, Stats},
    batch::Batch,
    limit::sleep_without_runtime,
    report::ALONE,
    runner::Runner,
};

impl Recorder {
    /// Runs what was recorded, until nothing is left, and panics if a task failed.
    ///
    /// That includes what tasks defer, and the tasks of scopes inside them. It is fine if nothing was recorded. A task that
    /// never ends makes this wait forever: [`run_within`](Recorder::run_within) has a limit.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it resolves, it leaves the tasks that have not ended recorded, to be run further.
    ///
    /// # Panics
    ///
    /// When nothing is left to run, at the line of the `await`:
    ///
    /// - if a task failed, panicked, timed out, was shed or was lost, naming each with the place where it was deferred. Of
    ///   a Runner that is not this recorder's [own](Recorder::runner) it knows how many, not which;
    /// - if a request of its own Runner that has deferred something is still open, or a batch of it is held: then that was
    ///   not run. Under the HTTP layer a response that was neither read to its end nor dropped is such a request.
    ///   Behind a real server the request ends shortly after the client has read the response: there
    ///   [`run_within`](Recorder::run_within) waits for it.
    ///
    /// ```should_panic
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (_, recorder) = after::testing::capture(async {
    ///     after::task("webhook").defer(async { Err::<(), _>("the receiver answers 503") });
    /// })
    /// .await;
    /// // Panics: `webhook` (deferred at src/main.rs:4:29) failed: the receiver answers 503
    /// recorder.run().await;
    /// # }
    /// ```
    pub fn run(&self) -> impl Future<Output = ()> + Send + '_ {
        ToTheEnd {
            run: Box::pin(self.run_all(false)),
        }
    }

    /// Runs what was recorded, like [`run`](Recorder::run), with a limit in real time, and without a panic.
    ///
    /// What failed is in the [`Stats`]: those of all Runners whose batches were run, added up. While a request of the
    /// recorder's own Runner is open that has deferred something, it waits for its end, and runs its tasks.
    ///
    /// The limit is measured by a timer that needs no runtime, so a paused clock does not hold it up.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it resolves, it leaves the tasks that have not ended recorded, to be run further.
    ///
    /// # Errors
    ///
    /// [`Stuck`] at the limit, naming the tasks that had not ended, and saying how many belong to requests that are open.
    /// Those that were recorded stay recorded, and may be run further.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (_, recorder) = after::testing::capture(async {
    ///     after::task("waits forever").defer(std::future::pending::<()>());
    /// })
    /// .await;
    /// let stuck = recorder.run_within(Duration::from_millis(20)).await.unwrap_err();
    /// assert_eq!(stuck.unfinished()[0].name, "waits forever");
    /// # }
    /// ```
    pub async fn run_within(&self, limit: Duration) -> Result<Stats, Stuck> {
        let mut run = Box::pin(self.run_all(true));
        let mut timer = sleep_without_runtime(limit);
        let ended = poll_fn(|cx| {
            if let Poll::Ready((_, counts)) = run.as_mut().poll(cx) {
                return Poll::Ready(Some(Stats::from(counts)));
            }
            timer.poll(cx).map(|()| None)
        })
        .await;
        // Puts back what was being run.
        drop(run);
        let unfinished = self.kept.with(|kept| {
            kept.failures.clear();
            let tasks = kept.batches().flat_map(Batch::unfinished);
            tasks.map(|(_, task)| task).collect()
        });
        ended.ok_or_else(|| Stuck {
            limit,
            unfinished,
            elsewhere: self.elsewhere(),
        })
    }

    /// What its own Runner has not given to it.
    fn elsewhere(&self) -> Elsewhere {
        let Some(runner) = self.runner.get() else {
            return Elsewhere::default();
        };
        // So that what is current here has published its counts.
        runner.counts();
        let (counts, named) = runner.core.account.unfinished();
        let of_ours = |batch: &&Batch| {
            let its = batch.runner();
            its.is_some_and(|its| Arc::ptr_eq(&its.core, &runner.core))
        };
        let recorded = |kept: &mut Records| kept.batches().filter(of_ours).map(Batch::len).sum();
        let recorded: usize = self.kept.with(recorded);
        let handed_over = named.len() as u64;
        Elsewhere {
            requests: counts.pending().saturating_sub(handed_over),
            held: handed_over.saturating_sub(recorded as u64),
        }
    }

    /// Runs everything, and, if it `waits`, what open requests of its own Runner are still to hand over; gives the
    /// counts of all Runners concerned, added up, before and after.
    async fn run_all(&self, waits: bool) -> (Verdict, Counts) {
        let mut run = Run {
            recorder: self,
            running: Running::default(),
        };
        // Each with its counts of before.
        let mut runners: Vec<(Runner, Counts)> = Vec::new();
        let mut add = |runner: Runner| {
            let is_it = |(known, _): &(Runner, Counts)| Arc::ptr_eq(&known.core, &runner.core);
            if !runners.iter().any(is_it) {
                let counts = runner.counts();
                runners.push((runner, counts));
            }
        };
        self.runner.get().cloned().map(&mut add);
        let mut nothing_pending = self.runner.get().filter(|_| waits).map(|runner| {
            let runner = runner.clone();
            Box::pin(async move { runner.drain().await })
        });
        poll_fn(|cx| {
            let recorded = |kept: &mut Records| mem::take(&mut kept.batches);
            for kept in self.kept.watch(ALONE, cx.waker(), recorded) {
                kept.batch.runner().map(&mut add);
                run.running.add(kept);
            }
            let ended = run.running.poll_woken(cx.waker());
            let idle = self.kept.with(|kept| {
                ended.into_iter().for_each(|tasks| kept.has_run(tasks));
                // Those that have run may have handed over others: then this was woken.
                run.running.is_empty() && kept.batches.is_empty()
            });
            match &mut nothing_pending {
                _ if !idle => Poll::Pending,
                None => Poll::Ready(()),
                Some(nothing_pending) => nothing_pending.as_mut().poll(cx),
            }
        })
        .await;
        drop(run);
        let mut before = Counts::default();
        let mut after = Counts::default();
        for (runner, counts) in runners {
            before.add(&counts);
            after.add(&runner.counts());
        }
        let bad = |counts: &Counts| {
            counts.failed + counts.panicked + counts.timed_out + counts.shed + counts.lost
        };
        let failures = self.kept.with(|kept| mem::take(&mut kept.failures));
        let unnamed = bad(&after).saturating_sub(bad(&before));
        let unnamed = unnamed.saturating_sub(failures.len() as u64);
        let verdict = Verdict {
            failures,
            unnamed,
            elsewhere: self.elsewhere(),
        };
        (verdict, after)
    }
}

/// A run whose failures are the test's. A type of its own, because an `async fn` does not know who awaits it.
struct ToTheEnd<'a> {
    run: Pin<Box<dyn Future<Output = (Verdict, Counts)> + Send + 'a>>,
}

impl Future for ToTheEnd<'_> {
    type Output = ();

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready((verdict, _)) = self.run.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        assert!(verdict.is_good(), "{verdict}");
        Poll::Ready(())
    }
}

/// Runs a recorder's batches. Dropped, it puts back what has not ended.
struct Run<'a> {
    recorder: &'a Recorder,
    running: Running,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let running = self.running.take();
        self.recorder.kept.with(|kept| {
            let newer = mem::take(&mut kept.batches);
            running.into_iter().for_each(|batch| kept.put_back(batch));
            kept.batches.extend(newer);
        });
    }
}
