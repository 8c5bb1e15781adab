//! What the slowest of a hundred clients waits for, by what becomes of the tasks: bars, a panel for each load.

use crate::{
    Failure,
    canvas::{Anchor, Canvas, MARGIN, WIDTH, step},
    figures::{Figures, median},
};

/// Name in the file, words, whether it is `after`.
pub(crate) const VARIANTS: [(&str, &str, bool); 7] = [
    ("nothing", "no tasks", false),
    ("awaited", "awaited in the handler", false),
    ("spawn", "tokio::spawn in the handler", false),
    ("spawn-after", "spawns after the response, by hand", false),
    ("join-after", "join! after the response, by hand", false),
    ("scope", "after::defer, plain scope", true),
    ("layer", "after::defer, AfterLayer", true),
];

/// Task, runtime, connections, in the file.
const PANELS: [[(&str, &str, &str); 3]; 2] = [
    [
        ("2 ms of sleep", "2 workers", "32"),
        ("2 ms of sleep", "current-thread", "32"),
        ("2 ms of sleep", "2 workers", "2"),
    ],
    [
        ("5 µs of CPU", "2 workers", "32"),
        ("5 µs of CPU", "current-thread", "32"),
        ("5 µs of CPU", "2 workers", "2"),
    ],
];

pub(crate) const LABELS: f64 = 232.0;
pub(crate) const GAP: f64 = 16.0;
/// For a figure behind the longest bar.
const BEHIND: f64 = 52.0;
pub(crate) const BAR: f64 = 15.0;
const PITCH: f64 = 24.0;
pub(crate) const TOP: f64 = 120.0;
pub(crate) const PANEL: f64 = PITCH * 7.0 + 70.0;

/// A variant's p99 in one panel, in milliseconds.
pub(crate) struct Bar {
    pub(crate) words: &'static str,
    pub(crate) ours: bool,
    least: f64,
    pub(crate) median: f64,
    greatest: f64,
}

impl Bar {
    pub(crate) fn new(words: &'static str, ours: bool, values: &[f64]) -> Bar {
        Bar {
            words,
            ours,
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            median: median(values),
            greatest: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

pub(crate) fn draw(figures: &Figures<'_>) -> Result<String, Failure> {
    let mut panels = Vec::new();
    let mut description = String::from(
        "Bars of the 99th percentile of the latency, in milliseconds, for requests with three tasks each: medians of \
         five runs, with the range from the least to the greatest.",
    );
    for row in PANELS {
        for (task, runtime, connections) in row {
            let bars = bars(figures, task, runtime, connections)?;
            description.push_str(&format!(
                " {task} a task, {}: ",
                title(runtime, connections)
            ));
            let told = bars
                .iter()
                .map(|bar| format!("{} {}", bar.words, figure(bar.median)));
            description.push_str(&told.collect::<Vec<_>>().join(", "));
            description.push('.');
            panels.push(bars);
        }
    }
    let caveat = caveat(figures)?;
    description.push_str(&caveat);
    let mut canvas = Canvas::new(
        crate::canvas::WIDTH,
        TOP + 2.0 * PANEL - 16.0,
        "What clients wait for: p99 of the latency, in ms",
        &[
            "An axum service with three tasks a request, under load from wrk on the same two cores. Shorter is better.",
            "Bar: median of five runs; line: least to greatest; »: goes on beyond the panel. Each panel has its own scale.",
            caveat.trim(),
        ],
        &description,
    );
    let width = (WIDTH - 2.0 * MARGIN - LABELS - 2.0 * GAP) / 3.0;
    for (index, bars) in panels.iter().enumerate() {
        let (row, column) = (index / 3, index % 3);
        let (task, runtime, connections) = PANELS[row][column];
        let y = TOP + row as f64 * PANEL;
        let x = MARGIN + LABELS + column as f64 * (width + GAP);
        if column == 0 {
            canvas.text(MARGIN, y, "panel", Anchor::Start, &format!("{task} a task"));
            for (place, bar) in bars.iter().enumerate() {
                let class = if bar.ours { "ours" } else { "" };
                let base = top_of(y, place) + BAR - 3.0;
                canvas.text(x - 8.0, base, class, Anchor::End, bar.words);
            }
        }
        canvas.text(x, y, "panel", Anchor::Start, &title(runtime, connections));
        panel(&mut canvas, bars, x, y, width);
    }
    Ok(canvas.finish())
}

/// What must be said of figures from a machine that had other things to do.
pub(crate) fn caveat(figures: &Figures<'_>) -> Result<String, Failure> {
    let others: Result<Vec<f64>, Failure> =
        figures.rows().map(|row| row.number("others")).collect();
    let others = median(&others?);
    Ok(match others > 0.1 {
        true => format!(
            " Recorded while other programs had {:.0} % of the machine: mostly their noise, and no comparison.",
            others * 100.0
        ),
        false => String::new(),
    })
}

fn title(runtime: &str, connections: &str) -> String {
    let threads = if runtime == "current-thread" {
        "one thread"
    } else {
        runtime
    };
    format!("{threads}, {connections} clients")
}

pub(crate) fn top_of(y: f64, place: usize) -> f64 {
    y + 14.0 + place as f64 * PITCH
}

fn bars(
    figures: &Figures<'_>,
    task: &str,
    runtime: &str,
    connections: &str,
) -> Result<Vec<Bar>, Failure> {
    let mut bars = Vec::new();
    for (name, words, ours) in VARIANTS {
        let mut values = Vec::new();
        for row in figures.rows() {
            let panel = (
                row.text("task")?,
                row.text("runtime")?,
                row.text("connections")?,
            );
            if panel == (task, runtime, connections) && row.text("variant")? == name {
                values.push(row.number("p99_us")? / 1_000.0);
            }
        }
        if values.is_empty() {
            return Err(format!("{name} is missing with {task}, {runtime}, {connections}").into());
        }
        bars.push(Bar::new(words, ours, &values));
    }
    Ok(bars)
}

pub(crate) fn panel(canvas: &mut Canvas, bars: &[Bar], x: f64, y: f64, width: f64) {
    // Up to the second longest bar at least: one that is much longer than all others is cut, for their sake. Ranges that
    // are not much longer than the bars are shown to their ends.
    let mut lengths: Vec<(f64, f64)> = bars.iter().map(|bar| (bar.median, bar.greatest)).collect();
    lengths.sort_by(|a, b| a.0.total_cmp(&b.0));
    let [rest @ .., longest] = &lengths[..] else {
        return;
    };
    let second = rest.iter().map(|length| length.0).fold(0.0, f64::max);
    let shown = if longest.0 > 2.5 * second {
        rest
    } else {
        &lengths[..]
    };
    let bar = shown.iter().map(|length| length.0).fold(0.0, f64::max);
    let range = shown.iter().map(|length| length.1).fold(0.0, f64::max);
    let end = 1.05 * range.clamp(bar, 1.5 * bar);
    let scale = (width - BEHIND) / end;
    let bottom = top_of(y, bars.len()) - 4.0;
    let step = step(end, 3.9);
    let mut tick = 0.0;
    while tick <= end * 1.001 {
        let at = x + tick * scale;
        let class = if tick == 0.0 { "axis" } else { "grid" };
        canvas.line(class, (at, y + 9.0), (at, bottom));
        canvas.text(
            at,
            bottom + 15.0,
            "quiet",
            Anchor::Middle,
            &short(tick, step),
        );
        tick += step;
    }
    for (place, bar) in bars.iter().enumerate() {
        let top = top_of(y, place);
        let middle = top + BAR / 2.0;
        let class = if bar.ours { "bar ours" } else { "bar" };
        canvas.bar(class, x, top, bar.median.min(end) * scale, BAR);
        let mut behind = x + bar.median.min(end) * scale;
        if bar.least < end {
            let (from, to) = (x + bar.least * scale, x + bar.greatest.min(end) * scale);
            canvas.line("range", (from, middle), (to, middle));
            for (at, inside) in [(from, true), (to, bar.greatest < end)] {
                if inside {
                    canvas.line("range", (at, middle - 3.5), (at, middle + 3.5));
                }
            }
            behind = behind.max(to);
        }
        let cut = if bar.greatest > end { "» " } else { "" };
        let class = if bar.ours { "ours" } else { "" };
        let words = format!("{cut}{}", figure(bar.median));
        canvas.text(behind + 5.0, top + BAR - 3.0, class, Anchor::Start, &words);
    }
}

/// A figure with three digits at the most.
pub(crate) fn figure(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The label of a tick, with the digits that its step has.
fn short(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.digits$}")
}
