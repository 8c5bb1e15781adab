//! What was recorded, as Markdown: medians of the runs, with the least and the greatest.
//!
//! A ratio is taken within a run, between variants that ran side by side; the median of those is shown.

use std::{fs, path::Path, str::FromStr};

use crate::{Failure, cell::Cell, record::HEADER, variant::Variant};

struct Row {
    cell: (String, String, String),
    run: String,
    variant: Variant,
    per_second: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
    sleeps: f64,
    others: f64,
}

pub(crate) fn print(path: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(path)?;
    let Some(lines) = text.strip_prefix(HEADER) else {
        return Err("the file has another header".into());
    };
    let rows: Result<Vec<Row>, _> = lines.trim().lines().map(str::parse).collect();
    let rows = rows?;
    for cell in Cell::ALL {
        let key = (
            cell.work.name(),
            cell.runtime().to_owned(),
            cell.connections.to_string(),
        );
        let rows: Vec<&Row> = rows.iter().filter(|row| row.cell == key).collect();
        if !rows.is_empty() {
            let (task, runtime, connections) = key;
            println!("**{task}, {runtime}, {connections} connections**\n");
            print_cell(&rows);
        }
    }
    let others: Vec<f64> = rows.iter().map(|row| row.others).collect();
    let noisy = others.iter().filter(|share| **share > 0.1).count();
    println!(
        "Other processes had {:.0} % of the machine in the median run, and more than a tenth of it in {noisy} of {}.",
        median(others.clone()) * 100.0,
        others.len()
    );
    Ok(())
}

fn print_cell(rows: &[&Row]) {
    println!(
        "| three tasks | requests/s | CPU a request, µs | of `spawn` | p50, ms | p99, ms | of `spawn` | sleeps |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for variant in Variant::ALL {
        let of = |figure: fn(&Row) -> f64| -> Vec<f64> {
            let ours = rows.iter().filter(|row| row.variant == variant);
            ours.map(|row| figure(row)).collect()
        };
        let ratio = |figure: fn(&Row) -> f64| -> String {
            if variant == Variant::Spawn {
                return String::from("1");
            }
            let ours = rows.iter().filter(|row| row.variant == variant);
            let ratios = ours.filter_map(|row| {
                let beside =
                    |other: &&&Row| other.variant == Variant::Spawn && other.run == row.run;
                Some(figure(row) / figure(rows.iter().find(beside)?))
            });
            spread(ratios.collect(), 1.0, 2)
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

/// The median, and the range in brackets.
fn spread(values: Vec<f64>, unit: f64, digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min) * unit;
    let greatest = values.iter().copied().fold(0.0, f64::max) * unit;
    let median = median(values) * unit;
    match least < greatest {
        true => format!("{median:.digits$} ({least:.digits$} to {greatest:.digits$})"),
        false => format!("{median:.digits$}"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl FromStr for Row {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let fields: Vec<&str> = line.split(',').collect();
        let [
            task,
            runtime,
            connections,
            run,
            variant,
            per_second,
            cpu,
            p50,
            p99,
            sleeps,
            others,
        ] = fields[..]
        else {
            return Err(format!("a line has too many fields, or too few: {line}").into());
        };
        Ok(Row {
            cell: (task.to_owned(), runtime.to_owned(), connections.to_owned()),
            run: run.to_owned(),
            variant: variant.parse()?,
            per_second: per_second.parse()?,
            cpu: cpu.parse()?,
            p50: p50.parse()?,
            p99: p99.parse()?,
            sleeps: sleeps.parse()?,
            others: others.parse()?,
        })
    }
}
