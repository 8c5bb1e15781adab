//! The service's log, on standard output and on the page.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, filter::filter_fn, layer::Context, prelude::*};

use crate::feed::Feed;

/// From here on what is logged goes to standard output and to the feed. What `after` reports (an error of a task, a panic,
/// a time limit, a loss) is logged too: it uses `tracing` when there is a subscriber.
pub fn start(feed: Feed) {
    let terminal = tracing_subscriber::fmt::layer()
        .with_ansi(io::stdout().is_terminal())
        // Whoever runs the service adds one.
        .without_time()
        .with_target(false);
    tracing_subscriber::registry()
        .with(terminal.with_filter(filter_fn(is_ours)))
        .with(PageLog { feed }.with_filter(filter_fn(is_ours)))
        .init();
}

/// Without what the libraries say among themselves.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().starts_with("shop") || metadata.target().starts_with("after");
    ours && *metadata.level() <= Level::INFO
}

struct PageLog {
    feed: Feed,
}

impl<S: Subscriber> Layer<S> for PageLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.feed.line(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
