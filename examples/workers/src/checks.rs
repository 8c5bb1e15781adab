//! What the tests ask for, one route for each.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use after::{Observer, Runner, TaskFinished, spawner};
use worker::{
    Context, Delay, Error, Response, Result, console_log, send::SendFuture,
    wasm_bindgen_futures::spawn_local,
};

use crate::own_context::in_own_context;

pub(crate) async fn route(path: &str, context: &Context) -> Result<Response> {
    match path {
        "/failing-task" => failing_task(),
        "/timeout" => timeout(),
        "/closure" => closure(),
        "/error" => error(),
        "/late" => late(context),
        "/no-spawner" => no_spawner().await,
        "/runner" => runner().await,
        "/limit" => limit(context).await,
        "/shutdown" => shutdown().await,
        _ => Response::error("not found", 404),
    }
}

fn sleep(millis: u64) -> SendFuture<Delay> {
    SendFuture::new(Delay::from(Duration::from_millis(millis)))
}

fn failing_task() -> Result<Response> {
    after::task("mail").defer(async { Err::<(), _>("connection refused") });
    Response::ok("sent later")
}

fn timeout() -> Result<Response> {
    after::task("webhook")
        .timeout(Duration::from_millis(50))
        .defer(pending::<()>());
    after::task("sibling").defer(async {
        sleep(150).await;
        console_log!("the sibling has ended");
    });
    Response::ok("told later")
}

/// Runs in its turn among the tasks, on the one thread that there is.
fn closure() -> Result<Response> {
    after::defer(async { console_log!("before the closure") });
    after::task("thumbnail").defer_blocking(|| {
        let sum: u64 = (0..1_000_000).sum();
        console_log!("closure: {sum}, {:?}", after::outcome());
    });
    console_log!("the handler has ended");
    Response::ok("drawn later")
}

fn error() -> Result<Response> {
    after::task("apology")
        .on_failure()
        .defer(async { console_log!("apology: {:?}", after::outcome()) });
    after::task("receipt")
        .on_success()
        .defer(async { console_log!("a receipt") });
    Err(Error::from("out of stock"))
}

/// A handle that is used when the request is over: its work is a batch of its own, on the Runner's spawner.
fn late(context: &Context) -> Result<Response> {
    let handle = after::handle();
    context.wait_until(async move {
        sleep(50).await;
        handle.defer(async {
            sleep(10).await;
            console_log!("late: {:?}", after::outcome());
        });
        // The invocation lives as long as this waits.
        Runner::global().drain().await;
    });
    Response::ok("more later")
}

/// A Runner without a spawner finds no runtime here.
async fn no_spawner() -> Result<Response> {
    let runner = Runner::default();
    runner
        .scope(async { after::task("orphan").defer(async {}) })
        .await;
    Response::ok(runner.stats().to_string())
}

/// The names of what has ended, and whether the clock makes sense.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<String>>>);

impl Observer for Ends {
    fn finished(&self, event: &TaskFinished<'_>) {
        // It stands still while a Worker computes, and goes on while it waits.
        let sound = event.longest_poll <= event.ran && event.ran >= Duration::from_millis(5);
        let end = format!("{} {sound}", event.task.name);
        self.0.lock().unwrap().push(end);
    }
}

/// Observer, `max_running`, `drain`: one after the other, whatever each takes.
async fn runner() -> Result<Response> {
    let ends = Ends::default();
    let runner = Runner::builder()
        .spawner(spawner::from_fn(|batch| spawn_local(batch)))
        .max_running(1)
        .observer(ends.clone())
        .build();
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    runner
        .scope(async {
            for (name, millis) in [("slow", 60), ("quick", 10)] {
                let (running, most) = (running.clone(), most.clone());
                after::task(name).defer(async move {
                    most.fetch_max(
                        running.fetch_add(1, Ordering::Relaxed) + 1,
                        Ordering::Relaxed,
                    );
                    sleep(millis).await;
                    running.fetch_sub(1, Ordering::Relaxed);
                });
            }
        })
        .await;
    let pending = runner.stats().pending;
    runner.drain().await;
    let ends = ends.0.lock().unwrap().join(", ");
    let most = most.load(Ordering::Relaxed);
    Response::ok(format!(
        "pending {pending}, most {most}, {ends}, {}",
        runner.stats()
    ))
}

/// One Runner for all requests, which lets one task run at a time: the end of one request's task wakes another's.
async fn limit(context: &Context) -> Result<Response> {
    static RUNNER: OnceLock<Runner> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let runner = RUNNER.get_or_init(|| {
        Runner::builder()
            .spawner(spawner::from_fn(|batch| spawn_local(batch)))
            .max_running(1)
            .build()
    });
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let request = async {
        after::defer(async move {
            console_log!("permit {number} is taken");
            sleep(100).await;
            console_log!("permit {number} is given back");
        });
    };
    let ((), batch) = runner.scope(request).held().await;
    context.wait_until(in_own_context(batch));
    Response::ok("later")
}

/// A shutdown that does not wait for ever, and names what is unfinished.
async fn shutdown() -> Result<Response> {
    let runner = Runner::builder()
        .spawner(spawner::from_fn(|batch| spawn_local(batch)))
        .build();
    runner
        .scope(async {
            after::task("stuck").defer(pending::<()>());
            after::task("ends").defer(async { after::stopping().await });
        })
        .await;
    let report = runner.shutdown(Duration::from_millis(80)).await;
    Response::ok(format!("{report}; {}", runner.stats()))
}
