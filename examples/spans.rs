//! Spans and deferred tasks: the task inside the request's span, or in a span of its own that follows from it.
//!
//! Run it with `cargo run --example spans`. It prints each span with how long it was open.

use std::{
    error::Error,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use after::{Runner, RunnerBuilder};
use tokio::time::sleep;
use tracing::{
    Event, Id, Instrument as _, Level, Subscriber,
    field::{Field, Visit},
    info, info_span,
    span::Attributes,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::{LookupSpan, Registry},
};

/// A handler of 10 ms, which leaves 40 ms of work behind.
async fn request() {
    after::task("mail").defer(async {
        sleep(Duration::from_millis(40)).await;
        info!("mail sent");
    });
    after::task("audit").defer(async {
        info!("auditing");
        Err::<(), _>("the audit log is full")
    });
    sleep(Duration::from_millis(10)).await;
    info!("answered");
}

/// One request on this Runner; gives what the layer below has seen of it.
async fn observe(runner: RunnerBuilder) -> Vec<String> {
    let runner = runner.build();
    let request = request().instrument(info_span!("request"));
    runner.scope(request).await;
    let report = runner.shutdown(Duration::from_secs(5)).await;
    assert_eq!((report.stats().completed, report.stats().failed), (1, 1));
    std::mem::take(&mut *seen())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing::subscriber::set_global_default(Registry::default().with(Spans))?;

    // Of the tasks, mail starts first and waits, so audit is the first to end. Its error is an event, in each case.

    println!("without a hook: the tasks are in no span");
    assert_eq!(
        observe(Runner::builder()).await,
        [
            "in request: answered",
            "request: closed",
            "in no span: auditing",
            "ERROR in no span: deferred task failed: the audit log is full",
            "in no span: mail sent",
        ]
    );

    println!("\n`in_current_span`: the tasks are in the request's span, which stays open for them");
    assert_eq!(
        observe(Runner::builder().on_defer(after::tracing::in_current_span)).await,
        [
            "in request: answered",
            "in request: auditing",
            "ERROR in request: deferred task failed: the audit log is full",
            "in request: mail sent",
            "request: closed",
        ]
    );

    println!("\n`following_current_span`: each task has its own, and the request's closes first");
    assert_eq!(
        observe(Runner::builder().on_defer(after::tracing::following_current_span)).await,
        [
            "after.task: follows from request",
            "after.task: follows from request",
            "in request: answered",
            "request: closed",
            "in after.task: auditing",
            "ERROR in after.task: deferred task failed: the audit log is full",
            "after.task: closed",
            "in after.task: mail sent",
            "after.task: closed",
        ]
    );
    Ok(())
}

/// Prints and keeps events, and times the spans.
struct Spans;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        span.extensions_mut().insert(Instant::now());
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let name = |id| context.span(id).map_or("a closed span", |span| span.name());
        note(format!("{}: follows from {}", name(id), name(follows)), "");
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let opened = span.extensions().get::<Instant>().copied();
        let open = opened.map_or(Duration::ZERO, |opened| opened.elapsed());
        let duration = format!(" after {} ms", open.as_millis());
        note(format!("{}: closed", span.name()), &duration);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let span = context.event_span(event);
        let span = span.map_or("no span", |span| span.name());
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::INFO => "",
            Level::ERROR => "ERROR ",
            _ => "other ",
        };
        note(format!("{level}in {span}: {}", text.message), &text.fields);
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields += &format!(" {name}={value:?}"),
        }
    }
}

/// What was seen, without times and places: they differ from run to run.
fn seen() -> MutexGuard<'static, Vec<String>> {
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(what: String, more: &str) {
    println!("  {what}{more}");
    seen().push(what);
}
