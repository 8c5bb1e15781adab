//! Is a committed job ever lost? Two producers (axum) and two workers, each a process, on each store, under load; one of
//! them is killed, paused or stopped every second or so, at random. A ledger apart, a file that the kernel keeps whoever
//! dies, says in the end what became of each order.
//!
//!   cargo run --release -p durable-rig -- --store all --seconds 60
//!   cargo run --release -p durable-rig -- --store sqlite --seconds 600 --seed 7
//!   cargo run --release -p durable-rig -- --measure
//!   cargo run --release -p durable-rig -- --scale
//!   cargo run --release -p durable-rig -- --scale --cpu
//!
//! Postgres and Redis are those of `integrations/apalis/services.sh start`. It ends with a table, and with 1 if a
//! committed job is neither done nor dead in time, or a job ran that was rolled back.

mod chaos;
mod cost;
mod job;
mod ledger;
mod measure;
mod producer;
mod scale;
mod worker;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["producer", url, ledger, port] => producer::run(url, ledger, port).await.map(|()| true),
        ["worker", url, ledger] => worker::run(url, ledger).await.map(|()| true),
        ["scale-worker", kind, url] => scale::worker(kind, url, None).await.map(|()| true),
        ["scale-worker", kind, url, jobs] => scale::worker(kind, url, jobs.parse().ok())
            .await
            .map(|()| true),
        ["measure-worker", url] => measure::worker(url).await.map(|()| true),
        ["--measure"] => measure::run().await.map(|()| true),
        ["--scale", "--cpu", rest @ ..] => cost::run(rest).await.map(|()| true),
        ["--scale", rest @ ..] => scale::run(rest).await.map(|()| true),
        _ => match chaos::Plan::of(&words) {
            Ok(plan) => chaos::run(plan).await,
            Err(error) => {
                eprintln!(
                    "durable-rig: {error}\nusage: durable-rig [--store sqlite|postgres|redis|defer|all] [--seconds n] \
                     [--seed n] | --measure | --scale [--cpu] [--jobs n] [--rounds n]"
                );
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("durable-rig: {error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;
