//! The result files: a sheet of comma-separated values each, and the tables as Markdown.

use std::{
    env, fmt::Write as _, fs, path::PathBuf, process::Command, thread::available_parallelism,
};

/// One file: what its figures are, and what its ratios are to.
#[derive(Clone, Copy)]
pub struct Sheet {
    pub name: &'static str,
    /// The heading of the values: `median_ns`, say.
    pub value: &'static str,
    /// The heading of the ratios: `ratio_to_spawn`, say.
    pub ratio: &'static str,
}

/// What stands in one row, but for the candidates.
#[derive(Clone, PartialEq)]
pub struct Key {
    pub sheet: String,
    pub runtime: String,
    pub tasks: u64,
    pub wakes: u32,
    pub mode: String,
}

impl Key {
    pub fn new(sheet: Sheet, runtime: &str, tasks: u64, wakes: u32, mode: &str) -> Self {
        Key {
            sheet: sheet.name.into(),
            runtime: runtime.into(),
            tasks,
            wakes,
            mode: mode.into(),
        }
    }
}

/// A candidate's figure: medians over the processes, and the range of the ratio.
#[derive(Clone)]
pub struct Figure {
    pub key: Key,
    pub candidate: String,
    pub value: f64,
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
}

/// Writes `<sheet>.csv` for each sheet, and `<name>.md`.
pub fn write(
    name: &str,
    sheets: &[Sheet],
    figures: &[Figure],
    tables: &str,
    processes: usize,
    load: &str,
) {
    let folder = folder();
    fs::create_dir_all(&folder).expect("the folder of the results can be made");
    let cores = available_parallelism().map_or(0, usize::from);
    let compiler = compiler();
    for sheet in sheets {
        let Sheet { name, value, ratio } = sheet;
        let mut text = format!(
            "bench,runtime,tasks,wakes,mode,candidate,{value},{ratio},low,high,processes,cores,rustc,load\n"
        );
        for figure in figures.iter().filter(|figure| figure.key.sheet == *name) {
            let Key {
                sheet,
                runtime,
                tasks,
                wakes,
                mode,
            } = &figure.key;
            let Figure {
                candidate,
                value,
                ratio,
                low,
                high,
                ..
            } = figure;
            writeln!(
                text,
                "{sheet},{runtime},{tasks},{wakes},{mode},{candidate},{value:.2},{ratio:.4},{low:.4},{high:.4},\
                 {processes},{cores},{compiler},{load}"
            )
            .expect("a string takes all");
        }
        fs::write(folder.join(format!("{name}.csv")), text).expect("a result can be written");
    }
    fs::write(folder.join(format!("{name}.md")), tables).expect("the tables can be written");
}

/// `AFTER_RESULTS`, or `bench-results` in the target folder, where this program is.
fn folder() -> PathBuf {
    match env::var_os("AFTER_RESULTS") {
        Some(folder) => folder.into(),
        None => {
            let program = env::current_exe().expect("this program has a path");
            // target/release/deps/program
            let target = program.ancestors().nth(3).expect("a target folder");
            target.join("bench-results")
        }
    }
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = version.unwrap_or_default();
    let version = version.split_whitespace().nth(1);
    version.unwrap_or("unknown").replace(',', " ")
}

/// How busy the machine is, if it says so: the average of a minute.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("").into()
}
