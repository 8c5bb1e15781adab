//! What was recorded at fixed rates, as Markdown: medians of the runs, with the least and the greatest.

use std::{path::Path, str::FromStr};

use crate::{
    Failure,
    cell::Cell,
    rate::{CELLS, HEADER, SHARES, TIME},
    rows::{key, lines, within_runs},
    table::{median, said_of, spread},
    variant::Variant,
};

/// Against three spawns in the handler, in every cell.
const TARGETS: [(&str, Figure, f64); 2] = [
    ("p99 of the median window", |row| row.window_p99, 1.05),
    ("CPU", |row| row.cpu, 1.02),
];
/// Beyond this the generator is a part of what it measures, or the machine had other things to do. In microseconds.
const LATE: f64 = 50.0;

struct Row {
    task: String,
    runtime: String,
    share: u32,
    rate: f64,
    run: String,
    variant: Variant,
    per_second: f64,
    cpu: f64,
    p50: f64,
    window_p99: f64,
    p99: f64,
    p999: f64,
    late: f64,
    due: f64,
    unanswered: f64,
    others: f64,
}

type Figure = fn(&Row) -> f64;

struct Rows(Vec<Row>);

pub(crate) fn print(path: &Path) -> Result<(), Failure> {
    let rows = Rows(lines(path, HEADER)?);
    println!(
        "![Bars of the 99th percentile of the latency at three rates, by what becomes of the tasks of a request](rate.svg)\n"
    );
    let all = |figure: Figure| rows.0.iter().map(figure).collect::<Vec<_>>();
    let (others, late) = (all(|row| row.others), all(|row| row.late));
    println!(
        "{} The generator sent 99 of 100 requests within {:.0} µs of their moments in the median run; in {} it took \
         longer than {LATE:.0} µs.\n",
        said_of(others),
        median(late.clone()),
        late.iter().filter(|late| **late > LATE).count(),
    );
    rows.print_targets();
    for cell in CELLS {
        for share in SHARES {
            rows.print_cell(cell, share);
        }
    }
    Ok(())
}

impl Rows {
    /// Of a variant at a rate, in the order of the runs.
    fn of(&self, cell: Cell, share: u32, variant: Variant) -> impl Iterator<Item = &Row> {
        let [task, runtime, _] = key(cell);
        self.0.iter().filter(move |row| {
            let found = (&row.task, &row.runtime, row.share, row.variant);
            found == (&task, &runtime, share, variant)
        })
    }

    /// To three spawns in the handler.
    fn ratios(&self, cell: Cell, share: u32, variant: Variant, figure: Figure) -> Vec<f64> {
        let of = |variant| {
            let rows = self.of(cell, share, variant);
            rows.map(|row| (row.run.as_str(), figure(row)))
        };
        within_runs(of(variant), of(Variant::Spawn))
    }

    fn print_targets(&self) {
        println!(
            "| of three spawns in the handler, at the same rate | `AfterLayer`: p99 | CPU | plain scope: p99 | CPU |"
        );
        println!("|---|--:|--:|--:|--:|");
        for cell in CELLS {
            for share in SHARES {
                print!("| {} a task, {share} % of the capacity |", cell.work.name());
                for variant in [Variant::Layer, Variant::Scope] {
                    for (_, figure, _) in TARGETS {
                        let ratios = self.ratios(cell, share, variant, figure);
                        print!(" {} |", spread(ratios, 1.0, 2));
                    }
                }
                println!();
            }
        }
        println!();
        for (name, figure, target) in TARGETS {
            let within = |variant| {
                let cells = CELLS
                    .iter()
                    .flat_map(|cell| SHARES.map(|share| (*cell, share)));
                let medians =
                    cells.map(|(cell, share)| median(self.ratios(cell, share, variant, figure)));
                medians.filter(|ratio| *ratio <= target).count()
            };
            println!(
                "{name}: at most {target} of three spawns in {} of {} rows with `AfterLayer`, and in {} with a plain scope.",
                within(Variant::Layer),
                CELLS.len() * SHARES.len(),
                within(Variant::Scope),
            );
        }
        println!();
    }

    fn print_cell(&self, cell: Cell, share: u32) {
        let rate = self.of(cell, share, Variant::Spawn).next();
        println!(
            "**{} a task, {} requests a second, {share} % of the capacity**\n",
            cell.work.name(),
            rate.map_or(0.0, |row| row.rate),
        );
        println!(
            "| three tasks | CPU a request, µs | of `spawn` | p50, ms | p99 of the median window, ms | of `spawn` | p99 of all, ms | p99.9, ms |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|");
        for variant in Variant::ALL {
            let of = |figure: Figure| self.of(cell, share, variant).map(figure).collect();
            let ratio = |figure: Figure| match variant {
                Variant::Spawn => String::from("1"),
                _ => spread(self.ratios(cell, share, variant, figure), 1.0, 2),
            };
            print!(
                "| {} | {} | {} |",
                variant.words(),
                spread(of(|row| row.cpu), 1.0, 1),
                ratio(|row| row.cpu)
            );
            // The latencies of a server that can't keep up say how long it was watched, and no more.
            let kept_up = median(of(|row| row.per_second * TIME.as_secs_f64() / row.due));
            let unanswered = median(of(|row| row.unanswered));
            if kept_up < 0.9 || unanswered > 0.0 {
                println!(
                    " does not keep up: answers {:.0} % in time | | | | |",
                    kept_up * 100.0
                );
                continue;
            }
            println!(
                " {} | {} | {} | {} | {} |",
                spread(of(|row| row.p50), 1e-3, 2),
                spread(of(|row| row.window_p99), 1e-3, 2),
                ratio(|row| row.window_p99),
                spread(of(|row| row.p99), 1e-3, 2),
                spread(of(|row| row.p999), 1e-3, 2),
            );
        }
        println!();
    }
}

impl FromStr for Row {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let fields: Vec<&str> = line.split(',').collect();
        let [
            task,
            runtime,
            share,
            rate,
            run,
            variant,
            per_second,
            cpu,
            p50,
            window_p99,
            p99,
            p999,
            late,
            due,
            unanswered,
            others,
        ] = fields[..]
        else {
            return Err(format!("a line has too many fields, or too few: {line}").into());
        };
        Ok(Row {
            task: task.to_owned(),
            runtime: runtime.to_owned(),
            share: share.parse()?,
            rate: rate.parse()?,
            run: run.to_owned(),
            variant: variant.parse()?,
            per_second: per_second.parse()?,
            cpu: cpu.parse()?,
            p50: p50.parse()?,
            window_p99: window_p99.parse()?,
            p99: p99.parse()?,
            p999: p999.parse()?,
            late: late.parse()?,
            due: due.parse()?,
            unanswered: unanswered.parse()?,
            others: others.parse()?,
        })
    }
}
