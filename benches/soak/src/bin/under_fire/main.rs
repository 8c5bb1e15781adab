//! Real processes under load, stopped at random moments: what becomes of the tasks of the requests that were answered?
//!
//! `cargo run --release -p soak --bin under_fire -- --runs 200 [--seed N]`. Each run starts this program as a server,
//! once on tokio (axum) and once on smol (hyper), asks it from four clients, and stops it with
//!
//! - one SIGTERM (three runs of five): it must end with code 0, every task of every answered request completed;
//! - two (one of five): it must end with the code that says so, every such task completed or named in the report;
//! - one, with tasks that never end (one of five): the same at the limit;
//! - SIGKILL (one more run for every ten, at least two): for contrast. What is lost then is printed.
//!
//! A task has completed when its line is in the log. Exits with code 1 at the first run that went otherwise, with its
//! seed.

#[cfg(unix)]
mod client;
#[cfg(unix)]
mod on_smol;
#[cfg(unix)]
mod on_tokio;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod serve;

use std::error::Error;

type AnyError = Box<dyn Error + Send + Sync>;

#[cfg(unix)]
fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [first, others @ ..] if first == serve::ARGUMENT => serve::main(
            others,
            &[("tokio", on_tokio::serve), ("smol", on_smol::serve)],
        ),
        _ => run::main(&arguments),
    }
}

#[cfg(not(unix))]
fn main() -> Result<(), AnyError> {
    Err("this sends signals, which only Unix has".into())
}
