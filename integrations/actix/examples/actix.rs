//! An actix-web service that is stopped without losing work: a handler and a stream defer, and a task outlives its worker.
//!
//! Run it with `cargo run -p after-actix --example actix`, ask it with `curl http://127.0.0.1:8080/`, and stop it with
//! SIGTERM. With `-- --selftest` it sends requests to itself, and stops.

use std::{convert::Infallible, env, io, process, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, Responder, web};
use after::{Runner, spawner::Tokio};
use after_actix::After;
use futures_util::{StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// For the server's last requests, and again for the tasks that they leave behind.
const LIMIT: Duration = Duration::from_secs(10);

async fn hello() -> impl Responder {
    after::task("audit").defer(async {
        sleep(Duration::from_millis(100)).await;
        println!("audit: {:?}", after::outcome());
    });
    "hello\n"
}

/// The code of a stream is in the scope, too, and the request ends with its last chunk.
async fn lines() -> HttpResponse {
    let lines = stream::iter(1..=3).map(|line| {
        if line == 3 {
            after::task("count").defer(async { println!("three lines: {:?}", after::outcome()) });
        }
        Ok::<_, Infallible>(web::Bytes::from(format!("line {line}\n")))
    });
    HttpResponse::Ok().streaming(lines)
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    // Each worker of actix has a runtime of its own, which goes when the server stops. Deferred work gets this one.
    Runner::new(Tokio::current())
        .install()
        .expect("nobody has used the global Runner yet");
    let selftest = env::args().any(|argument| argument == "--selftest");

    let mut terminate = signal(SignalKind::terminate())?;
    let server = HttpServer::new(|| {
        App::new()
            .route("/", web::get().to(hello))
            .route("/lines", web::get().to(lines))
            .wrap(After::new())
    })
    .workers(2)
    // The signal is ours, so that what awaits `after::stopping` ends before the server waits for it.
    .disable_signals()
    // In seconds: how long the requests in progress hold `stop`.
    .shutdown_timeout(LIMIT.as_secs())
    .bind(("127.0.0.1", if selftest { 0 } else { 8080 }))?;
    let address = server.addrs()[0];
    println!("listening on http://{address}/");
    let server = server.run();
    let control = server.handle();
    actix_web::rt::spawn(async move {
        if selftest {
            for path in ["/", "/lines"] {
                println!("{}", ask(address, path).await.unwrap());
            }
        } else {
            terminate.recv().await;
        }
        after::stop();
        control.stop(true).await;
    });
    server.await?;
    println!("the server has stopped, with its workers");
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    if selftest {
        assert_eq!(report.stats().completed, 2, "{report}");
    }
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if report.is_clean() { 0 } else { 2 })
}

/// For the self-test alone.
async fn ask(address: std::net::SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
