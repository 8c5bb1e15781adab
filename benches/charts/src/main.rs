//! Draws the charts of `docs` from the figures in `docs/dev/results`.
//!
//! - `cargo run -p charts` draws every chart whose figures are there
//! - `cargo run -p charts -- --check` fails if one of them is not what its figures give

mod canvas;
mod cost;
mod figures;
mod latency;
mod rate;

use std::{env, error::Error, fs, path::Path};

use figures::Figures;

/// Of a whole command: it ends the process.
type Failure = Box<dyn Error>;

type Draw = fn(&Figures<'_>) -> Result<String, Failure>;

/// Figures, picture, and who draws it.
const CHARTS: [(&str, &str, Draw); 3] = [
    ("dev/results/tasks.csv", "cost.svg", cost::draw),
    ("dev/results/http.csv", "dev/latency.svg", latency::draw),
    ("dev/results/rate.csv", "dev/rate.svg", rate::draw),
];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let check = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => return Err("the only argument is --check".into()),
    };
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (figures, picture, draw) in CHARTS {
        let (source, drawn) = (docs.join(figures), docs.join(picture));
        if !source.exists() {
            if drawn.exists() {
                return Err(format!("{picture} has no figures: {figures} is missing").into());
            }
            println!("{figures} is missing: no {picture}");
            continue;
        }
        let text = fs::read_to_string(source)?;
        let chart = Figures::read(&text).and_then(|figures| draw(&figures));
        let chart = chart.map_err(|error| format!("{figures}: {error}"))?;
        if !check {
            fs::write(&drawn, chart)?;
            println!("{picture} from {figures}");
        } else if fs::read_to_string(&drawn).unwrap_or_default() != chart {
            return Err(
                format!("{picture} is not what {figures} gives: cargo run -p charts").into(),
            );
        }
    }
    Ok(())
}
