//! Tasks that are not `Send`: a spawner that keeps them on the thread that made them, and `SendWrapper`. On the workers of
//! actix, on a tokio `LocalSet` and on a `LocalRuntime`. Where the thread is gone they are counted as lost, and reported.

use std::{
    cell::Cell,
    env,
    process::Command,
    rc::Rc,
    sync::{Arc, Mutex, mpsc},
    thread::{self, ThreadId},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use after::{Batch, Runner, spawner};
use after_actix::After;
use send_wrapper::SendWrapper;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    task::LocalSet,
};

/// Nothing waits for this to pass.
const GUARD: Duration = Duration::from_secs(30);

/// The recipe.
fn local() -> Runner {
    Runner::new(spawner::from_fn(|batch: Batch| {
        tokio::task::spawn_local(batch);
    }))
}

/// Defers a task that is not `Send`, and that awaits in between.
fn defer_local(told: impl Fn(ThreadId) + 'static) {
    let counter = Rc::new(Cell::new(0));
    after::task("local").defer(SendWrapper::new(async move {
        counter.set(counter.get() + 1);
        tokio::task::yield_now().await;
        counter.set(counter.get() + 1);
        assert_eq!(counter.get(), 2);
        told(thread::current().id());
    }));
}

fn account(runner: &Runner) -> (u64, u64, u64, u64) {
    let stats = runner.stats();
    (stats.deferred, stats.completed, stats.lost, stats.pending)
}

/// What a request does on an executor of one thread, and where its task has run.
async fn runs_on_its_thread(runner: &Runner) {
    let (tell, told) = mpsc::channel();
    let here = thread::current().id();
    let tell = move |thread| tell.send(thread).unwrap();
    runner.scope(async { defer_local(tell) }).await;
    runner.drain().await;
    assert_eq!(told.try_recv(), Ok(here));
    assert_eq!(account(runner), (1, 1, 0, 0));
}

#[test]
fn a_local_set_runs_what_is_not_send() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let runner = local();
    LocalSet::new().block_on(&runtime, runs_on_its_thread(&runner));
}

#[test]
fn a_local_runtime_runs_what_is_not_send() {
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(runs_on_its_thread(&local()));
}

/// Each task on the worker that has answered, beside requests that others answer.
#[test]
fn a_worker_of_actix_runs_what_is_not_send() {
    let runner = local();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (runner_of_app, seen_by_app) = (runner.clone(), seen.clone());
    actix_web::rt::System::new().block_on(async move {
        let server = HttpServer::new(move || {
            let seen = seen_by_app.clone();
            let handler = move || {
                let (seen, here) = (seen.clone(), thread::current().id());
                defer_local(move |ran| seen.lock().unwrap().push((here, ran)));
                async { HttpResponse::Ok().body("answered") }
            };
            App::new()
                .route("/", web::get().to(handler))
                .wrap(After::with_runner(runner_of_app.clone()))
        })
        .workers(2)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let control = server.handle();
        let serving = actix_web::rt::spawn(server);
        for _ in 0..20 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
            socket.write_all(request).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("answered"), "{answer}");
        }
        // Before the workers go: their runtimes take along what still runs there.
        tokio::time::timeout(GUARD, runner.drain()).await.unwrap();
        control.stop(true).await;
        serving.await.unwrap().unwrap();
        assert_eq!(account(&runner), (20, 20, 0, 0));
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 20);
    assert!(
        seen.iter().all(|(answered, ran)| answered == ran),
        "{seen:?}"
    );
}

/// The request ends on a thread that has no local executor: the spawner panics there, and that stays inside.
#[test]
fn what_ends_on_another_thread_is_lost_and_counted() {
    let runner = local();
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    let mut scope = runner.open();
    runtime.block_on(async { scope.enter(|| defer_local(|_| unreachable!("it can't run there"))) });
    let elsewhere = thread::spawn(move || scope.end(after::Outcome::Finished));
    elsewhere.join().expect("an end never panics");
    assert_eq!(account(&runner), (1, 0, 1, 0));
}

/// The thread goes while the task waits: it is dropped there, and counted.
#[test]
fn what_its_thread_takes_along_is_lost_and_counted() {
    let runner = local();
    let (of_thread, never) = (runner.clone(), Arc::new(Notify::new()));
    let gone = thread::spawn(move || {
        let runtime = tokio::runtime::LocalRuntime::new().unwrap();
        runtime.block_on(async {
            let waits = Rc::new(never);
            let request = async {
                after::task("waits").defer(SendWrapper::new(async move { waits.notified().await }));
            };
            of_thread.scope(request).await;
            // The batch's first poll starts nothing; by now its task waits.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
    });
    gone.join()
        .expect("a thread that goes never panics for that");
    assert_eq!(account(&runner), (1, 0, 1, 0));
}

/// The batch is held, goes to another thread, and is dropped there: the wrapper panics in its destructor, and that is
/// caught.
#[test]
fn what_is_dropped_on_another_thread_is_lost_and_counted() {
    let runner = local();
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    let ((), batch) = runtime.block_on(runner.scope(async { defer_local(|_| ()) }).held());
    thread::spawn(move || drop(batch))
        .join()
        .expect("a batch that is dropped never panics");
    assert_eq!(account(&runner), (1, 0, 1, 0));
}

/// The three above, in a process whose standard error is read.
#[test]
fn each_of_them_is_reported() {
    for (test, report) in [
        (
            "what_ends_on_another_thread_is_lost_and_counted",
            "after: 1 task lost",
        ),
        (
            "what_its_thread_takes_along_is_lost_and_counted",
            "after: 1 task lost",
        ),
        (
            "what_is_dropped_on_another_thread_is_lost_and_counted",
            "after: 1 task lost",
        ),
    ] {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{test}: {errors}");
        assert!(errors.contains(report), "{test}: {errors}");
    }
}
