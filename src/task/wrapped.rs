//! A task that a hook has wrapped. What becomes of it is reported from inside: while the wrapping is polled, so that the
//! span, the hub or the baggage that it enters is current.
//!
//! The batch polls the wrapping, which polls the task. The two can't be told of each other, because the hook's future is
//! between them. So the outer one lends its reporter to the thread while it polls, and the task takes what it finds. A task
//! that a hook has given to another thread finds none, and its end is reported as that of any other task.

use std::{
    any::{Any, TypeId},
    cell::Cell,
    panic,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    cell::{BoxedTask, PollTask},
    hook::{TaskFuture, TaskOutput},
    result::{End, Ended},
};
use crate::report::{self, Label, Payload};

thread_local! {
    /// Of the wrapping that is being polled on this thread.
    static LENT: Cell<Option<Reporter>> = const { Cell::new(None) };
}

/// What the wrapped task needs to report its own end, and what it has reported.
struct Reporter {
    label: Label,
    /// It is past its limit: it is to report that, and not to run.
    past: Option<PastLimit>,
    reported_limit: bool,
    /// Where the payload is of the panic that it has reported.
    reported_panic: Option<(usize, TypeId, String)>,
    /// Blocking work that was reported at its limit: how it ends is told to nobody.
    silent: bool,
}

/// A limit that a task is past.
#[derive(Clone, Copy)]
pub(crate) struct PastLimit {
    pub(crate) limit: Duration,
    /// Blocking work that has begun: it can't be stopped, and is polled again.
    pub(crate) stays: bool,
}

impl PastLimit {
    pub(crate) fn report(self, label: &Label) {
        match self.stays {
            true => report::overdue(label, self.limit),
            false => report::timed_out(label, self.limit),
        }
    }
}

/// What came of asking a task to report a limit.
#[derive(Clone, Copy, Default)]
pub(crate) struct LimitReport {
    /// It was reported, inside of what the hook has made of the task.
    pub(crate) made: bool,
    /// The task has ended in that, and must not be polled again.
    pub(crate) over: bool,
}

/// What an `on_defer` hook has made of a task. Not a future itself: its end is not a `TaskResult`.
pub(crate) struct Wrapped {
    task: TaskFuture,
    /// `None` while it is lent.
    reporter: Option<Reporter>,
    begun: bool,
    /// Its end was reported inside.
    reported: bool,
}

impl Wrapped {
    pub(crate) fn new(task: TaskFuture, label: Label) -> Self {
        Wrapped {
            task,
            reporter: Some(Reporter {
                label,
                past: None,
                reported_limit: false,
                reported_panic: None,
                silent: false,
            }),
            begun: false,
            reported: false,
        }
    }

    /// Polls it while its reporter is lent to the thread.
    fn poll_lending(&mut self, cx: &mut Context<'_>) -> Result<Poll<TaskOutput>, Payload> {
        // An error where this thread's locals are being destroyed: then its end is reported outside.
        let outer = LENT.try_with(|lent| lent.replace(self.reporter.take()));
        let polled = report::catch(|| Pin::new(&mut self.task).poll(cx));
        if let Ok(outer) = outer {
            let own = LENT.try_with(|lent| lent.replace(outer));
            self.reporter = own.ok().flatten();
        }
        polled
    }

    /// Whether this is the panic that the task has reported. Another payload is of a panic of the hook's own.
    fn has_reported_panic(&self, payload: &Payload) -> bool {
        let reporter = self.reporter.as_ref();
        reporter.and_then(|own| own.reported_panic.as_ref()) == Some(&identity(&**payload))
    }
}

/// A hook's wrapping of a task knows its end already.
impl PollTask for Wrapped {
    fn poll_task(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        this.begun = true;
        match this.poll_lending(cx) {
            Ok(polled) => polled.map(|output| {
                this.reported = output.reported;
                output.end.into()
            }),
            Err(payload) => {
                this.reported = this.has_reported_panic(&payload);
                Poll::Ready(End::Panicked(payload).into())
            }
        }
    }

    fn has_reported(&self) -> bool {
        self.reported
    }

    fn report_limit(self: Pin<&mut Self>, past: PastLimit, cx: &mut Context<'_>) -> LimitReport {
        let this = self.get_mut();
        let Some(reporter) = &mut this.reporter else {
            return LimitReport::default();
        };
        reporter.silent = true;
        // What the hook does at the beginning is not for a task that never began; and without this thread's locals the
        // task would not know that it is not to run.
        if !this.begun || LENT.try_with(|_| ()).is_err() {
            return LimitReport::default();
        }
        reporter.past = Some(past);
        let polled = this.poll_lending(cx);
        let over = !matches!(polled, Ok(Poll::Pending));
        match polled {
            // Its error's destructor is the user's code.
            Ok(output) => report::drop_silently(output),
            Err(payload) => {
                // The hook may have caught the task's, and let it go on only now.
                let reported = this.has_reported_panic(&payload);
                if let (Some(reporter), false) = (&this.reporter, reported) {
                    report::panicked(&reporter.label, &*payload);
                }
                report::forget_payload(payload);
            }
        }
        this.reported = this.reporter.as_mut().is_some_and(|reporter| {
            reporter.past = None;
            reporter.reported_limit
        });
        LimitReport {
            made: this.reported,
            over,
        }
    }
}

/// Polls the task that a hook has wrapped, and reports how it ends, or its limit.
pub(super) fn poll_inside(task: &mut BoxedTask, cx: &mut Context<'_>) -> Poll<TaskOutput> {
    if report_past_limit() {
        return Poll::Pending;
    }
    // Not lent to what the task polls in turn.
    let own = LENT.try_with(Cell::take).ok().flatten();
    let polled = report::catch(|| task.as_mut().poll_task(cx));
    if own.is_some() {
        let _ = LENT.try_with(|lent| lent.set(own));
    }
    match polled {
        Ok(polled) => polled.map(|ended| {
            let end = End::from(ended);
            let reported = report_end(&end);
            TaskOutput { end, reported }
        }),
        Err(payload) => {
            with_lent(|reporter| {
                if !reporter.silent {
                    report::panicked(&reporter.label, &*payload);
                    reporter.reported_panic = Some(identity(&*payload));
                }
            });
            // The hook's future is unwound, as if this had not been caught.
            panic::resume_unwind(payload)
        }
    }
}

/// Whether the task is past its limit, and so is not to run; that is reported once.
fn report_past_limit() -> bool {
    let past = with_lent(|reporter| {
        let past = reporter.past?;
        if !std::mem::replace(&mut reporter.reported_limit, true) {
            past.report(&reporter.label);
        }
        Some(())
    });
    past.flatten().is_some()
}

/// Reports an error, or the panic of a closure, whose end is heard of here; returns whether it has.
fn report_end(end: &End) -> bool {
    let reported = with_lent(|reporter| match end {
        _ if reporter.silent => false,
        End::Failed(error) => {
            report::failed(&reporter.label, &**error);
            true
        }
        End::Panicked(payload) => {
            report::panicked(&reporter.label, &**payload);
            true
        }
        _ => false,
    });
    reported == Some(true)
}

/// With the reporter that this thread was lent. It is out of its place meanwhile: reports are the user's code, and may poll
/// other tasks.
fn with_lent<R>(f: impl FnOnce(&mut Reporter) -> R) -> Option<R> {
    let mut reporter = LENT.try_with(Cell::take).ok()??;
    let result = f(&mut reporter);
    // The locals were there a moment ago; without them what was reported inside would be reported outside too.
    let _ = LENT.try_with(|lent| lent.set(Some(reporter)));
    Some(result)
}

fn identity(payload: &(dyn Any + Send)) -> (usize, TypeId, String) {
    (
        std::ptr::from_ref(payload).addr(),
        payload.type_id(),
        report::message(payload).to_owned(),
    )
}
