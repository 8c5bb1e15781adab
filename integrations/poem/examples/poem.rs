//! The program of the README, word for word: a service on poem that is stopped by a signal and loses nothing.
//!
//! Run it with `cargo run -p after-poem --example poem`, ask it with `curl http://127.0.0.1:8080/`, and stop it with Ctrl-C or
//! SIGTERM. `ADDRESS=127.0.0.1:0` takes any free port.

use std::{env, io, process, time::Duration};

use after_poem::After;
use poem::{EndpointExt as _, Route, Server, get, handler, listener::TcpAcceptor};
use tokio::signal::{ctrl_c, unix::SignalKind, unix::signal};
use tokio::{net::TcpListener, select};

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
    let app = Route::new().at("/", get(hello)).with(After::new());
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stopped = async {
        select! { _ = terminate.recv() => {} _ = ctrl_c() => {} }
        after::stop(); // streams that await `stopping` end, and the server when its requests have
    };
    Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?)
        .run_with_graceful_shutdown(app, stopped, Some(LIMIT))
        .await?;
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    process::exit(if report.is_clean() { 0 } else { 2 }) // even if a thread is stuck
}
