//! The lines of a recording, read again.

use std::{collections::HashMap, fs, path::Path, str::FromStr};

use crate::{Failure, cell::Cell, record::HEADER, variant::Variant};

pub(crate) struct Row {
    /// Task, runtime and connections.
    cell: [String; 3],
    run: String,
    variant: Variant,
    pub(crate) per_second: f64,
    pub(crate) cpu: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) sleeps: f64,
    pub(crate) others: f64,
}

/// What is read off a row.
pub(crate) type Figure = fn(&Row) -> f64;

pub(crate) struct Rows(Vec<Row>);

impl Rows {
    pub(crate) fn read(path: &Path) -> Result<Rows, Failure> {
        Ok(Rows(lines(path, HEADER)?))
    }

    /// Of a variant in a cell, in the order of the runs.
    pub(crate) fn of(&self, cell: Cell, variant: Variant) -> impl Iterator<Item = &Row> {
        let cell = key(cell);
        self.0
            .iter()
            .filter(move |row| row.cell == cell && row.variant == variant)
    }

    pub(crate) fn figures(&self, cell: Cell, variant: Variant, figure: Figure) -> Vec<f64> {
        self.of(cell, variant).map(figure).collect()
    }

    /// To three spawns in the handler.
    pub(crate) fn ratios(&self, cell: Cell, variant: Variant, figure: Figure) -> Vec<f64> {
        let of = |variant| {
            let rows = self.of(cell, variant);
            rows.map(|row| (row.run.as_str(), figure(row)))
        };
        within_runs(of(variant), of(Variant::Spawn))
    }

    pub(crate) fn all(&self, figure: Figure) -> Vec<f64> {
        self.0.iter().map(figure).collect()
    }
}

/// Ratios of figures, each with its run: taken within a run, between variants that ran side by side.
pub(crate) fn within_runs<'a>(
    of: impl Iterator<Item = (&'a str, f64)>,
    to: impl Iterator<Item = (&'a str, f64)>,
) -> Vec<f64> {
    let to: HashMap<&str, f64> = to.collect();
    of.filter_map(|(run, figure)| Some(figure / to.get(run)?))
        .collect()
}

/// The lines of a recording, behind its header.
pub(crate) fn lines<T>(path: &Path, header: &str) -> Result<Vec<T>, Failure>
where
    T: FromStr<Err = Failure>,
{
    let text = fs::read_to_string(path)?;
    let lines = text
        .strip_prefix(header)
        .ok_or("the file has another header")?;
    lines.trim().lines().map(str::parse).collect()
}

/// As the file has it.
pub(crate) fn key(cell: Cell) -> [String; 3] {
    [
        cell.work.name(),
        cell.runtime().to_owned(),
        cell.connections.to_string(),
    ]
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
            cell: [task, runtime, connections].map(str::to_owned),
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
