//! The 99th percentile at fixed rates, by what becomes of the tasks: bars, a row for each kind of task, a panel for each rate.

use crate::{
    Failure,
    canvas::{Anchor, Canvas, MARGIN, WIDTH},
    figures::Figures,
    latency::{BAR, Bar, GAP, LABELS, PANEL, TOP, VARIANTS, caveat, figure, panel, top_of},
};

/// In the file.
const TASKS: [&str; 3] = ["5 µs of CPU", "200 µs of CPU", "2 ms of sleep"];
/// Of what the server can do, in percent; in the file.
const SHARES: [&str; 3] = ["30", "60", "85"];

pub(crate) fn draw(figures: &Figures<'_>) -> Result<String, Failure> {
    let mut panels = Vec::new();
    let mut description = String::from(
        "Bars of the 99th percentile of the latency, in milliseconds, for requests with three tasks each that come at 30, \
         60 and 85 percent of the rate that the server can stand: medians of five runs, with the range from the least to \
         the greatest.",
    );
    for task in TASKS {
        for share in SHARES {
            let (rate, bars) = bars(figures, task, share)?;
            description.push_str(&format!(" {task} a task, {}: ", title(share, rate)));
            let told = bars
                .iter()
                .map(|bar| format!("{} {}", bar.words, figure(bar.median)));
            description.push_str(&told.collect::<Vec<_>>().join(", "));
            description.push('.');
            panels.push((rate, bars));
        }
    }
    let caveat = caveat(figures)?;
    description.push_str(&caveat);
    let mut canvas = Canvas::new(
        crate::canvas::WIDTH,
        TOP + 3.0 * PANEL - 16.0,
        "What clients wait for at a fixed rate: p99 of 250 requests in a row, in ms",
        &[
            "An axum service with three tasks a request, on a core of its own; requests come whatever it does. Shorter is better.",
            "Bar: median of five runs; line: least to greatest; »: goes on beyond the panel. Each panel has its own scale.",
            caveat.trim(),
        ],
        &description,
    );
    let width = (WIDTH - 2.0 * MARGIN - LABELS - 2.0 * GAP) / 3.0;
    for (index, (rate, bars)) in panels.iter().enumerate() {
        let (row, column) = (index / 3, index % 3);
        let y = TOP + row as f64 * PANEL;
        let x = MARGIN + LABELS + column as f64 * (width + GAP);
        if column == 0 {
            let heading = format!("{} a task", TASKS[row]);
            canvas.text(MARGIN, y, "panel", Anchor::Start, &heading);
            for (place, bar) in bars.iter().enumerate() {
                let class = if bar.ours { "ours" } else { "" };
                let base = top_of(y, place) + BAR - 3.0;
                canvas.text(x - 8.0, base, class, Anchor::End, bar.words);
            }
        }
        let title = title(SHARES[column], *rate);
        canvas.text(x, y, "panel", Anchor::Start, &title);
        panel(&mut canvas, bars, x, y, width);
    }
    Ok(canvas.finish())
}

fn title(share: &str, rate: f64) -> String {
    format!("{share} %: {rate:.0} a second")
}

/// Requests a second, and a bar for each variant.
fn bars(figures: &Figures<'_>, task: &str, share: &str) -> Result<(f64, Vec<Bar>), Failure> {
    let mut rate = 0.0;
    let mut bars = Vec::new();
    for (name, words, ours) in VARIANTS {
        let mut values = Vec::new();
        for row in figures.rows() {
            let found = (row.text("task")?, row.text("share")?, row.text("variant")?);
            if found == (task, share, name) {
                values.push(row.number("window_p99_us")? / 1_000.0);
                rate = row.number("rate")?;
            }
        }
        if values.is_empty() {
            return Err(format!("{name} is missing with {task}, {share} %").into());
        }
        bars.push(Bar::new(words, ours, &values));
    }
    Ok((rate, bars))
}
