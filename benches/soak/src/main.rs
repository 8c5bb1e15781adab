//! A server under load for as long as it is told: does every task stand on the account, in the end and in an
//! independent witness, and does the memory stay flat?
//!
//! `cargo run --release -p soak -- --minutes 30`, or `--seconds 20`. Four parts, of which each prints a table:
//!
//! 1. Steady (half of the time): an axum server with `AfterLayer`, clients of seven habits, handlers that fail
//!    and panic, tasks of every kind. Each task writes a row into SQLite when it starts and one when it completes.
//! 2. Overload with `Overflow::Shed`, and 3. with `Overflow::Backpressure` (a fifth each): five times as many clients as
//!    there is room for tasks.
//! 4. Stalled (a tenth): most clients don't read what they have asked for, and the others must be answered.
//!
//! It exits with code 1 unless all that the tables promise holds, and says what does not. `--unlimited` leaves
//! `max_waiting` out in the second and third part: it is there to show that they then fail.

mod clients;
mod crowd;
mod kind;
mod overload;
mod reports;
mod service;
mod stalled;
mod steady;
mod table;
mod tally;
mod witness;

use std::{alloc::System, env, error::Error, process::ExitCode, time::Duration};

use cap::Cap;

type AnyError = Box<dyn Error + Send + Sync>;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What the Rust code of this process has allocated and not freed: of the server, the crate, and the clients. SQLite is a
/// C library with an allocator of its own, so the witness does not disturb what it witnesses.
fn live_bytes() -> usize {
    ALLOCATOR.allocated()
}

fn main() -> Result<ExitCode, AnyError> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, others @ ..] = &arguments[..] {
        if first == crowd::ARGUMENT {
            crowd::main(others)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let options = Options::parse(arguments)?;
    kind::expect_deliberate_panics();
    let reports = reports::Reports::install()?;

    let mut failures = steady::run(options.time.mul_f64(0.5), reports)?;
    for overflow in [after::Overflow::Shed, after::Overflow::Backpressure] {
        let time = options.time.mul_f64(0.2);
        failures.extend(overload::run(time, overflow, options.unlimited)?);
    }
    failures.extend(stalled::run(options.time.mul_f64(0.1))?);
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    Ok(if failures.is_empty() {
        println!("everything holds");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Options {
    time: Duration,
    unlimited: bool,
}

impl Options {
    fn parse(arguments: Vec<String>) -> Result<Options, AnyError> {
        let mut options = Options {
            time: Duration::from_secs(60),
            unlimited: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut seconds = |unit: f64| {
                let value = arguments.next();
                let value = value.ok_or_else(|| format!("{name} needs a value"))?;
                Ok::<_, AnyError>(Duration::try_from_secs_f64(value.parse::<f64>()? * unit)?)
            };
            match &*name {
                "--minutes" => options.time = seconds(60.0)?,
                "--seconds" => options.time = seconds(1.0)?,
                "--unlimited" => options.unlimited = true,
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        Ok(options)
    }
}
