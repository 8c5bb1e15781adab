//! The program of the README, word for word: an actix-web service that is stopped by a signal and loses nothing.
//!
//! Run it with `cargo run -p after-actix --example actix`, ask it with `curl http://127.0.0.1:8080/`, and stop it with Ctrl-C
//! or SIGTERM. `ADDRESS=127.0.0.1:0` takes any free port.

use std::{env, io, process, time::Duration};

use actix_web::{App, HttpServer, Responder, get};
use after::{Runner, spawner::Tokio};
use after_actix::After;
use tokio::select;
use tokio::signal::{ctrl_c, unix::SignalKind, unix::signal};

/// For the server's last requests, and again for the tasks that they leave behind.
const LIMIT: Duration = Duration::from_secs(10);

#[get("/")]
async fn hello() -> impl Responder {
    after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
    "hello\n"
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    // The runtimes of the workers go when the server stops. Deferred work gets this one, which is still there.
    Runner::new(Tokio::current())
        .install()
        .expect("the first use of the global Runner");
    let mut terminate = signal(SignalKind::terminate())?;
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(|| App::new().service(hello).wrap(After::new()))
        .disable_signals() // they are ours
        .shutdown_timeout(LIMIT.as_secs())
        .bind(address)?;
    println!("listening on http://{}", server.addrs()[0]);
    let server = server.run();
    let control = server.handle();
    actix_web::rt::spawn(async move {
        select! { _ = terminate.recv() => {} _ = ctrl_c() => {} }
        after::stop(); // streams that await `stopping` end ..
        control.stop(true).await; // .. and the server, when its requests have
    });
    server.await?;
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    process::exit(if report.is_clean() { 0 } else { 2 }) // even if a thread is stuck
}
