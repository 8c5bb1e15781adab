//! The service as a process, which is told to stop while forty requests are in progress.

use std::{env, process, time::Duration};

use after::{Runner, spawner::Tokio};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

use crate::{Framework, GUARD, app::App, child::Served, client::Client, table::Cell};

/// Half of them in their handlers, half in their bodies.
const REQUESTS: usize = 40;
/// For the last requests of the server, and again for what they leave behind.
const LIMIT: Duration = Duration::from_secs(20);

/// What the process is called with.
pub(crate) const SERVE: &str = "--serve";

/// The process: serves until SIGTERM, ends its requests, then awaits `after::shutdown`.
pub(crate) fn serve(framework: &Framework) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(async {
        Runner::new(Tokio::current()).install().unwrap();
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let app = App::of_process();
        let (tell, address) = oneshot::channel();
        let server = (framework.serve)(app.clone(), tell);
        let conducts = async {
            let address = address.await.expect("the server says where it listens");
            app.tell(&format!("listening {address}"));
            terminate.recv().await;
            app.tell("stopping");
            after::stop();
            app.stop();
            app.let_handlers_return();
            app.let_bodies_go_on();
        };
        let served = async { futures_util::future::join(server, conducts).await };
        if timeout(LIMIT + GUARD, served).await.is_err() {
            app.tell("connections are still open");
        }
        let report = after::shutdown(LIMIT).await;
        app.tell(&report.to_string());
        report
    });
    process::exit(if report.is_clean() { 0 } else { 2 })
}

/// This case from the client's side.
pub(crate) async fn stopped_by_sigterm() -> Cell {
    let mut process = Served::start(Command::new(env::current_exe().unwrap()).arg(SERVE));
    let address = process.next().await.unwrap();
    let address = address
        .strip_prefix("listening ")
        .expect("the address")
        .parse()
        .unwrap();

    let mut clients = Vec::new();
    for request in 0..REQUESTS {
        let mut client = Client::connect(address).await;
        if request % 2 == 0 {
            client.ask("GET", "/waits").await;
            assert_eq!(process.next().await, Some("reached"));
        } else {
            client.ask("GET", "/stream").await;
            client.head().await;
            client.chunk().await.unwrap();
        }
        clients.push(client);
    }
    process.terminate();
    let mut answers = JoinSet::new();
    for (request, mut client) in clients.into_iter().enumerate() {
        answers.spawn(async move {
            if request % 2 == 0 {
                assert_eq!(client.answer().await, b"waited");
            } else {
                assert_eq!(client.chunk().await.unwrap(), b"chunk\n");
                assert_eq!(client.chunk().await, None);
            }
        });
    }
    answers.join_all().await;
    let lines = process.ended().await;
    assert!(lines.contains(&"stopping".to_owned()), "{lines:?}");
    assert!(
        lines
            .last()
            .is_some_and(|report| report.contains("nothing unfinished")),
        "{lines:?}"
    );
    let ran = lines.iter().filter(|line| line.starts_with("ran ")).count();
    Cell::text(format!("{REQUESTS} answered, {ran} tasks ran"))
}
