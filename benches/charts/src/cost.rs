//! What the tasks of a request cost by how many they are, as a share of what as many spawns cost: lines, on one axis.

use crate::{
    Failure,
    canvas::{Anchor, Canvas, MARGIN},
    figures::Figures,
};

/// Name in the file, words, class of what is drawn. The others that were measured are in `docs/dev/benchmarks.md`.
const CANDIDATES: [(&str, &str, &str); 4] = [
    ("TaskTracker", "TaskTracker", ""),
    ("spawn", "tokio::spawn", "base"),
    ("join!", "join! in one spawn", "dashed"),
    ("after", "after::defer", "ours"),
];

const RUNTIME: &str = "tokio_current_thread";

/// As many as requests have.
const MOST: f64 = 16.0;
/// Where the numbers stand at our line.
const LABELLED: [f64; 2] = [1.0, 3.0];

/// So that the letters can be read where the page is 400 pixels wide.
const WIDTH: f64 = 600.0;

const TOP: f64 = 126.0;
const HEIGHT: f64 = 280.0;
const AXIS: f64 = 34.0;
/// For the names behind the lines.
const NAMES: f64 = 158.0;
const LINE: f64 = 18.0;
/// Of the axis: twice the time of the spawns.
const END: f64 = 2.0;

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
    let mut lines = Vec::new();
    for (name, words, class) in CANDIDATES {
        lines.push(series(figures, name, words, class)?);
    }
    // Figures that were recorded before it was measured are without.
    lines.extend(series(figures, "by hand", "written by hand", "dashed").ok());
    let mut description = String::from(
        "Lines of the time that a request's tasks take, as a share of the time of as many calls of tokio::spawn, by the \
         number of tasks.",
    );
    for series in &lines {
        let told = series.points.iter();
        let told = told.map(|point| format!("{} tasks {:.2}", point.tasks, point.ratio));
        let told = told.collect::<Vec<_>>().join(", ");
        description.push_str(&format!(" {}: {told}.", series.words));
    }
    let mut canvas = Canvas::new(
        WIDTH,
        TOP + HEIGHT + 60.0,
        "Cost of a request's tasks, relative to tokio::spawn",
        &[
            "One thread, one request at a time, tasks that do next to nothing: what is left is the",
            "cost of deferring and running them. Below 1 is cheaper. Medians of several processes.",
        ],
        &description,
    );
    plot(&mut canvas, &lines);
    Ok(canvas.finish())
}

fn series(
    figures: &Figures<'_>,
    name: &str,
    words: &'static str,
    class: &'static str,
) -> Result<Series, Failure> {
    let mut points = Vec::new();
    for row in figures.rows() {
        if row.text("bench")? == "tasks"
            && row.text("runtime")? == RUNTIME
            && row.text("mode")? == "none"
            && row.text("candidate")? == name
            && row.number("tasks")? <= MOST
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
        return Err(format!("{name} is missing on {RUNTIME}").into());
    }
    Ok(Series {
        words,
        class,
        points,
    })
}

fn plot(canvas: &mut Canvas, series: &[Series]) {
    let (left, right) = (MARGIN + AXIS, WIDTH - MARGIN - NAMES);
    let bottom = TOP + HEIGHT;
    let across = |tasks: f64| left + 12.0 + (right - left - 12.0) * (tasks - 1.0) / (MOST - 1.0);
    let up = |ratio: f64| bottom - HEIGHT * ratio / END;

    canvas.text(
        MARGIN,
        TOP - 16.0,
        "quiet",
        Anchor::Start,
        "\u{d7} the time of as many tokio::spawn",
    );
    for tick in [0.0, 0.5, 1.0, 1.5, 2.0] {
        let class = if tick == 0.0 { "axis" } else { "grid" };
        canvas.line(class, (left, up(tick)), (right, up(tick)));
        let words = format!("{tick:.1}\u{d7}");
        canvas.text(left - 8.0, up(tick) + 5.0, "quiet", Anchor::End, &words);
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let mut numbers: Vec<f64> = points().map(|point| point.tasks).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    for tasks in numbers {
        let x = across(tasks);
        canvas.line("axis", (x, bottom), (x, bottom + 5.0));
        canvas.text(
            x,
            bottom + 21.0,
            "quiet",
            Anchor::Middle,
            &tasks.to_string(),
        );
    }
    let middle = (left + right) / 2.0;
    canvas.text(
        middle,
        bottom + 42.0,
        "quiet",
        Anchor::Middle,
        "tasks per request",
    );

    let mut names = Vec::new();
    for series in series {
        let class = series.class;
        let radius = if series.is_ours() { 4.5 } else { 3.0 };
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
            if series.is_ours() && LABELLED.contains(&point.tasks) {
                let (x, y) = (place.0 + 10.0, place.1 - 8.0);
                let words = format!("{:.2}\u{d7}", point.ratio);
                canvas.text(x, y, "ours", Anchor::Start, &words);
            }
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
