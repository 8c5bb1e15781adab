//! The program of the README, word for word: a service on salvo that is stopped by a signal and loses nothing.
//!
//! Run it with `cargo run -p after-salvo --example salvo`, ask it with `curl http://127.0.0.1:8080/`, and stop it with Ctrl-C
//! or SIGTERM. `ADDRESS=127.0.0.1:0` takes any free port.

use std::{env, io, process, time::Duration};

use after_salvo::After;
use salvo::prelude::*;
use tokio::select;
use tokio::signal::{ctrl_c, unix::SignalKind, unix::signal};

/// For the server's last requests, and again for the tasks that they leave behind.
const LIMIT: Duration = Duration::from_secs(10);

#[handler]
async fn hello() -> &'static str {
    after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
    "hello\n"
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let service = Service::new(Router::new().get(hello)).hoop(After::new());
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:8080".into());
    let acceptor = TcpListener::new(address).bind().await;
    println!("listening on http://{}", acceptor.local_addr()?);
    let server = Server::new(acceptor);
    let control = server.handle();
    tokio::spawn(async move {
        select! { _ = terminate.recv() => {} _ = ctrl_c() => {} }
        after::stop(); // streams that await `stopping` end ..
        control.stop_graceful(LIMIT); // .. and the server, when its requests have
    });
    server.serve(service).await;
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    process::exit(if report.is_clean() { 0 } else { 2 }) // even if a thread is stuck
}
