//! One handler, measured over HTTP without `after` and with it.
//!
//! `cargo run --example quickstart` measures. `cargo run --example quickstart -- --serve` keeps the server up, for you to
//! try with curl. Ctrl-C or SIGTERM stops it: it ends with code 0, or with 2 if deferred tasks were unfinished. The routes
//! of [`stuck`] show the latter.

mod stuck;

use std::{
    env,
    error::Error,
    io,
    net::SocketAddr,
    process,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use after::tower::AfterLayer;
use axum::{Router, routing::get};
use tokio::{
    net::TcpListener,
    task,
    time::{sleep, timeout},
};

/// The client waits for everything.
async fn without_after() -> &'static str {
    database().await;
    logging().await;
    analytics().await;
    "hello\n"
}

/// The client waits for the database alone.
async fn with_after() -> &'static str {
    database().await;
    after::task("logging").defer(logging());
    after::task("analytics").defer(analytics());
    "hello\n"
}

fn app() -> Router {
    Router::new()
        .route("/without-after", get(without_after))
        .route("/with-after", get(with_after))
        .merge(stuck::routes())
        .layer(AfterLayer::new())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // `stop`, below, resolves `stopping`: the server ends, and so does what else awaits it.
    let server = axum::serve(listener, app()).with_graceful_shutdown(after::stopping());
    let server = tokio::spawn(server.into_future());

    if env::args().any(|argument| argument == "--serve") {
        serve(address).await?;
    } else {
        compare(address).await?;
    }

    // In this order: first the server completes its last requests, then the tasks that they left behind are waited for.
    after::stop();
    let limit = stuck::limit();
    match timeout(limit, server).await {
        Ok(ended) => ended??,
        Err(_) => println!("Connections are still open after {limit:?}."),
    }
    let report = after::shutdown(limit).await;
    println!("The server has stopped. What happened to the deferred tasks:\n  {report}");
    let stats = report.stats();
    let completed = report.is_clean() && stats.completed == stats.deferred;
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if completed { 0 } else { 2 })
}

/// Serves until Ctrl-C or SIGTERM.
async fn serve(address: SocketAddr) -> io::Result<()> {
    let told_to_stop = told_to_stop()?;
    println!("Serving on http://{address}; stop it with Ctrl-C. In another terminal, try:\n");
    for path in ["without-after", "with-after"] {
        println!("  curl -w '%{{time_total}} s\\n' http://{address}/{path}");
    }
    println!();
    told_to_stop.await;
    println!();
    Ok(())
}

/// Resolves at Ctrl-C or SIGTERM. From the call on, these signals no longer end the process themselves.
#[cfg(unix)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(windows)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

/// Asks the server both ways and prints what the client saw.
async fn compare(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    println!("The handler: 100 ms of database, then 50 ms of logging and 30 ms of analytics.");
    println!("{REQUESTS} requests each way to http://{address}, and the client waited (median):\n");
    let without = measure(format!("http://{address}/without-after")).await?;
    println!("  without `after`  {}", milliseconds(without.waited()));
    let with = measure(format!("http://{address}/with-after")).await?;
    let less = 100.0 * (1.0 - with.waited().as_secs_f64() / without.waited().as_secs_f64());
    println!(
        "  with `after`     {}   {less:.0} % less\n",
        milliseconds(with.waited())
    );

    println!("One request without `after`: all work is done before the response.\n");
    without.draw();
    println!("One request with `after`: logging and analytics run after the response.\n");
    with.draw();
    if with.waited() >= without.waited() {
        return Err("the client waited no less with `after`".into());
    }
    Ok(())
}

const REQUESTS: usize = 5;

/// The request of median duration, out of several.
async fn measure(url: String) -> Result<Exchange, Box<dyn Error>> {
    // No proxy, whatever the environment says, and a timeout.
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(10)));
    let agent = ureq::Agent::new_with_config(config.build());
    let mut exchanges = Vec::new();
    // The first one opens the connection, and is not measured.
    for _ in 0..=REQUESTS {
        *work() = Some(Vec::new());
        let (agent, url) = (agent.clone(), url.clone());
        let client = task::spawn_blocking(move || {
            let asked = Instant::now();
            agent.get(&url).call()?.body_mut().read_to_string()?;
            Ok::<_, ureq::Error>((asked, Instant::now()))
        });
        let (asked, answered) = client.await??;
        // So that all work of this request is noted, and none of another.
        after::Runner::global().drain().await;
        let mut work = work().take().unwrap_or_default();
        work.sort_by_key(|work| work.began);
        exchanges.push(Exchange {
            asked,
            answered,
            work,
        });
    }
    exchanges.remove(0);
    exchanges.sort_by_key(Exchange::waited);
    Ok(exchanges.swap_remove(REQUESTS / 2))
}

/// One request as its client saw it, and the work that the server did for it.
struct Exchange {
    asked: Instant,
    answered: Instant,
    work: Vec<Work>,
}

impl Exchange {
    fn waited(&self) -> Duration {
        self.answered - self.asked
    }

    /// Bars to scale: five milliseconds a column.
    fn draw(&self) {
        let column = |at: Instant| (at - self.asked).as_millis() as usize / 5;
        let bar = |name, mark: &str, from, to| {
            let before = column(from);
            let length = (column(to) - before).max(1);
            let took = milliseconds(to - from);
            println!("  {name:<14}{:before$}{}  {took}", "", mark.repeat(length));
        };
        println!("  {:<14}0 ms      50        100       150", "");
        bar("client waits", "=", self.asked, self.answered);
        for work in &self.work {
            bar(work.name, "#", work.began, work.ended);
        }
        println!();
    }
}

struct Work {
    name: &'static str,
    began: Instant,
    ended: Instant,
}

async fn database() {
    simulate("database", Duration::from_millis(100)).await;
}

async fn logging() {
    simulate("logging", Duration::from_millis(50)).await;
}

async fn analytics() {
    simulate("analytics", Duration::from_millis(30)).await;
}

/// Stands in for a query or a call to another service. Notes when it ran.
async fn simulate(name: &'static str, length: Duration) {
    let began = Instant::now();
    sleep(length).await;
    let ended = Instant::now();
    match &mut *work() {
        Some(work) => work.push(Work { name, began, ended }),
        None => println!("  {name:<10} took {}", milliseconds(ended - began)),
    }
}

/// What ran since the measurement began; `None` while nothing is measured.
fn work() -> std::sync::MutexGuard<'static, Option<Vec<Work>>> {
    static WORK: Mutex<Option<Vec<Work>>> = Mutex::new(None);
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}
