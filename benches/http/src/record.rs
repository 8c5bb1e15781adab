//! All runs, and the file they are written to.

use std::{fs, io::Write, path::Path, thread};

use crate::{
    Failure,
    cell::Cell,
    run::{Run, run},
    variant::Variant,
    work,
};

const RUNS: usize = 5;
const SECONDS: u64 = 3;

/// Of the file.
pub(crate) const HEADER: &str = "task,runtime,connections,run,variant,requests_per_second,cpu_us_per_request,p50_us,p99_us,\
     sleeps_per_request,others";

/// Five runs of each variant in each cell.
pub(crate) fn all(path: &Path) -> Result<(), Failure> {
    let steps = work::steps_in_a_microsecond();
    let mut lines = Vec::new();
    for number in 0..RUNS {
        for cell in Cell::ALL {
            // The variants of a cell stand side by side, and each run begins with another one, so that what drifts on
            // the machine touches all of them.
            let mut variants = Variant::ALL;
            variants.rotate_left(number);
            for variant in variants {
                let run = run(cell, variant, cell.work.task(steps), SECONDS)?;
                let line = line(cell, number, variant, run);
                eprintln!("{line}");
                lines.push(line);
            }
        }
    }
    write(path, HEADER, &lines)
}

/// That every variant works: all at once, for a second. Its figures mean nothing.
pub(crate) fn quick(path: &Path) -> Result<(), Failure> {
    let steps = work::steps_in_a_microsecond();
    let mut lines = Vec::new();
    for cell in Cell::QUICK {
        let task = cell.work.task(steps);
        let runs = thread::scope(|scope| {
            let start = |variant| (variant, scope.spawn(move || run(cell, variant, task, 1)));
            let started = Variant::ALL.map(start);
            started.map(|(variant, thread)| (variant, thread.join()))
        });
        for (variant, joined) in runs {
            let run = joined.map_err(|_| format!("{variant}: a thread has panicked"))??;
            lines.push(line(cell, 0, variant, run));
        }
    }
    println!(
        "{} runs: each was answered, and each task has run",
        lines.len()
    );
    write(path, HEADER, &lines)
}

fn line(cell: Cell, number: usize, variant: Variant, run: Run) -> String {
    format!(
        "{},{},{},{},{variant},{:.0},{:.2},{},{},{:.3},{:.3}",
        cell.work.name(),
        cell.runtime(),
        cell.connections,
        number + 1,
        run.load.per_second,
        run.cpu,
        run.load.p50,
        run.load.p99,
        run.sleeps,
        run.others,
    )
}

pub(crate) fn write(path: &Path, header: &str, lines: &[String]) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::create(path)?;
    writeln!(file, "{header}")?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    Ok(())
}
