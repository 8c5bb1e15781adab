//! One small service twice: with `tokio::spawn` in its handler, and with `after`. Both get the same requests, and then a
//! deploy. What happened to the tasks is printed. `docs/from-spawn.md` goes from the one to the other step by step.
//!
//! `cargo run --example from_spawn`

use std::{
    collections::BTreeMap,
    error::Error,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use after::tower::AfterLayer;
use axum::{Router, extract::Path, http::StatusCode, routing::get};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::oneshot,
    task,
    time::{sleep, timeout},
};

/// What a handler without `after` does.
mod before {
    use super::*;

    pub(super) async fn order(Path(number): Path<u32>) -> Result<String, StatusCode> {
        tokio::spawn(audit(number));
        charge(number).await?;
        tokio::spawn(receipt(number));
        tokio::spawn(statistics(number));
        Ok(format!("order {number}\n"))
    }
}

/// The same with `after`.
mod later {
    use super::*;

    pub(super) async fn order(Path(number): Path<u32>) -> Result<String, StatusCode> {
        after::task("audit").defer(audit(number));
        after::task("receipt").on_success().defer(receipt(number));
        after::task("statistics")
            .on_success()
            .defer(statistics(number));
        charge(number).await?;
        Ok(format!("order {number}\n"))
    }
}

/// Takes the money. Refuses every fifth order; with number 13 it takes its time, and the client does not wait.
async fn charge(number: u32) -> Result<(), StatusCode> {
    CHARGING.store(number, SeqCst);
    sleep(Duration::from_millis(if number == 13 { 60_000 } else { 2 })).await;
    match number % 5 {
        0 => Err(StatusCode::PAYMENT_REQUIRED),
        _ => Ok(()),
    }
}

async fn audit(_number: u32) {
    let noted = Noted::begin("audit");
    sleep(Duration::from_millis(1)).await;
    noted.end("done");
}

/// The mail server takes a second, and refuses one.
async fn receipt(number: u32) -> Result<(), &'static str> {
    let noted = Noted::begin("receipt");
    sleep(Duration::from_secs(1)).await;
    if number == 3 {
        noted.end("failed");
        return Err("the mail server refuses");
    }
    noted.end("done");
    Ok(())
}

/// Has a defect.
async fn statistics(number: u32) {
    let noted = Noted::begin("statistics");
    sleep(Duration::from_millis(1)).await;
    if number == 4 {
        noted.end("panicked");
        panic!("statistics have no 4");
    }
    noted.end("done");
}

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{ORDERS} orders: every fifth is refused, the client of number 13 hangs up. Then a deploy.\n"
    );

    println!("With `tokio::spawn`:");
    let lost = deploy(
        Router::new().route("/order/{number}", get(before::order)),
        async {
            // Nothing can be waited for: nobody kept the handles.
        },
    )?;

    println!("\nWith `after`:");
    let app = Router::new()
        .route("/order/{number}", get(later::order))
        .layer(AfterLayer::new());
    let kept = deploy(app, async {
        let report = after::shutdown(Duration::from_secs(10)).await;
        println!("  the report: {report}");
    })?;

    if lost == 0 || kept != 0 {
        return Err(format!("cut off: {lost} with `tokio::spawn`, {kept} with `after`").into());
    }
    Ok(())
}

const ORDERS: u32 = 20;

/// Runs the service until it has answered, and stops it as a deploy does. Gives how many tasks were cut off.
fn deploy(app: Router, before_the_end: impl Future<Output = ()>) -> Result<u32, Box<dyn Error>> {
    book().clear();
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(server.into_future());
        task::spawn_blocking(move || clients(address)).await??;
        drop(stop);
        // A client that keeps its connection open does not hold the deploy.
        if let Ok(ended) = timeout(Duration::from_secs(10), server).await {
            ended??;
        }
        before_the_end.await;
        Ok::<_, Box<dyn Error>>(())
    })?;
    // As when `main` returns: unfinished tasks are dropped with the runtime. With a limit, because a runtime that is dropped
    // waits for stuck closures.
    runtime.shutdown_timeout(Duration::from_secs(10));
    let mut cut_off = 0;
    for (task, ends) in &*book() {
        let ends: Vec<_> = ends
            .iter()
            .map(|(end, tasks)| format!("{end} {tasks}"))
            .collect();
        println!("  {task:<10}  {}", ends.join(", "));
    }
    for ends in book().values() {
        cut_off += ends.get(CUT_OFF).copied().unwrap_or(0);
    }
    Ok(cut_off)
}

fn clients(address: SocketAddr) -> Result<(), ureq::Error> {
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)));
    let agent = ureq::Agent::new_with_config(config.build());
    for number in 1..=ORDERS {
        if number == 13 {
            let mut client = TcpStream::connect(address)?;
            write!(client, "GET /order/13 HTTP/1.1\r\nhost: shop\r\n\r\n")?;
            while CHARGING.load(SeqCst) != number {
                std::thread::yield_now();
            }
            // The client disconnects while its handler waits for the bank.
            drop(client);
            continue;
        }
        let url = format!("http://{address}/order/{number}");
        agent.get(&url).call()?.body_mut().read_to_string()?;
    }
    Ok(())
}

/// The order that was charged last.
static CHARGING: AtomicU32 = AtomicU32::new(0);

/// How the tasks have ended, by name.
type Book = BTreeMap<&'static str, BTreeMap<&'static str, u32>>;

fn book() -> MutexGuard<'static, Book> {
    static BOOK: Mutex<Book> = Mutex::new(BTreeMap::new());
    BOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

const CUT_OFF: &str = "cut off";

/// A task that runs. Dropped before its end, it was cut off.
struct Noted {
    task: &'static str,
    end: &'static str,
}

impl Noted {
    fn begin(task: &'static str) -> Self {
        Noted { task, end: CUT_OFF }
    }

    fn end(mut self, how: &'static str) {
        self.end = how;
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        *book()
            .entry(self.task)
            .or_default()
            .entry(self.end)
            .or_default() += 1;
    }
}
