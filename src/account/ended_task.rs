//! The end of a task, however it came: dropped, counted, told to observers, reported.
//!
//! Three steps, because the middle one touches what is ours and the others run the user's code: [`EndedTask::of`] drops the
//! task, [`EndedTask::count`] says under which head it is counted, [`EndedTask::tell`] tells the observers and reports.

use std::{any::Any, time::Duration};

use super::counts::Counts;
use crate::{
    report::{self, Label, Observers, Outcome, TaskEnd, TaskFinished},
    task::{BoxedTask, End},
};

/// A task that has ended and was dropped.
pub(crate) struct EndedTask {
    label: Label,
    blocking: bool,
    end: End,
    /// Its end was reported where it happened.
    reported: bool,
    /// The panic of its destructor.
    destructor: Option<Box<dyn Any + Send>>,
    ran: Duration,
    longest_poll: Duration,
}

impl EndedTask {
    #[inline(always)]
    pub(crate) fn of(task: BoxedTask, end: End) -> EndedTask {
        let options = task.options();
        let blocking = options.is_some_and(|options| options.blocking.is_some());
        let times = options.and_then(|options| options.times.as_ref());
        let (ran, longest_poll) = times.map_or_else(Default::default, |times| {
            let ran = match (&end, times.started) {
                (_, None) => Duration::ZERO,
                (End::Completed | End::Failed(_) | End::Panicked(_), _) => times.ran,
                (_, Some(started)) => started.elapsed(),
            };
            (ran, times.longest_poll)
        });
        EndedTask {
            label: task.label(),
            blocking,
            end,
            reported: task.has_reported(),
            destructor: report::catch(|| drop(task)).err(),
            ran,
            longest_poll,
        }
    }

    pub(crate) fn has_completed(&self) -> bool {
        matches!((&self.end, &self.destructor), (End::Completed, None))
    }

    pub(crate) fn was_discarded(&self) -> bool {
        matches!(self.end, End::Discarded)
    }

    #[inline(always)]
    pub(crate) fn count(&self, counts: &mut Counts) {
        match (&self.end, &self.destructor) {
            (End::Completed, Some(_)) | (End::Panicked(_), _) => counts.panicked += 1,
            (End::Completed, None) => counts.completed += 1,
            (End::Failed(_), _) => counts.failed += 1,
            (End::TimedOut(_) | End::Overdue, _) => counts.timed_out += 1,
            (End::Discarded, _) => counts.discarded += 1,
            (End::Shed, _) => counts.shed += 1,
            (End::Lost(_), _) => counts.lost += 1,
        }
    }

    /// The caller has gathered losses with `Account::lose`: they are reported together.
    #[inline(always)]
    pub(crate) fn tell(self, observers: &Observers, outcome: Option<Outcome>) {
        if !observers.is_empty() {
            observers.tell(|observer| {
                observer.finished(&TaskFinished {
                    task: self.label.info(outcome, self.blocking),
                    end: match (&self.end, &self.destructor) {
                        (End::Completed, Some(payload)) => TaskEnd::Panicked(&**payload),
                        (End::Completed, None) => TaskEnd::Completed,
                        (End::Failed(error), _) => TaskEnd::Failed(&**error),
                        (End::Panicked(payload), _) => TaskEnd::Panicked(&**payload),
                        (End::TimedOut(_) | End::Overdue, _) => TaskEnd::TimedOut,
                        (End::Discarded, _) => TaskEnd::Discarded,
                        (End::Shed, _) => TaskEnd::Shed,
                        (End::Lost(_), _) => TaskEnd::Lost,
                    },
                    ran: self.ran,
                    longest_poll: self.longest_poll,
                });
            });
        }
        // In place: to move what was just written in pieces is to wait for it.
        let label = &self.label;
        match self.end {
            End::Completed | End::Overdue | End::Discarded | End::Shed | End::Lost(_) => {}
            End::Failed(error) => {
                if !self.reported {
                    report::failed(label, &*error);
                }
                report::drop_part(label, error);
            }
            End::Panicked(payload) => {
                if !self.reported {
                    report::panicked(label, &*payload);
                }
                report::forget_payload(payload);
            }
            End::TimedOut(limit) => {
                if !self.reported {
                    report::timed_out(label, limit);
                }
            }
        }
        if let Some(payload) = self.destructor {
            report::destructor_panicked(label, payload);
        }
    }
}

/// Drops a task that was replaced or taken back by its key, and tells of it. The caller counts it.
pub(crate) fn discard(observers: &Observers, outcome: Option<Outcome>, task: BoxedTask) {
    match observers.is_empty() {
        true => discard_untold(task),
        false => EndedTask::of(task, End::Discarded).tell(observers, outcome),
    }
}

/// As `discard`, of a Runner without observers.
pub(crate) fn discard_untold(task: BoxedTask) {
    let label = task.label();
    report::drop_part(&label, task);
}
