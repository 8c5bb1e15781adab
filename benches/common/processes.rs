//! A benchmark's `main`: runs itself several times, gathers what the processes report, and writes it.

use std::{env, path::PathBuf, process::Command};

use super::{
    median::median,
    quick,
    results::{self, Figure, Key, Sheet},
};

/// How many processes measure.
pub fn processes() -> usize {
    if quick() { 1 } else { 7 }
}

/// Runs `measure` in several processes and writes the sheets; prints the tables that `tables` makes of the figures, and
/// writes them beside the sheets.
pub fn run(name: &str, sheets: &[Sheet], measure: fn(), tables: fn(&[Figure]) -> String) {
    if env::args().any(|argument| argument == "--child") {
        return measure();
    }
    let load = results::load();
    let mut figures: Vec<(Key, String, Vec<f64>, Vec<f64>)> = Vec::new();
    for process in 1..=processes() {
        eprintln!("{name}: process {process} of {}", processes());
        let program = program(name, process);
        let output = Command::new(&program).arg("--child").output();
        let output =
            output.unwrap_or_else(|error| panic!("{} can't run: {error}", program.display()));
        assert!(output.status.success(), "a process failed: {output:?}");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (key, candidate, value, ratio) = parse(line);
            let known = figures
                .iter_mut()
                .find(|(of, who, ..)| *of == key && *who == candidate);
            match known {
                Some((_, _, values, ratios)) => {
                    values.push(value);
                    ratios.push(ratio);
                }
                None => figures.push((key, candidate, vec![value], vec![ratio])),
            }
        }
    }
    let figures: Vec<Figure> = figures
        .into_iter()
        .map(|(key, candidate, values, ratios)| Figure {
            key,
            candidate,
            value: median(values),
            low: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            high: ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ratio: median(ratios),
        })
        .collect();
    let tables = tables(&figures);
    results::write(name, sheets, &figures, &tables, processes(), &load);
    println!("{tables}");
}

/// What measures in this process: this program, or, with `AFTER_LAYOUTS`, one that `benches/layouts.sh` has put there.
fn program(name: &str, process: usize) -> PathBuf {
    match env::var_os("AFTER_LAYOUTS") {
        Some(folder) => PathBuf::from(folder).join(format!("{name}.{process}")),
        None => env::current_exe().expect("this program has a path"),
    }
}

/// Tells the parent process a figure.
pub fn emit(key: &Key, candidate: &str, value: f64, ratio: f64) {
    let Key {
        sheet,
        runtime,
        tasks,
        wakes,
        mode,
    } = key;
    println!("{sheet}\t{runtime}\t{tasks}\t{wakes}\t{mode}\t{candidate}\t{value}\t{ratio}");
}

fn parse(line: &str) -> (Key, String, f64, f64) {
    let fields: Vec<&str> = line.split('\t').collect();
    let [sheet, runtime, tasks, wakes, mode, candidate, value, ratio] = fields[..] else {
        panic!("not a figure: {line}");
    };
    let key = Key {
        sheet: sheet.into(),
        runtime: runtime.into(),
        tasks: tasks.parse().expect("a number of tasks"),
        wakes: wakes.parse().expect("a number of wakes"),
        mode: mode.into(),
    };
    let value = value.parse().expect("a value");
    (
        key,
        candidate.into(),
        value,
        ratio.parse().expect("a ratio"),
    )
}
