//! An axum service under load. `run.sh` builds and starts this; it has three commands:
//!
//! - `record <file.csv> [--quick]` starts a server and a generator for each run, checks that no task is missing, and
//!   writes a line a run
//! - `table <file.csv>` prints what was recorded, as Markdown
//! - `serve <variant> <workers> <task>` is the server; a profiler can be put to it

mod cell;
mod checks;
mod generator;
mod guarded;
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
        ["serve", variant, workers, task] => {
            serve::serve(variant.parse()?, workers.parse()?, task.parse()?)
        }
        _ => Err(
            "record <file.csv> [--quick] | table <file.csv> | serve <variant> <workers> <task>"
                .into(),
        ),
    }
}
