//! What was recorded, as Markdown: medians of the runs, with the least and the greatest.

use std::path::Path;

use crate::{
    Failure,
    cell::{Cell, Work},
    rows::{Figure, Rows, key},
    variant::Variant,
};

/// What `after` is to reach against three spawns in the handler.
const TARGETS: [(Cell, &str, Figure, f64); 3] = [
    (
        Cell::new(Work::Cpu(5), 2, 32),
        "CPU a request",
        |row| row.cpu,
        0.9,
    ),
    (
        Cell::new(Work::Cpu(5), 0, 32),
        "CPU a request",
        |row| row.cpu,
        0.9,
    ),
    (
        Cell::new(Work::Sleep(2_000), 2, 32),
        "p99",
        |row| row.p99,
        0.6,
    ),
];

pub(crate) fn print(path: &Path) -> Result<(), Failure> {
    let rows = Rows::read(path)?;
    let others = rows.all(|row| row.others);
    println!("{}\n", said_of(others));
    print_targets(&rows);
    for cell in Cell::ALL {
        let [task, runtime, connections] = key(cell);
        println!("**{task} a task, {runtime}, {connections} connections**\n");
        print_cell(&rows, cell);
    }
    Ok(())
}

fn print_targets(rows: &Rows) {
    println!("| of three spawns in the handler | target | `AfterLayer` | plain scope |");
    println!("|---|--:|--:|--:|");
    for (cell, words, figure, target) in TARGETS {
        let reached = |variant| {
            let ratios = rows.ratios(cell, variant, figure);
            let within = ratios.iter().filter(|ratio| **ratio <= target).count();
            let runs = ratios.len();
            format!(
                "{}, reached in {within} of {runs} runs",
                spread(ratios, 1.0, 2)
            )
        };
        let [task, runtime, connections] = key(cell);
        println!(
            "| {words}: {task}, {runtime}, {connections} connections | {target:?} | {} | {} |",
            reached(Variant::Layer),
            reached(Variant::Scope)
        );
    }
    println!();
}

fn print_cell(rows: &Rows, cell: Cell) {
    println!(
        "| three tasks | requests/s | CPU a request, µs | of `spawn` | p50, ms | p99, ms | of `spawn` | sleeps |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for variant in Variant::ALL {
        let of = |figure: Figure| rows.figures(cell, variant, figure);
        let ratio = |figure: Figure| match variant {
            Variant::Spawn => String::from("1"),
            _ => spread(rows.ratios(cell, variant, figure), 1.0, 2),
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {:.2} |",
            variant.words(),
            spread(of(|row| row.per_second), 1.0, 0),
            spread(of(|row| row.cpu), 1.0, 1),
            ratio(|row| row.cpu),
            spread(of(|row| row.p50), 1e-3, 2),
            spread(of(|row| row.p99), 1e-3, 2),
            ratio(|row| row.p99),
            median(of(|row| row.sleeps)),
        );
    }
    println!();
}

/// What other processes had of the machine, by run.
pub(crate) fn said_of(others: Vec<f64>) -> String {
    let (busy, runs) = (
        others.iter().filter(|share| **share > 0.1).count(),
        others.len(),
    );
    format!(
        "Other processes had {:.0} % of the machine in the median run, and more than a tenth of it in {busy} of {runs}.",
        median(others) * 100.0
    )
}

/// The median, and the range in brackets.
pub(crate) fn spread(values: Vec<f64>, unit: f64, digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min) * unit;
    let greatest = values.iter().copied().fold(0.0, f64::max) * unit;
    let median = median(values) * unit;
    match least < greatest {
        true => format!("{median:.digits$} ({least:.digits$} to {greatest:.digits$})"),
        false => format!("{median:.digits$}"),
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
