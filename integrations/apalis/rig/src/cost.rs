//! What this crate costs beside apalis alone, in time of the processor: how long the machine makes a process wait doesn't
//! count, so other work on it spoils the figures far less than it does those of jobs a second.

use std::{fs, process::Stdio};

use after_apalis::Jobs;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Duration, timeout},
};

use crate::{Error, scale};

/// Of each job, the begin (without starting up: after a tenth of the jobs) and the end, as the worker prints them.
pub(crate) const BEGIN: &str = "begin";
pub(crate) const END: &str = "end";

/// What is measured, as rows of the table.
const ROWS: [&str; 5] = [
    "enqueue: the producer",
    "enqueue: the database",
    "work off: the worker",
    "work off: the database",
    "all",
];

pub(crate) async fn run(words: &[&str]) -> Result<(), Error> {
    let mut jobs = 5_000;
    let mut rounds = 7;
    for pair in words.chunks(2) {
        match pair {
            ["--jobs", number] => jobs = number.parse()?,
            ["--rounds", number] => rounds = number.parse()?,
            other => return Err(format!("what is {other:?}?").into()),
        }
    }
    println!(
        "Processor time (user and system) a job, µs: {jobs} jobs, one worker process, {rounds} rounds in turns. Medians; \
         the ratio is the median of the rounds' own, with its quartiles.\n"
    );
    println!(
        "{:<10}{:<26}{:>10}{:>14}{:>8}   quartiles",
        "store", "", "apalis", "after-apalis", "ratio"
    );
    for store in ["postgres", "redis"] {
        let mut figures: [Vec<[f64; ROWS.len()]>; 2] = Default::default();
        for round in 0..rounds {
            let mut kinds = [(0, "apalis"), (1, "after")];
            // Each goes first as often as the other.
            if round % 2 == 1 {
                kinds.reverse();
            }
            for (which, kind) in kinds {
                figures[which].push(one(store, kind, jobs).await?);
            }
        }
        for (row, name) in ROWS.iter().enumerate() {
            let column =
                |which: usize| sorted(figures[which].iter().map(|figures| figures[row]).collect());
            let ratios = figures[0].iter().zip(&figures[1]);
            let ratios = sorted(ratios.map(|(raw, ours)| ours[row] / raw[row]).collect());
            println!(
                "{store:<10}{name:<26}{:>10.1}{:>14.1}{:>8.2}   {:.2} to {:.2}",
                quantile(&column(0), 2),
                quantile(&column(1), 2),
                quantile(&ratios, 2),
                quantile(&ratios, 1),
                quantile(&ratios, 3)
            );
        }
    }
    Ok(())
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    sorted[(sorted.len() - 1) * quarters / 4]
}

/// In the order of `ROWS`.
async fn one(store: &str, kind: &'static str, number: u64) -> Result<[f64; ROWS.len()], Error> {
    let url = scale::database(store).await?;
    let jobs = Jobs::connect(&url).await?;
    let server = Server::of(&jobs).await?;
    let here = std::process::id();
    scale::tables(&jobs).await?;

    let before = (of_process(here)?, server.spent()?);
    scale::enqueue_all(&jobs, store, kind, number).await?;
    let enqueued = (of_process(here)? - before.0, server.spent()? - before.1);

    let mut child = Command::new(std::env::current_exe()?)
        .args(["scale-worker", &format!("{kind}-{store}"), &url])
        .arg(number.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let worker = child.id().ok_or("it runs")?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("its output")?).lines();
    let mut at = [(0.0, 0.0); 2];
    for (at, wanted) in at.iter_mut().zip([BEGIN, END]) {
        let line = timeout(Duration::from_secs(120), lines.next_line()).await;
        let line = line.map_err(|_| format!("{kind} on {store}: no {wanted} after 120 s"))??;
        if line.as_deref() != Some(wanted) {
            return Err(format!("{kind} on {store}: {line:?} instead of {wanted}").into());
        }
        *at = (of_process(worker)?, server.spent()?);
    }
    child.kill().await?;

    let worked = number - number / 10;
    let figures = [
        enqueued.0 / number as f64,
        enqueued.1 / number as f64,
        (at[1].0 - at[0].0) / worked as f64,
        (at[1].1 - at[0].1) / worked as f64,
    ];
    let [a, b, c, d] = figures.map(|seconds| seconds * 1e6);
    Ok([a, b, c, d, a + b + c + d])
}

/// The database's first process: its others are children of it.
struct Server(u32);

impl Server {
    async fn of(jobs: &Jobs) -> Result<Server, Error> {
        if let Some(pool) = jobs.postgres() {
            let query = sqlx::query_scalar("SELECT pg_backend_pid()");
            let connection: i32 = query.fetch_one(pool).await?;
            let parent = stat(connection as u32)?[1].parse()?;
            return Ok(Server(parent));
        }
        let mut connection = jobs.redis().ok_or("on Redis")?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        let id = info
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"));
        Ok(Server(id.ok_or("no process_id")?.trim().parse()?))
    }

    /// Its own, that of the children that have ended, and that of those that live.
    fn spent(&self) -> Result<f64, Error> {
        let mut ticks = ticks(&stat(self.0)?, 11..15)?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has ended meanwhile is its parent's.
            if let Ok(fields) = stat(id)
                && fields[1] == self.0.to_string()
            {
                ticks += self::ticks(&fields, 11..15)?;
            }
        }
        Ok(ticks / TICKS)
    }
}

/// Of Linux, for whoever reads `/proc`, on every architecture that matters.
const TICKS: f64 = 100.0;

fn of_process(id: u32) -> Result<f64, Error> {
    Ok(ticks(&stat(id)?, 11..13)? / TICKS)
}

fn ticks(fields: &[String], which: std::ops::Range<usize>) -> Result<f64, Error> {
    let mut all = 0.0;
    for field in &fields[which] {
        all += field.parse::<f64>()?;
    }
    Ok(all)
}

/// The fields from the third on: state, parent, .. , utime and stime (11 and 12), those of waited children (13 and 14). The
/// second, the name, may have anything in it.
fn stat(id: u32) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = text.rsplit_once(')').ok_or("not a stat")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}
