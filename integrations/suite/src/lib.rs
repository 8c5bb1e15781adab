//! One suite for every framework: real servers, real clients, and a table of what was seen.
//!
//! A framework brings a [`Framework`]: a function that serves the routes of an [`App`] until it is told to stop. [`main`] runs
//! each case over sockets of loopback, prints what was seen, and compares it with the framework's column in
//! `docs/frameworks.md`. `AFTER_ACCEPT_FRAMEWORKS=1` stores the column instead.
//!
//! Nothing here sleeps to let something happen: handlers, bodies and tasks wait at gates that the client opens, and what
//! happens is written down in one order, the hand-over included, because the Runner's spawner writes it.
//!
//! A test of a framework is a target with `harness = false`:
//!
//! ```no_run
//! use after_suite::{App, Framework, Listening};
//! use futures_util::{FutureExt as _, future::LocalBoxFuture};
//!
//! fn serve(app: App, listening: Listening) -> LocalBoxFuture<'static, ()> {
//!     async move {
//!         // .. binds a free port, tells `listening` its address, and serves ..
//!         app.stopping().await;
//!         // .. and ends its last requests.
//!     }
//!     .boxed_local()
//! }
//!
//! after_suite::main(Framework::new("a framework", serve));
//! ```

mod app;
mod cases;
#[cfg(unix)]
mod child;
mod client;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod readme;
mod table;

use std::{
    env,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    thread,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

pub use self::app::{App, Chunks, Event, Gate, LARGE, SLOW_CHUNKS};
#[cfg(unix)]
pub use self::readme::readme;
use self::{cases::Service, table::Cell};

/// How long a case waits before it fails. Nothing waits for this to pass.
pub(crate) const GUARD: Duration = Duration::from_secs(30);

/// Where the server says its address, when it listens.
pub type Listening = oneshot::Sender<SocketAddr>;

/// A framework, and what it is known to do otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Framework {
    name: &'static str,
    serve: fn(App, Listening) -> LocalBoxFuture<'static, ()>,
    handler_goes_on: bool,
    handler_survives_a_reset: bool,
    body_goes_on: bool,
}

impl Framework {
    /// One that drops handler and body when the client goes, and whose requests end with their bodies.
    ///
    /// `serve` runs on one thread, inside a tokio runtime. It ends when [`App::stopping`] has resolved and the requests in
    /// progress have ended.
    pub fn new(
        name: &'static str,
        serve: fn(App, Listening) -> LocalBoxFuture<'static, ()>,
    ) -> Framework {
        Framework {
            name,
            serve,
            handler_goes_on: false,
            handler_survives_a_reset: false,
            body_goes_on: false,
        }
    }

    /// Its handlers run to their ends when the client has closed its connection.
    pub fn handler_goes_on(self) -> Framework {
        Framework {
            handler_goes_on: true,
            ..self
        }
    }

    /// They do so, too, when it was reset.
    pub fn handler_survives_a_reset(self) -> Framework {
        Framework {
            handler_survives_a_reset: true,
            ..self
        }
    }

    /// A body that waits is not dropped when the client goes.
    pub fn body_goes_on(self) -> Framework {
        Framework {
            body_goes_on: true,
            ..self
        }
    }
}

const SIGTERM: &str = "40 requests at SIGTERM";

/// Runs the cases; the `main` of a test without a harness.
///
/// Understands what `cargo test` hands on: names to choose cases by, `--list`, and flags that it ignores.
pub fn main(framework: Framework) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    #[cfg(unix)]
    if arguments.iter().any(|argument| argument == process::SERVE) {
        process::serve(&framework);
    }
    let cases = cases::NAMES
        .into_iter()
        .chain(cfg!(unix).then_some(SIGTERM));
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|name| !name.starts_with('-'))
        .collect();
    let cases = cases.filter(|case| {
        wanted.is_empty() || wanted.iter().any(|wanted| case.contains(wanted.as_str()))
    });
    if arguments.iter().any(|argument| argument == "--list") {
        cases.for_each(|case| println!("{case}: test"));
        return ExitCode::SUCCESS;
    }
    let mut seen = Vec::new();
    let mut failed = false;
    for case in cases {
        // What has panicked is gone: each case has a server of its own.
        match catch_unwind(AssertUnwindSafe(|| run(&framework, case))) {
            Ok(cell) => {
                println!("{}: {case}: {cell}", framework.name);
                seen.push((case, cell));
            }
            Err(_) => {
                println!("{}: {case}: FAILED", framework.name);
                failed = true;
            }
        }
    }
    if let Err(difference) = table::compare(framework.name, &seen) {
        println!("{difference}");
        failed = true;
    }
    match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn run(framework: &Framework, case: &'static str) -> Cell {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let cell = runtime.block_on(async {
        #[cfg(unix)]
        if case == SIGTERM {
            return process::stopped_by_sigterm().await;
        }
        let app = App::watched();
        let (tell, address) = oneshot::channel();
        let server = serve_on_a_thread(*framework, app.clone(), tell);
        let address = address.await.expect("the server says where it listens");
        let service = Service {
            app: &app,
            address,
            framework,
        };
        let cell = service.run(case).await;
        app.stop();
        tokio::time::timeout(GUARD, server)
            .await
            .expect("the server ends")
            .unwrap();
        let stats = app.runner().stats();
        assert_eq!((stats.pending, stats.lost), (0, 0), "{stats:?}");
        cell
    });
    runtime.shutdown_background();
    cell
}

/// The server has one thread of its own: its futures need not be `Send`, and it hears of its sockets in their order.
fn serve_on_a_thread(framework: Framework, app: App, tell: Listening) -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on((framework.serve)(app, tell));
        let _ = ended.send(());
    });
    end
}
