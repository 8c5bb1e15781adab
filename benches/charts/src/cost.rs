//! What the tasks of a request cost by how many they are, as a share of what as many spawns cost: lines, a panel for each
//! of tokio's runtimes.

use crate::{
    Failure,
    canvas::{Anchor, Canvas, MARGIN, WIDTH, step},
    figures::Figures,
};

/// Name in the file, words, class of what is drawn.
const CANDIDATES: [(&str, &str, &str); 7] = [
    ("JoinSet", "JoinSet", ""),
    ("TaskTracker", "TaskTracker", ""),
    ("spawn", "tokio::spawn", ""),
    ("FuturesUnordered", "FuturesUnordered", "dashed"),
    ("join_all", "join_all", "dashed"),
    ("join!", "join!", "dashed"),
    ("after", "after::defer", "ours"),
];

/// Name in the file, and words.
const PANELS: [(&str, &str); 2] = [
    ("tokio_current_thread", "tokio, one thread"),
    ("tokio_multi_thread", "tokio, a worker for each core"),
];

const TOP: f64 = 132.0;
const HEIGHT: f64 = 270.0;
const AXIS: f64 = 34.0;
/// For the names behind the lines.
const NAMES: f64 = 168.0;
const LINE: f64 = 15.0;

struct Point {
    tasks: f64,
    ratio: f64,
    low: f64,
    high: f64,
}

struct Series {
    words: &'static str,
    class: &'static str,
    points: Vec<Point>,
}

impl Series {
    fn is_ours(&self) -> bool {
        self.class == "ours"
    }
}

pub(crate) fn draw(figures: &Figures<'_>) -> Result<String, Failure> {
    let mut panels = Vec::new();
    let mut description = String::from(
        "Lines of the time that a request's tasks take, as a share of the time of as many calls of tokio::spawn, by the \
         number of tasks.",
    );
    for (name, words) in PANELS {
        let panel = series(figures, name)?;
        for series in &panel {
            let told = series.points.iter();
            let told = told.map(|point| format!("{} tasks {:.2}", point.tasks, point.ratio));
            let told = told.collect::<Vec<_>>().join(", ");
            description.push_str(&format!(" {words}, {}: {told}.", series.words));
        }
        panels.push(panel);
    }
    let mut canvas = Canvas::new(
        TOP + HEIGHT + 56.0,
        "What a request's tasks cost, as a share of tokio::spawn",
        &[
            "Tasks that do next to nothing: what is left is the cost of deferring, handing over and running them. Lower is \
             better.",
            "Dashed: all tasks in one spawn, by hand. Points: medians over several processes; upright lines at after::defer: \
             their range.",
        ],
        &description,
    );
    let width = (WIDTH - 2.0 * MARGIN) / 2.0;
    for (index, ((_, title), series)) in PANELS.iter().zip(&panels).enumerate() {
        panel(
            &mut canvas,
            title,
            series,
            MARGIN + index as f64 * width,
            width - 8.0,
        );
    }
    Ok(canvas.finish())
}

fn series(figures: &Figures<'_>, runtime: &str) -> Result<Vec<Series>, Failure> {
    let mut found = Vec::new();
    for (name, words, class) in CANDIDATES {
        let mut points = Vec::new();
        for row in figures.rows() {
            if row.text("bench")? == "tasks"
                && row.text("runtime")? == runtime
                && row.text("mode")? == "none"
                && row.text("candidate")? == name
            {
                points.push(Point {
                    tasks: row.number("tasks")?,
                    ratio: row.number("ratio_to_spawn")?,
                    low: row.number("low")?,
                    high: row.number("high")?,
                });
            }
        }
        points.sort_by(|a, b| a.tasks.total_cmp(&b.tasks));
        if points.is_empty() {
            return Err(format!("{name} is missing on {runtime}").into());
        }
        found.push(Series {
            words,
            class,
            points,
        });
    }
    Ok(found)
}

fn panel(canvas: &mut Canvas, title: &str, series: &[Series], x: f64, width: f64) {
    let points = || series.iter().flat_map(|series| &series.points);
    let most = points().map(|point| point.tasks).fold(1.0, f64::max);
    let end = points()
        .map(|point| point.ratio.max(point.high))
        .fold(0.0, f64::max)
        * 1.05;
    let (left, right) = (x + AXIS, x + width - NAMES);
    let bottom = TOP + HEIGHT;
    // Twice the tasks are the same way to the right.
    let across = |tasks: f64| left + 8.0 + (right - left - 8.0) * tasks.ln() / most.ln().max(1.0);
    let up = |ratio: f64| bottom - HEIGHT * ratio / end;

    canvas.text(x, TOP - 18.0, "panel", Anchor::Start, title);
    let step = step(end, 5.0);
    let mut tick = 0.0;
    while tick <= end {
        let class = if tick == 0.0 { "axis" } else { "grid" };
        canvas.line(class, (left, up(tick)), (right, up(tick)));
        canvas.text(
            left - 6.0,
            up(tick) + 4.0,
            "quiet",
            Anchor::End,
            &format!("{tick:.1}"),
        );
        tick += step;
    }
    let mut numbers: Vec<f64> = points().map(|point| point.tasks).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    for tasks in numbers {
        canvas.line(
            "axis",
            (across(tasks), bottom),
            (across(tasks), bottom + 4.0),
        );
        canvas.text(
            across(tasks),
            bottom + 18.0,
            "quiet",
            Anchor::Middle,
            &tasks.to_string(),
        );
    }
    let middle = (left + right) / 2.0;
    canvas.text(
        middle,
        bottom + 36.0,
        "quiet",
        Anchor::Middle,
        "tasks a request",
    );

    let mut names = Vec::new();
    for series in series {
        let class = series.class;
        let radius = if series.is_ours() { 4.0 } else { 2.5 };
        let places: Vec<(f64, f64)> = series
            .points
            .iter()
            .map(|point| (across(point.tasks), up(point.ratio)))
            .collect();
        canvas.path(&format!("line {class}"), &places);
        for (place, point) in places.iter().zip(&series.points) {
            if series.is_ours() {
                canvas.line("range", (place.0, up(point.low)), (place.0, up(point.high)));
            }
            canvas.dot(&format!("dot {class}"), *place, radius);
        }
        names.extend(places.last().map(|last| (series, *last)));
    }
    name(canvas, names, right);
}

/// Writes the names of the lines at their ends, each below the one before, and as near to its line as that leaves.
fn name(canvas: &mut Canvas, mut names: Vec<(&Series, (f64, f64))>, right: f64) {
    names.sort_by(|a, b| a.1.1.total_cmp(&b.1.1));
    let mut heights: Vec<f64> = names.iter().map(|(_, (_, y))| *y).collect();
    let lowest = TOP + HEIGHT - 2.0;
    for index in 1..heights.len() {
        heights[index] = heights[index].max(heights[index - 1] + LINE);
    }
    let mut floor = lowest;
    for height in heights.iter_mut().rev() {
        *height = height.min(floor);
        floor = *height - LINE;
    }
    for ((series, end), y) in names.into_iter().zip(heights) {
        canvas.line("leader", (end.0 + 5.0, end.1), (right + 20.0, y));
        let class = if series.is_ours() { "ours" } else { "" };
        let last = series.points.last().map_or(0.0, |point| point.ratio);
        let words = format!("{} {last:.2}", series.words);
        canvas.text(right + 24.0, y + 4.0, class, Anchor::Start, &words);
    }
}
