//! The lines of a recording, read again.

use std::{fs, path::Path, str::FromStr};

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
        let text = fs::read_to_string(path)?;
        let Some(lines) = text.strip_prefix(HEADER) else {
            return Err("the file has another header".into());
        };
        let rows: Result<Vec<Row>, Failure> = lines.trim().lines().map(str::parse).collect();
        Ok(Rows(rows?))
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

    /// To three spawns in the handler: taken within a run, between variants that ran side by side.
    pub(crate) fn ratios(&self, cell: Cell, variant: Variant, figure: Figure) -> Vec<f64> {
        let ratio = |row: &Row| {
            let beside = self
                .of(cell, Variant::Spawn)
                .find(|spawn| spawn.run == row.run);
            Some(figure(row) / figure(beside?))
        };
        self.of(cell, variant).filter_map(ratio).collect()
    }

    pub(crate) fn all(&self, figure: Figure) -> Vec<f64> {
        self.0.iter().map(figure).collect()
    }
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
