//! The boxed unit of work.

use std::{
    future::Future,
    mem::ManuallyDrop,
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    closure::BlockingShared,
    order::Condition,
    result::{Ended, TaskResult},
    sealed::Sealed,
    wrapped::{LimitReport, PastLimit},
};
use crate::{
    limit::Sleep,
    platform::Instant,
    pool::Pool,
    report::{Key, Label},
};

/// What a task runs. Every future whose output is a [`TaskResult`] is work; `dyn PollTask` hides its type.
pub(crate) trait PollTask: Send {
    fn poll_task(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended>;

    /// It is past its limit, which it reports itself, if a hook has wrapped it.
    fn report_limit(self: Pin<&mut Self>, _: PastLimit, _: &mut Context<'_>) -> LimitReport {
        LimitReport::default()
    }

    /// Whether it has reported its end itself.
    fn has_reported(&self) -> bool {
        false
    }
}

impl<F> PollTask for F
where
    F: Future + Send,
    F::Output: TaskResult,
{
    #[inline]
    fn poll_task(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        self.poll(cx).map(|output| output.into_end().into())
    }
}

pin_project_lite::pin_project! {
    /// A task in its box, with what is said of it in reports.
    pub(crate) struct TaskCell<W: ?Sized> {
        name: &'static str,
        location: &'static Location<'static>,
        // The place in the order of one scope; unique within it, and so the task's key on the roster. With the bits below.
        sequence: u64,
        // `None` for the plain task: nothing of it is looked at then.
        options: MaybeOptions,
        #[pin]
        work: W,
    }
}

/// What is told of a task by bits in its number: that it was polled and is pending, and that it is to be a batch of its own.
const POLLED: u64 = 1 << 63;
const SPAWNED: u64 = 1 << 62;

/// Nothing, for the plain task. Its drop is one test in place: what the compiler makes of a box with so much in it is a
/// call.
#[derive(Default)]
struct MaybeOptions(ManuallyDrop<Option<Box<TaskOptions>>>);

impl Drop for MaybeOptions {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            drop_options(self.0.take());
        }
    }
}

/// As many as a few requests at a time have: about 6 kB.
type Spares = Pool<TaskOptions, 32>;

thread_local! {
    static SPARES: Spares = const { Spares::new() };
}

/// If a destructor of the user's panics, the box goes too.
#[inline(never)]
fn drop_options(options: Option<Box<TaskOptions>>) {
    let Some(mut options) = options else { return };
    options.clear();
    let _ = SPARES.try_with(|spares| spares.keep(options));
}

fn new_options() -> Box<TaskOptions> {
    // An error where this thread's locals are being destroyed.
    let spare = SPARES.try_with(Spares::take);
    spare.ok().flatten().unwrap_or_default()
}

/// What few tasks have: all that a plain one does not pay for.
#[derive(Default)]
pub(crate) struct TaskOptions {
    pub(crate) key: Option<Key>,
    /// Decided at the hand-over, once.
    pub(crate) condition: Option<Condition>,
    /// Its time limit, until that has passed.
    pub(crate) timeout: Option<Duration>,
    /// Made when its first poll has left it pending.
    pub(crate) sleep: Option<Sleep>,
    /// Blocking work past its limit, which can't be stopped, and was reported.
    pub(crate) overdue: bool,
    /// A closure on the blocking pool: where its two halves meet.
    pub(crate) blocking: Option<Arc<BlockingShared>>,
    /// For observers, if there are any.
    pub(crate) times: Option<Times>,
}

impl TaskOptions {
    /// Whether there is more than a key.
    fn need_slow_path(&self) -> bool {
        self.condition.is_some()
            || self.timeout.is_some()
            || self.blocking.is_some()
            || self.times.is_some()
    }

    /// Field by field: to write the whole costs more than to make a new one.
    #[inline]
    fn clear(&mut self) {
        let TaskOptions {
            key,
            condition,
            timeout,
            sleep,
            overdue,
            blocking,
            times,
        } = self;
        *key = None;
        *condition = None;
        *timeout = None;
        *sleep = None;
        *overdue = false;
        *blocking = None;
        *times = None;
    }
}

#[derive(Default)]
pub(crate) struct Times {
    /// The hand-over, or when it was deferred, if that was later.
    pub(crate) could_start: Option<Instant>,
    pub(crate) started: Option<Instant>,
    /// From then to the end of its last poll.
    pub(crate) ran: Duration,
    pub(crate) longest_poll: Duration,
}

/// An owned task. Two words.
pub(crate) type BoxedTask = Pin<Box<TaskCell<dyn PollTask>>>;

impl TaskCell<()> {
    #[inline]
    pub(crate) fn boxed<W: PollTask + 'static>(
        work: W,
        name: &'static str,
        location: &'static Location<'static>,
    ) -> BoxedTask {
        // Allocated first, and written where it is. `Box::new` would make it on the stack, because it is to be dropped if
        // the allocation unwinds, and copy it in pieces of another size than those it was written in: for that the
        // processor waits until all of it has left its store buffer.
        let task: Box<TaskCell<W>> = Box::write(
            Box::new_uninit(),
            TaskCell {
                name,
                location,
                sequence: 0,
                options: MaybeOptions::default(),
                work,
            },
        );
        Box::into_pin(task)
    }
}

impl TaskCell<dyn PollTask> {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    #[inline]
    pub(crate) fn key(&self) -> Option<&Key> {
        self.options.0.as_ref()?.key.as_ref()
    }

    /// What is said of it when it is no more.
    #[inline]
    pub(crate) fn label(&self) -> Label {
        Label {
            name: self.name,
            key: self.key().cloned(),
            location: self.location,
        }
    }

    /// It runs for the call of `defer` with this label.
    pub(crate) fn relabel(self: Pin<&mut Self>, label: &Label) {
        let this = self.project();
        (*this.name, *this.location) = (label.name, label.location);
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence & !(POLLED | SPAWNED)
    }

    #[inline]
    pub(crate) fn was_polled(&self) -> bool {
        self.sequence & POLLED != 0
    }

    #[inline]
    pub(crate) fn mark_polled(self: Pin<&mut Self>) {
        *self.project().sequence |= POLLED;
    }

    #[inline]
    pub(crate) fn set_sequence(self: Pin<&mut Self>, sequence: u64) {
        let bits = self.project().sequence;
        *bits = (*bits & SPAWNED) | sequence;
    }

    #[inline]
    pub(crate) fn is_spawned(&self) -> bool {
        self.sequence & SPAWNED != 0
    }

    pub(crate) fn set_spawned(self: Pin<&mut Self>, spawned: bool) {
        let bits = self.project().sequence;
        *bits = match spawned {
            true => *bits | SPAWNED,
            false => *bits & !SPAWNED,
        };
    }

    /// Whether its batch has to look at more than its end.
    #[inline]
    pub(crate) fn needs_slow_path(&self) -> bool {
        self.is_spawned() || self.options().is_some_and(TaskOptions::need_slow_path)
    }

    #[inline]
    pub(crate) fn options(&self) -> Option<&TaskOptions> {
        self.options.0.as_deref()
    }

    pub(crate) fn options_mut(self: Pin<&mut Self>) -> Option<&mut TaskOptions> {
        self.project().options.0.as_deref_mut()
    }

    /// Makes it a task with options, if it is not one yet.
    pub(crate) fn make_options(self: Pin<&mut Self>) -> &mut TaskOptions {
        self.project().options.0.get_or_insert_with(new_options)
    }

    /// Its condition holds: nothing is kept that only said so.
    pub(crate) fn give_up_condition(self: Pin<&mut Self>) {
        let options = &mut self.project().options.0;
        if let Some(options) = &mut **options {
            options.condition = None;
        }
        let obeyed = options.take_if(|options| options.key.is_none() && !options.need_slow_path());
        if obeyed.is_some() {
            drop_options(obeyed);
        }
    }

    /// Gives it the options of the task that its work wraps.
    pub(crate) fn set_options(self: Pin<&mut Self>, options: Option<Box<TaskOptions>>) {
        *self.project().options.0 = options;
    }

    pub(crate) fn take_options(self: Pin<&mut Self>) -> Option<Box<TaskOptions>> {
        self.project().options.0.take()
    }

    /// The hand-over, or when it joined, for observers; unless that is known.
    pub(crate) fn could_start_from(self: Pin<&mut Self>, now: impl FnOnce() -> Instant) {
        let options = self.options_mut();
        if let Some(times) = options.and_then(|options| options.times.as_mut()) {
            times.could_start.get_or_insert_with(now);
        }
    }

    #[inline]
    pub(crate) fn poll_task(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        self.project().work.poll_task(cx)
    }

    pub(crate) fn report_limit(
        self: Pin<&mut Self>,
        past: PastLimit,
        cx: &mut Context<'_>,
    ) -> LimitReport {
        self.project().work.report_limit(past, cx)
    }

    pub(crate) fn has_reported(&self) -> bool {
        self.work.has_reported()
    }
}
