//! An axum service under load. `run.sh` and `rate.sh` build and start this; its commands:
//!
//! - `record <file.csv> [--quick]` starts a server and a generator for each run, checks that no task is missing, and
//!   writes a line a run
//! - `table <file.csv>` prints what was recorded, as Markdown
//! - `rate <file.csv> [--quick]` and `rate-table <file.csv>` do the same at fixed rates
//! - `offer <address> <path> <rate> <seconds>` puts any server under a load of the same kind
//! - `next <folder of server.js> <file.csv> [--quick]` and `next-table <file.csv>` compare with Next.js: `benches/next`
//! - `serve <variant> <workers> <task> [<core>]` is the server; a profiler can be put to it

mod cell;
mod checks;
mod cores;
mod generator;
mod guarded;
mod next;
mod paced;
mod rate;
mod rate_table;
mod record;
mod routes;
mod rows;
mod run;
mod serve;
mod server;
mod table;
mod usage;
mod variant;
mod work;

use std::{env, error::Error, path::Path};

/// Of a whole command: it ends the process.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["record", file] => record::all(Path::new(file)),
        ["record", file, "--quick"] => record::quick(Path::new(file)),
        ["table", file] => table::print(Path::new(file)),
        ["rate", file] => rate::all(Path::new(file)),
        ["rate", file, "--quick"] => rate::quick(Path::new(file)),
        ["rate-table", file] => rate_table::print(Path::new(file)),
        ["next", folder, file] => next::all(Path::new(folder), Path::new(file)),
        ["next", folder, file, "--quick"] => next::quick(Path::new(folder), Path::new(file)),
        ["next-table", file] => next::print(Path::new(file)),
        ["offer", address, path, rate, seconds] => {
            rate::print(address, path, rate.parse()?, seconds.parse()?)
        }
        ["serve-next"] => next::serve(),
        ["serve", variant, workers, task] => {
            serve::serve(variant.parse()?, workers.parse()?, task.parse()?, None)
        }
        ["serve", variant, workers, task, core] => {
            let core = Some(core.parse()?);
            serve::serve(variant.parse()?, workers.parse()?, task.parse()?, core)
        }
        _ => Err(
            "record <file.csv> [--quick] | table <file.csv> | rate <file.csv> [--quick] | rate-table <file.csv> \
             | offer <address> <path> <rate> <seconds> | next <folder> <file.csv> [--quick] | next-table <file.csv> | serve <variant> <workers> <task> [<core>]"
                .into(),
        ),
    }
}
