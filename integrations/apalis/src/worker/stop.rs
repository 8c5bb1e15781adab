use std::{fmt, time::Duration};

use after::ShutdownReport;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Worker, finish::channel_flush};
use crate::report::report;

/// How long the store may take for the last words, when the limit is over.
const LAST: Duration = Duration::from_secs(5);

/// A job that [`Worker::shutdown`] stopped at its limit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GivenBack {
    /// [`Job::NAME`](crate::Job::NAME).
    pub name: &'static str,
    /// The job's id.
    pub id: String,
    /// Since it was fetched.
    pub age: Duration,
}

/// What a worker left. `Display` is one line for a log.
#[derive(Clone, Debug)]
pub struct StopReport {
    given_back: Vec<GivenBack>,
    returned: bool,
    deferred: ShutdownReport,
}

impl StopReport {
    /// Nothing was left: no job, and nothing that jobs deferred.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.given_back.is_empty() && self.returned && self.deferred.is_clean()
    }

    /// The jobs that were not done within the limit. Others can take them at once.
    #[must_use]
    pub fn given_back(&self) -> &[GivenBack] {
        &self.given_back
    }

    /// Whether the store could be told. If not, others take over once heartbeats are missed.
    #[must_use]
    pub fn store_was_told(&self) -> bool {
        self.returned
    }

    /// What the jobs had deferred, and is unfinished. It was in memory.
    #[must_use]
    pub fn deferred(&self) -> &ShutdownReport {
        &self.deferred
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.given_back.is_empty() {
            f.write_str("all jobs done")?;
        } else {
            write!(f, "{} job(s) given back:", self.given_back.len())?;
            for job in &self.given_back {
                write!(f, " `{}` {} ({:.1?})", job.name, job.id, job.age)?;
            }
        }
        if !self.returned {
            f.write_str(
                "; the store could not be told: others take over when heartbeats are missed",
            )?;
        }
        if !self.deferred.is_clean() {
            write!(f, "; deferred by jobs: {}", self.deferred)?;
        }
        Ok(())
    }
}

impl Worker {
    /// Stops fetching at once, lets running jobs end within the limit, stops the rest (their futures are dropped) and
    /// gives them back, so that another worker takes them now and not when heartbeats are missed. No attempt is counted
    /// for that. `after::stopping()` resolves in jobs, so that long ones can end early.
    ///
    /// What the jobs deferred is waited for, within the same limit. A job on the blocking pool can't be stopped: it is
    /// given back, and goes on until the process ends.
    ///
    /// After the server and its deferred work: first `after::shutdown`, then this.
    pub async fn shutdown(self, limit: Duration) -> StopReport {
        let end = Instant::now() + limit;
        self.stop.send_replace(true);
        self.runner.stop();
        let mut returned = true;

        for lane in &self.lanes {
            // A fetch that is under way: what comes of it is given back by the fetcher.
            let _ = timeout_at(end, wait(&lane.fetcher)).await;
        }
        for lane in &self.lanes {
            // Their channel is closed now, so apalis' worker ends when its jobs have.
            let _ = timeout_at(end, wait(&lane.worker)).await;
        }
        let mut given_back = Vec::new();
        for lane in &self.lanes {
            lane.fetcher.abort();
            let mut held = lane.shared.held();
            for (id, job) in held.iter_mut() {
                if let Some(abort) = job.abort.take() {
                    abort.abort();
                    given_back.push(GivenBack {
                        name: lane.shared.registration.queue,
                        id: id.clone(),
                        age: job.since.elapsed(),
                    });
                }
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        let deferred = self
            .runner
            .shutdown(left.max(Duration::from_millis(100)))
            .await;

        for lane in &self.lanes {
            lane.worker.abort();
            let registration = &lane.shared.registration;
            let tell = async {
                // First what has ended, then the rest: an end that is not recorded would run again.
                let _ = channel_flush(&lane.shared.finisher).await;
                self.jobs.store().give_back(registration, &[]).await?;
                self.jobs.store().leave(registration).await
            };
            match timeout(LAST, tell).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    returned = false;
                    report!(error, "worker of `{}`: {error}", registration.queue);
                }
                Err(_) => {
                    returned = false;
                    report!(
                        error,
                        "worker of `{}`: the store gave no answer within {LAST:?}",
                        registration.queue
                    );
                }
            }
            lane.finisher.abort();
        }
        // Until here: what was given back last was ours until then.
        for task in &self.beside {
            task.abort();
        }
        let report = StopReport {
            given_back,
            returned,
            deferred,
        };
        if !report.is_clean() {
            report!(warn, "worker {}: {report}", self.settings.name);
        }
        report
    }
}

async fn wait(task: &tokio::task::JoinHandle<()>) {
    while !task.is_finished() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
