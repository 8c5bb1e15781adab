//! A server that is stopped with a signal and loses nothing: axum's graceful shutdown, then `after::shutdown`.
//!
//! `cargo run --example shutdown -- [--port N] [--log FILE] [--limit-ms N] [--task-ms N]`, then ask it with
//! `curl http://127.0.0.1:PORT/work?id=7`. It responds at once; the task ends `--task-ms` later, and appends the id
//! to the log. Stop it with Ctrl-C or SIGTERM:
//!
//! 1. The listener is closed, what awaits `after::stopping()` ends, and the requests that have arrived are completed: for at
//!    most `--limit-ms`.
//! 2. Their tasks are waited for: again for at most `--limit-ms`.
//! 3. The report is printed. A second signal prints it at once, and ends the process.
//!
//! | Exit code | |
//! |---|---|
//! | 0 | every task has ended |
//! | 1 | the server failed |
//! | 2 | tasks were unfinished at the limit; what stops the service should know that work was lost |
//! | 3 | a second signal |
//!
//! With `--selftest` it sends requests and SIGTERM to itself, and checks that its log is complete (Unix only).
//!
//! The routes of [`stuck`] have a closure that never returns, and a stream without an end. It ends all the same.
//!
//! SIGKILL, which `docker stop` sends after ten seconds, must not come before twice the limit.

mod stuck;

use std::{
    env,
    error::Error,
    fs::{self, File},
    future::IntoFuture as _,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process,
    sync::Arc,
    time::Duration,
};

use after::Runner;
use axum::{
    Router,
    extract::{RawQuery, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

type AnyError = Box<dyn Error + Send + Sync>;

/// Responds at once. The line comes later, and must come: the response says that the work is accepted.
async fn work(
    State(service): State<Arc<Service>>,
    RawQuery(query): RawQuery,
) -> Result<String, StatusCode> {
    let id = query.as_deref().and_then(|query| query.strip_prefix("id="));
    let id: u64 = id
        .and_then(|id| id.parse().ok())
        .ok_or(StatusCode::BAD_REQUEST)?;
    after::task("work").defer(async move {
        sleep(service.task).await;
        // Work that a task defers is waited for like any other: the shutdown sees it through.
        after::task("log").defer_blocking(move || service.log(id));
    });
    Ok(format!("accepted {id}\n"))
}

struct Service {
    task: Duration,
    log: Option<File>,
}

impl Service {
    /// A write for each line: several at once on a file in append mode don't mix.
    fn log(&self, id: u64) -> io::Result<()> {
        let line = format!("{id}\n");
        match &self.log {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stdout().write_all(line.as_bytes()),
        }
    }
}

/// Around each handler, without the layer: the request ends when its response is made, or when its client disconnects.
async fn scope(request: Request, next: Next) -> Response {
    after::scope(next.run(request))
        .failed_if(|response| response.status().as_u16() >= 400)
        .await
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let options = Options::parse()?;
    // From here on a signal no longer ends the process by itself. Before the address is known, so that nobody who has
    // read it can be too early.
    let mut signals = Signals::new()?;

    let log = options.log.as_ref().map(|path| {
        let mut file = File::options();
        file.create(true).append(true).open(path)
    });
    let service = Service {
        task: options.task,
        log: log.transpose()?,
    };
    let app = Router::new()
        .route("/work", get(work))
        .with_state(Arc::new(service))
        .merge(stuck::routes())
        .layer(middleware::from_fn(scope));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    let address = listener.local_addr()?;
    // `stop` resolves `stopping`: for the server, and for the streams and tasks that await it.
    let server = axum::serve(listener, app).with_graceful_shutdown(after::stopping());
    let server = tokio::spawn(server.into_future());
    println!("listening on http://{address}");
    let selftest = options.selftest.then(|| tokio::spawn(selftest(address)));

    signals.next().await;
    println!("stopping; a second signal ends it at once");
    let limit = options.limit;
    let stopped = async {
        // In this order: what a request defers can only be waited for once it has deferred it.
        after::stop();
        match timeout(limit, server).await {
            Ok(ended) => ended??,
            // A client that is connected and never finishes its request would otherwise hold the process forever.
            // What its request has deferred is waited for all the same.
            Err(_) => println!("connections are still open after {limit:?}"),
        }
        Ok::<_, AnyError>(after::shutdown(limit).await)
    };
    let report = tokio::select! {
        report = stopped => report?,
        () = signals.next() => {
            // Waits for nothing: it says how things stand.
            let report = Runner::global().shutdown(Duration::ZERO).await;
            println!("ended by a second signal: {report}");
            // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
            process::exit(3);
        }
    };
    println!("{report}");

    if let Some(selftest) = selftest {
        let answered = selftest.await??;
        let log = options.log.unwrap_or_default();
        let logged = fs::read_to_string(&log)?;
        fs::remove_file(&log)?;
        let mut logged: Vec<u64> = logged.lines().map(str::parse).collect::<Result<_, _>>()?;
        logged.sort_unstable();
        assert_eq!(answered, logged);
        println!(
            "all {} requests with a response are in the log",
            logged.len()
        );
    }
    // `exit` here too. The report has named what is unfinished.
    process::exit(if report.is_clean() { 0 } else { 2 })
}

/// The signals that ask a server to stop. One that comes while nobody waits is kept for the next `next`.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Signals> {
        let interrupt = tokio::signal::windows::ctrl_c()?;
        Ok(Signals { interrupt })
    }

    async fn next(&mut self) {
        self.interrupt.recv().await;
    }
}

struct Options {
    port: u16,
    log: Option<PathBuf>,
    limit: Duration,
    task: Duration,
    selftest: bool,
}

impl Options {
    fn parse() -> Result<Options, AnyError> {
        let mut options = Options {
            port: 0,
            log: None,
            limit: stuck::limit(),
            task: Duration::from_millis(100),
            selftest: false,
        };
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{name} needs a value"))
            };
            match &*name {
                "--port" => options.port = value()?.parse()?,
                "--log" => options.log = Some(value()?.into()),
                "--limit-ms" => options.limit = Duration::from_millis(value()?.parse()?),
                "--task-ms" => options.task = Duration::from_millis(value()?.parse()?),
                "--selftest" => options.selftest = true,
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        if options.selftest {
            let log = env::temp_dir().join(format!("after-shutdown-{}.log", process::id()));
            // Of an earlier process with the same number.
            let _ = fs::remove_file(&log);
            options.log = Some(log);
        }
        Ok(options)
    }
}

/// Sends some requests, and then the signal, even if they fail. Returns the ids that got a response.
async fn selftest(address: SocketAddr) -> Result<Vec<u64>, AnyError> {
    let asked = tokio::task::spawn_blocking(move || {
        // No proxy, whatever the environment says, and a timeout.
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(10)));
        let agent = ureq::Agent::new_with_config(config.build());
        (0..20)
            .map(|id| {
                let url = format!("http://{address}/work?id={id}");
                let answer = agent.get(&url).call()?.body_mut().read_to_string()?;
                assert_eq!(answer, format!("accepted {id}\n"));
                Ok(id)
            })
            .collect::<Result<Vec<_>, ureq::Error>>()
    });
    let asked = asked.await;
    #[cfg(unix)]
    {
        use nix::{sys::signal, unistd::Pid};
        signal::kill(Pid::this(), signal::SIGTERM)?;
    }
    Ok(asked??)
}
