//! Markdown tables of figures.

use std::fmt::Write as _;

use super::results::Figure;

/// A table with a line for each label and a column for each candidate, of figures in the order in which they come.
pub fn pivot(
    figures: &[Figure],
    corner: &str,
    label: impl Fn(&Figure) -> String,
    cell: impl Fn(&Figure) -> String,
) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut columns: Vec<&str> = Vec::new();
    for figure in figures {
        let label = label(figure);
        if !lines.contains(&label) {
            lines.push(label);
        }
        if !columns.contains(&figure.candidate.as_str()) {
            columns.push(&figure.candidate);
        }
    }
    let mut text = format!("| {corner} | {} |\n", columns.join(" | "));
    writeln!(text, "|---|{}", "---|".repeat(columns.len())).expect("a string takes all");
    for line in lines {
        write!(text, "| {line} |").expect("a string takes all");
        for column in &columns {
            let found = figures
                .iter()
                .find(|figure| figure.candidate == **column && label(figure) == line);
            let found = found.map(&cell).unwrap_or_default();
            write!(text, " {found} |").expect("a string takes all");
        }
        text.push('\n');
    }
    text
}

/// The ratio and its range over the processes: `0.43 (0.41 to 0.45)`.
pub fn spread(figure: &Figure) -> String {
    let Figure {
        ratio, low, high, ..
    } = figure;
    format!("{ratio:.2} ({low:.2} to {high:.2})")
}

pub fn ratio(figure: &Figure) -> String {
    format!("{:.2}", figure.ratio)
}

/// Those of a sheet that `keep` chooses, without the candidates named.
pub fn select(
    figures: &[Figure],
    sheet: &str,
    without: &[&str],
    keep: impl Fn(&Figure) -> bool,
) -> Vec<Figure> {
    let of_sheet = figures.iter().filter(|figure| {
        figure.key.sheet == sheet && !without.contains(&figure.candidate.as_str())
    });
    of_sheet.filter(|figure| keep(figure)).cloned().collect()
}

/// With commas: `100,000`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
