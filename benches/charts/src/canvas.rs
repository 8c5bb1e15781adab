//! What all charts have in common: paper, colours, letters.
//!
//! A chart has a background and colours for light and for dark surroundings, by a media query: it is readable where a
//! page shows it with the colours of the other. Nothing is told by colour alone.

use svg::node::element::{Circle, Description, Line, Path, Rectangle, SVG, Style, Text, Title};

pub(crate) const WIDTH: f64 = 880.0;
/// Of the paper.
pub(crate) const MARGIN: f64 = 24.0;

const STYLE: &str = "
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif; fill: #1f2328; }
.heading { font-size: 17px; font-weight: 600; }
.panel { font-size: 13px; font-weight: 600; }
.quiet { fill: #59636e; }
.ours { font-weight: 700; }
.paper { fill: #ffffff; stroke: #d1d9e0; }
.grid { stroke: #d8dee4; }
.axis { stroke: #818b98; }
.range { stroke: #1f2328; stroke-width: 1.5; }
.leader { stroke: #818b98; stroke-width: 0.75; }
.bar { fill: #9aa4af; }
.bar.ours { fill: #0b61c9; }
.line { fill: none; stroke: #818b98; stroke-width: 1.5; }
.line.dashed { stroke-dasharray: 5 3; }
.line.base { stroke: #1f2328; stroke-width: 3; }
.line.ours { stroke: #0b61c9; stroke-width: 3; }
.dot { fill: #818b98; }
.dot.base { fill: #1f2328; }
.dot.ours { fill: #0b61c9; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.quiet { fill: #9ea7b3; }
.paper { fill: #0d1117; stroke: #3d444d; }
.grid { stroke: #262c36; }
.axis { stroke: #7d8590; }
.range { stroke: #e6edf3; }
.leader { stroke: #7d8590; }
.bar { fill: #656d76; }
.bar.ours { fill: #58a6ff; }
.line { stroke: #7d8590; }
.line.base { stroke: #e6edf3; }
.line.ours { stroke: #58a6ff; }
.dot { fill: #7d8590; }
.dot.base { fill: #e6edf3; }
.dot.ours { fill: #58a6ff; }
}
";

pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

pub(crate) struct Canvas {
    svg: SVG,
}

impl Canvas {
    /// `lines` are printed under the title. `description` is read out to those who don't see the chart.
    pub(crate) fn new(
        width: f64,
        height: f64,
        title: &str,
        lines: &[&str],
        description: &str,
    ) -> Self {
        let paper = Rectangle::new()
            .set("class", "paper")
            .set("x", 0.5)
            .set("y", 0.5)
            .set("width", width - 1.0)
            .set("height", height - 1.0)
            .set("rx", 6);
        let svg = SVG::new()
            .set("viewBox", (0, 0, width, height))
            .set("width", width)
            .set("height", height)
            .set("role", "img")
            .set("aria-labelledby", "title description")
            .add(Title::new(title).set("id", "title"))
            .add(
                Description::new()
                    .set("id", "description")
                    .add(svg::node::Text::new(description)),
            )
            .add(Style::new(STYLE))
            .add(paper);
        let mut canvas = Canvas { svg };
        canvas.text(MARGIN, 32.0, "heading", Anchor::Start, title);
        for (line, y) in lines.iter().zip([53.0, 70.0, 87.0]) {
            canvas.text(MARGIN, y, "quiet", Anchor::Start, line);
        }
        canvas
    }

    /// `y` is the base line of the letters.
    pub(crate) fn text(&mut self, x: f64, y: f64, class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = Text::new(text)
            .set("class", class)
            .set("text-anchor", anchor)
            .set("x", tenth(x))
            .set("y", tenth(y));
        self.add(text);
    }

    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let line = Line::new()
            .set("class", class)
            .set("x1", tenth(from.0))
            .set("y1", tenth(from.1))
            .set("x2", tenth(to.0))
            .set("y2", tenth(to.1));
        self.add(line);
    }

    pub(crate) fn bar(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let bar = Rectangle::new()
            .set("class", class)
            .set("x", tenth(x))
            .set("y", tenth(y))
            .set("width", tenth(width))
            .set("height", tenth(height));
        self.add(bar);
    }

    /// Lines from point to point.
    pub(crate) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut data = String::new();
        for (x, y) in points {
            let command = if data.is_empty() { 'M' } else { 'L' };
            data.push_str(&format!("{command}{:.1} {:.1} ", x, y));
        }
        self.add(Path::new().set("class", class).set("d", data.trim_end()));
    }

    pub(crate) fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let dot = Circle::new()
            .set("class", class)
            .set("cx", tenth(x))
            .set("cy", tenth(y))
            .set("r", radius);
        self.add(dot);
    }

    fn add(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        svg::Node::append(&mut self.svg, node);
    }

    pub(crate) fn finish(self) -> String {
        format!("{}\n", self.svg)
    }
}

/// To a tenth of a pixel: the file stays small, and the same on every machine.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The step of an axis up to `end` with about so many steps: 1, 2 or 5, and zeros.
pub(crate) fn step(end: f64, steps: f64) -> f64 {
    let rough = end / steps;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}
