//! The server, whatever it runs on: its handler, its tasks, and how it says what it leaves behind.

use std::{
    fs::File,
    future::Future,
    io::{self, Write as _},
    path::Path,
    pin::Pin,
    process,
    sync::Arc,
    time::Duration,
};

use after::ShutdownReport;

use crate::AnyError;

/// The argument that makes this program a server: `--serve RUNTIME LOG LIMIT_MS`.
pub(crate) const ARGUMENT: &str = "--serve";

/// The exit codes of `examples/shutdown.rs`.
pub(crate) const ALL_ENDED: i32 = 0;
pub(crate) const LIMIT_REACHED: i32 = 2;
pub(crate) const SECOND_SIGNAL: i32 = 3;

/// A server on a runtime of its own: writes to the log, and waits for so long when it is stopped.
pub(crate) type Serve = fn(&Path, Duration) -> Result<(), AnyError>;

/// The `main` of that process, with the servers by the names of their runtimes.
pub(crate) fn main(arguments: &[String], servers: &[(&str, Serve)]) -> Result<(), AnyError> {
    let [runtime, log, limit] = arguments else {
        return Err(format!("{ARGUMENT} needs three values").into());
    };
    let limit = Duration::from_millis(limit.parse()?);
    let server = servers.iter().find(|(name, _)| name == runtime);
    let (_, serve) = server.ok_or_else(|| format!("no runtime {runtime}"))?;
    serve(Path::new(log), limit)
}

pub(crate) type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Service {
    log: File,
    sleep: fn(Duration) -> Timer,
}

impl Service {
    pub(crate) fn new(log: &Path, sleep: fn(Duration) -> Timer) -> Result<Arc<Service>, AnyError> {
        let log = File::options().create(true).append(true).open(log)?;
        Ok(Arc::new(Service { log, sleep }))
    }

    /// Answers a request whose task takes so long. Gives the text of the answer.
    pub(crate) async fn work(self: Arc<Self>, id: u64, milliseconds: u64) -> String {
        // A name of its own, so that a report says which task is meant. Few, and the process does not get old.
        let name: &'static str = format!("work {id}").leak();
        let service = self.clone();
        after::task(name).defer(async move {
            (service.sleep)(Duration::from_millis(milliseconds)).await;
            // What a task defers is waited for, and named, like any other.
            after::task(name).defer_blocking(move || service.write(id));
        });
        // So that some requests are in their handler when the signal comes.
        (self.sleep)(Duration::from_millis(id % 3)).await;
        format!("accepted {id}\n")
    }

    fn write(&self, id: u64) -> io::Result<()> {
        (&self.log).write_all(format!("{id}\n").as_bytes())
    }
}

/// The id and the milliseconds of `/work/ID/MS`.
pub(crate) fn asked(path: &str) -> Option<(u64, u64)> {
    let (id, milliseconds) = path.strip_prefix("/work/")?.split_once('/')?;
    Some((id.parse().ok()?, milliseconds.parse().ok()?))
}

/// How the shutdown came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Kept,
    /// By a second signal.
    Lost,
}

/// Prints what is left, name by name, and ends the process.
pub(crate) fn end(report: &ShutdownReport, patience: Patience) -> ! {
    for task in report.unfinished() {
        println!("unfinished {}", task.name);
    }
    println!("pending {}", report.stats().pending);
    println!("{report}");
    process::exit(match patience {
        Patience::Lost => SECOND_SIGNAL,
        Patience::Kept if report.is_clean() => ALL_ENDED,
        Patience::Kept => LIMIT_REACHED,
    })
}
