//! An [`Observer`] that counts through the `metrics` facade (feature `metrics`).
//!
//! | Metric | Kind | Labels | What |
//! |---|---|---|---|
//! | `after_tasks_deferred_total` | counter | `task` | tasks given to `defer` |
//! | `after_tasks_finished_total` | counter | `task`, `end` | tasks that have ended: `completed`, `failed`, `panicked`, `timed_out`, `discarded`, `shed`, `lost` |
//! | `after_tasks_pending` | gauge | | tasks that were deferred and have not ended |
//! | `after_task_waiting_seconds` | histogram | `task` | time in the queue: from the end of the request to the first poll |
//! | `after_task_running_seconds` | histogram | `task` | from the first poll to the end |
//!
//! `task` is the task's name; an unnamed one has its type's, so their number is bounded by the program's text.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::report::{Observer, TaskDeferred, TaskEnd, TaskFinished, TaskStarted};

/// Counts the tasks of a [`Runner`](crate::Runner) through the recorder of the `metrics` facade.
///
/// The recorder is the application's: install it before the first request. Where none is installed nothing is counted.
///
/// ```
/// let runner = after::Runner::builder()
///     .observer(after::metrics::Metrics::default())
///     .build();
/// # drop(runner);
/// ```
#[derive(Debug)]
pub struct Metrics {
    _private: (),
}

impl Default for Metrics {
    /// Describes the metrics to the recorder that is installed now.
    fn default() -> Self {
        describe_counter!("after_tasks_deferred_total", "Tasks given to `defer`.");
        describe_counter!(
            "after_tasks_finished_total",
            "Tasks that have ended, by how they have."
        );
        describe_gauge!(
            "after_tasks_pending",
            "Tasks that were deferred and have not ended."
        );
        describe_histogram!(
            "after_task_waiting_seconds",
            metrics::Unit::Seconds,
            "From the hand-over to the first poll."
        );
        describe_histogram!(
            "after_task_running_seconds",
            metrics::Unit::Seconds,
            "From the first poll to the end."
        );
        Metrics { _private: () }
    }
}

impl Observer for Metrics {
    fn deferred(&self, event: &TaskDeferred<'_>) {
        counter!("after_tasks_deferred_total", "task" => event.task.name.to_owned()).increment(1);
        gauge!("after_tasks_pending").increment(1.0);
    }

    fn started(&self, event: &TaskStarted<'_>) {
        histogram!("after_task_waiting_seconds", "task" => event.task.name.to_owned())
            .record(event.waited);
    }

    fn finished(&self, event: &TaskFinished<'_>) {
        let end = match event.end {
            TaskEnd::Completed => "completed",
            TaskEnd::Failed(_) => "failed",
            TaskEnd::Panicked(_) => "panicked",
            TaskEnd::TimedOut => "timed_out",
            TaskEnd::Discarded => "discarded",
            TaskEnd::Shed => "shed",
            TaskEnd::Lost => "lost",
        };
        let task = event.task.name.to_owned();
        counter!("after_tasks_finished_total", "task" => task.clone(), "end" => end).increment(1);
        gauge!("after_tasks_pending").decrement(1.0);
        // What was never polled has not run.
        if !event.ran.is_zero() {
            histogram!("after_task_running_seconds", "task" => task).record(event.ran);
        }
    }
}
