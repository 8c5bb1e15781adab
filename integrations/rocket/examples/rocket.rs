//! A service on Rocket that is stopped without losing work: a handler and a stream defer, and the tasks are waited for.
//!
//! Run it with `cargo run -p after-rocket --example rocket`, ask it with `curl http://127.0.0.1:8000/`, and stop it with
//! SIGTERM. With `-- --selftest` it sends requests to itself, and stops.

use std::{env, io, net::SocketAddr, process, time::Duration};

use after_rocket::After;
use rocket::{
    Config,
    fairing::AdHoc,
    get,
    response::stream::TextStream,
    routes,
    tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::sleep,
    },
};

/// For the tasks that the last requests leave behind.
const LIMIT: Duration = Duration::from_secs(10);

#[get("/")]
async fn hello() -> &'static str {
    after::task("audit").defer(async {
        sleep(Duration::from_millis(100)).await;
        println!("audit: {:?}", after::outcome());
    });
    "hello\n"
}

/// The code of a stream is in the scope, too, and the request ends with its last chunk.
#[get("/lines")]
fn lines() -> TextStream![String] {
    TextStream! {
        for line in 1..=3 {
            if line == 3 {
                after::task("count").defer(async { println!("three lines: {:?}", after::outcome()) });
            }
            yield format!("line {line}\n");
        }
    }
}

#[rocket::main]
async fn main() -> Result<(), Box<rocket::Error>> {
    let selftest = env::args().any(|argument| argument == "--selftest");
    let mut config = Config {
        port: if selftest { 0 } else { 8000 },
        ..Config::default()
    };
    // In seconds: how long the last requests have, before Rocket cuts them off.
    config.shutdown.grace = 10;
    let after = After::new();
    let mut rocket = rocket::custom(config)
        .mount("/", after.routes(routes![hello, lines]))
        .attach(after);
    if selftest {
        rocket = rocket.attach(AdHoc::on_liftoff("selftest", |rocket| {
            let address = SocketAddr::from((rocket.config().address, rocket.config().port));
            let shutdown = rocket.shutdown();
            rocket::tokio::spawn(async move {
                for path in ["/", "/lines"] {
                    println!("{}", ask(address, path).await.unwrap());
                }
                shutdown.notify();
            });
            Box::pin(async {})
        }));
    }
    // Rocket listens for the signals itself, and tells the fairing: `after::stopping` resolves then.
    rocket.launch().await?;
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
