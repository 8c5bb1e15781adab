//! The program of the README, word for word: a service on Rocket that is stopped by a signal and loses nothing.
//!
//! Run it with `cargo run -p after-rocket --example rocket`, ask it with `curl http://127.0.0.1:8000/`, and stop it with Ctrl-C
//! or SIGTERM. `ROCKET_PORT=0` takes any free port.

use std::{process, time::Duration};

use after_rocket::After;
use rocket::{Config, get, routes};

/// For the tasks that the last requests leave behind.
const LIMIT: Duration = Duration::from_secs(10);

#[get("/")]
async fn hello() -> &'static str {
    after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
    "hello\n"
}

#[rocket::main]
async fn main() -> Result<(), Box<rocket::Error>> {
    // Rocket.toml and `ROCKET_` variables, as ever; and how many seconds the last requests have.
    let config = Config::figment().merge(("shutdown.grace", 10));
    let after = After::new();
    // The routes run in the scope; the fairing ends it with the body, and tells `stopping` that the server stops.
    let routes = after.routes(routes![hello]);
    let rocket = rocket::custom(config).mount("/", routes).attach(after);
    rocket.launch().await?; // until Ctrl-C or SIGTERM
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    process::exit(if report.is_clean() { 0 } else { 2 }) // even if a thread is stuck
}
