//! A service on salvo that is stopped without losing work: a handler and a stream defer, and the tasks are waited for.
//!
//! Run it with `cargo run -p after-salvo --example salvo`, ask it with `curl http://127.0.0.1:8080/`, and stop it with
//! SIGTERM. With `-- --selftest` it sends requests to itself, and stops.

use std::{env, io, net::SocketAddr, process, time::Duration};

use after_salvo::After;
use futures_util::{StreamExt as _, stream};
use salvo::{conn::tcp::TcpAcceptor, http::ResBody, prelude::*};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// For the server's last requests, and again for the tasks that they leave behind.
const LIMIT: Duration = Duration::from_secs(10);

#[handler]
async fn hello() -> &'static str {
    after::task("audit").defer(async {
        sleep(Duration::from_millis(100)).await;
        println!("audit: {:?}", after::outcome());
    });
    "hello\n"
}

/// The code of a stream is in the scope, too, and the request ends with its last chunk.
#[handler]
async fn lines(response: &mut Response) {
    let chunks = stream::iter(1..=3).map(|line| {
        if line == 3 {
            after::task("count").defer(async { println!("three lines: {:?}", after::outcome()) });
        }
        Ok::<_, io::Error>(format!("line {line}\n"))
    });
    response.body(ResBody::stream(chunks));
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let selftest = env::args().any(|argument| argument == "--selftest");
    let mut terminate = signal(SignalKind::terminate())?;
    let router = Router::new()
        .get(hello)
        .push(Router::with_path("lines").get(lines));
    let service = Service::new(router).hoop(After::new());
    let listener = TcpListener::bind(("127.0.0.1", if selftest { 0 } else { 8080 })).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}/");
    let server = Server::new(TcpAcceptor::try_from(listener)?);
    let control = server.handle();
    tokio::spawn(async move {
        if selftest {
            for path in ["/", "/lines"] {
                println!("{}", ask(address, path).await.unwrap());
            }
        } else {
            terminate.recv().await;
        }
        after::stop(); // streams that await `stopping` end ..
        control.stop_graceful(LIMIT); // .. and the server, when its requests have
    });
    server.try_serve(service).await?;
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    if selftest {
        assert_eq!(report.stats().completed, 2, "{report}");
    }
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if report.is_clean() { 0 } else { 2 })
}

/// For the self-test alone.
async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
