//! A file of figures: comma-separated values under a line of headings.

use std::str::FromStr;

use crate::Failure;

/// What a file holds. Columns go by their headings: others may be added.
pub(crate) struct Figures<'a> {
    headings: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

/// One line of it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    headings: &'a [&'a str],
    fields: &'a [&'a str],
}

impl<'a> Figures<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self, Failure> {
        let mut rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        if rows.len() < 2 {
            return Err("there is nothing in it".into());
        }
        let headings = rows.remove(0);
        if let Some(odd) = rows.iter().find(|row| row.len() != headings.len()) {
            return Err(format!("a line has {} fields: {}", odd.len(), odd.join(",")).into());
        }
        Ok(Figures { headings, rows })
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let headings = &self.headings;
        self.rows.iter().map(move |fields| Row { headings, fields })
    }
}

impl<'a> Row<'a> {
    pub(crate) fn text(self, heading: &str) -> Result<&'a str, Failure> {
        let column = self.headings.iter().position(|found| *found == heading);
        let field = column.and_then(|column| self.fields.get(column));
        field
            .copied()
            .ok_or_else(|| format!("no column is called {heading}").into())
    }

    pub(crate) fn number(self, heading: &str) -> Result<f64, Failure> {
        let text = self.text(heading)?;
        let number = f64::from_str(text)
            .ok()
            .filter(|number| number.is_finite() && *number >= 0.0);
        number.ok_or_else(|| format!("{heading} is {text}").into())
    }
}

/// The middle one; of an even number, the upper of the two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
