//! Failures made visible.
//!
//! Errors, panics and losses are never silent: an `error` event where the `tracing` feature is on and a subscriber is
//! set, a line on standard error otherwise, or on JavaScript's console where there is none.

use std::{
    any::Any,
    error::Error,
    fmt::{self, Write as _},
    time::Duration,
};

use super::{
    label::Label,
    loss::{Gathered, Loss},
    unwind::{Payload, catch, forget_payload, message, quietly},
};
use crate::platform;

#[cold]
pub(crate) fn failed(task: &Label, error: &(dyn Error + 'static)) {
    // Its `Display` is the user's code.
    let text = catch(|| Chain(error).to_string());
    let text = text.unwrap_or_else(|payload| {
        forget_payload(payload);
        "(its error panicked when displayed)".into()
    });
    emit(task, format_args!("failed: {text}"));
}

/// Drops a task, or what is left of it. Its destructor is the user's code.
pub(crate) fn drop_part<T>(task: &Label, part: T) {
    if let Err(payload) = catch(|| drop(part)) {
        destructor_panicked(task, payload);
    }
}

/// Drops what is the user's and belongs to no task in particular: the request's future, a context value, a closure.
#[inline]
pub(crate) fn clean_up(of_what: &str, f: impl FnOnce()) {
    if let Err(payload) = catch(f) {
        unnamed_panicked(of_what, payload);
    }
}

/// An error and its causes, as `Error::source` gives them: "sending mail: connection refused". A cause that the error
/// before has in its own text is not said twice.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let causes = std::iter::successors(self.0.source(), |&cause| cause.source());
        // An error that is its own cause would go on for ever.
        for cause in causes.take(MOST_CAUSES) {
            let text = cause.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
        }
        Ok(())
    }
}

const MOST_CAUSES: usize = 32;

#[cold]
pub(crate) fn panicked(task: &Label, payload: &(dyn Any + Send)) {
    emit(task, format_args!("panicked: {}", message(payload)));
}

#[cold]
pub(crate) fn destructor_panicked(task: &Label, payload: Payload) {
    let message = message(&*payload);
    emit(task, format_args!("panicked in its destructor: {message}"));
    forget_payload(payload);
}

#[cold]
pub(crate) fn timed_out(task: &Label, limit: Duration) {
    emit(task, format_args!("timed out after {limit:?}"));
}

/// A closure can't be stopped, so this is said at its limit, and not when it returns.
#[cold]
pub(crate) fn overdue(task: &Label, limit: Duration) {
    emit(
        task,
        format_args!("timed out after {limit:?}, and can't be stopped: it is blocking work"),
    );
}

/// User code that belongs to no task in particular: an observer, a hook.
#[cold]
pub(crate) fn user_code_panicked(whose: &str, payload: Payload) {
    caught(format_args!("{whose} panicked"), payload);
}

#[cold]
pub(crate) fn spawner_panicked(payload: Payload) {
    user_code_panicked("the spawner", payload);
}

/// The same, of a destructor.
#[cold]
pub(crate) fn unnamed_panicked(of_what: &str, payload: Payload) {
    caught(
        format_args!("{of_what} panicked in its destructor"),
        payload,
    );
}

#[cold]
pub(crate) fn no_timer(payload: Payload) {
    caught(
        format_args!(
            "the runtime has no timer, so timeouts use one of their own (tokio: `enable_time`)"
        ),
        payload,
    );
}

fn caught(what: fmt::Arguments<'_>, payload: Payload) {
    line(format_args!("{what}: {}", message(&*payload)));
    forget_payload(payload);
}

/// The tasks are lost, which names them; this is why. Once: it is a matter of how the program was built.
#[cfg(not(any(feature = "smol", feature = "async-std", feature = "threads")))]
#[cold]
pub(crate) fn no_runtime() {
    use std::sync::atomic::{AtomicBool, Ordering};

    if cfg!(all(target_family = "wasm", target_os = "unknown")) {
        // No feature would help.
        return no_threads();
    }
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        line(format_args!(
            "no runtime is current and the feature `threads` is off, so deferred tasks are lost: end requests \
             inside the runtime, install a `Runner` on a spawner, or turn the feature on"
        ));
    }
}

/// The same where `spawner::Threads` has none: the system gives none, or the target has none.
#[cfg(any(feature = "threads", not(any(feature = "smol", feature = "async-std"))))]
#[cold]
pub(crate) fn no_threads() {
    use std::sync::atomic::{AtomicBool, Ordering};

    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        line(format_args!(
            "no thread can be started here, so deferred tasks are lost: hold their batch and await it, or install a \
             `Runner` on a spawner"
        ));
    }
}

/// One line for all losses of this kind since the last such line.
#[cold]
pub(crate) fn lost(why: Loss, losses: &Gathered) {
    let count = losses.count;
    let mut first = String::new();
    for task in &losses.first {
        let comma = if first.is_empty() { "" } else { ", " };
        // Writing to a `String` does not fail.
        let _ = write!(first, "{comma}{task}");
    }
    let more = count - losses.first.len() as u64;
    if more > 0 {
        let _ = write!(first, " and {more} more");
    }
    let tasks = if count == 1 { "task" } else { "tasks" };
    let how = if why == Loss::Shed { "shed" } else { "lost" };
    let why_and_what_to_do = why.explained();
    // The subscriber is the user's code.
    quietly(|| {
        #[cfg(feature = "tracing")]
        if subscribed() {
            let of_first = losses.first.first();
            tracing::error!(
                target: "after",
                count,
                reason = why.as_str(),
                task = of_first.map(|task| task.name),
                key = of_first.and_then(Label::key),
                location = of_first.map(|task| tracing::field::display(task.location)),
                first,
                "{count} {tasks} {how}: {why_and_what_to_do}"
            );
            return;
        }
        to_stderr(format_args!(
            "{count} {tasks} {how}: {why_and_what_to_do}; first: {first}"
        ));
    });
}

fn emit(task: &Label, what: fmt::Arguments<'_>) {
    let Label { name, location, .. } = task;
    // The subscriber is the user's code.
    quietly(|| {
        #[cfg(feature = "tracing")]
        if subscribed() {
            tracing::error!(
                target: "after",
                task = name,
                key = task.key(),
                location = %location,
                "deferred task {what}"
            );
            return;
        }
        let key = task.key().map(|key| format!(" (key `{key}`)"));
        let key = key.unwrap_or_default();
        to_stderr(format_args!(
            "task `{name}`{key} deferred at {location} {what}"
        ));
    });
}

fn line(text: fmt::Arguments<'_>) {
    quietly(|| {
        #[cfg(feature = "tracing")]
        if subscribed() {
            tracing::error!(target: "after", "{text}");
            return;
        }
        to_stderr(text);
    });
}

/// Whether an event would reach somebody here and now; one set on another thread alone would not see it.
#[cfg(feature = "tracing")]
fn subscribed() -> bool {
    tracing::dispatcher::get_default(|current| !current.is::<tracing::subscriber::NoSubscriber>())
}

fn to_stderr(text: fmt::Arguments<'_>) {
    // A model loses the same tasks thousands of times.
    if cfg!(after_loom) {
        return;
    }
    platform::say(format_args!("after: {text}"));
}
