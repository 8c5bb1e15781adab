//! What this crate costs beside apalis alone, in time of the processor: how long the machine makes a process wait doesn't
//! count, so other work on it spoils the figures far less than it does those of jobs a second.

use std::{collections::HashMap, fs, process::Stdio};

use after_apalis::Jobs;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
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
    let (jobs, rounds) = scale::options(words, 5_000, 7)?;
    println!(
        "Processor time a job, µs: {jobs} jobs, one worker process, {rounds} rounds in turns. Medians; \
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

pub(crate) fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

pub(crate) fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    sorted[(sorted.len() - 1) * quarters / 4]
}

/// In the order of `ROWS`.
async fn one(store: &str, kind: &'static str, number: u64) -> Result<[f64; ROWS.len()], Error> {
    let url = scale::database(store).await?;
    let jobs = Jobs::connect(&url).await?;
    let server = Server::of(&jobs).await?;
    let here = std::process::id();
    scale::tables(&jobs).await?;

    let before = (Spent::by(here)?, server.spent()?);
    scale::enqueue_all(&jobs, store, kind, number).await?;
    let enqueued = (
        Spent::by(here)?.since(&before.0),
        server.spent()?.since(&before.1),
    );

    let mut child = scale::process(kind, store, &url)?
        .arg(number.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let worker = child.id().ok_or("it runs")?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("its output")?).lines();
    let mut at = Vec::new();
    for wanted in [BEGIN, END] {
        let line = timeout(Duration::from_secs(120), lines.next_line()).await;
        let line = line.map_err(|_| format!("{kind} on {store}: no {wanted} after 120 s"))??;
        if line.as_deref() != Some(wanted) {
            return Err(format!("{kind} on {store}: {line:?} instead of {wanted}").into());
        }
        at.push((Spent::by(worker)?, server.spent()?));
    }
    child.kill().await?;

    let worked = number - number / 10;
    let figures = [
        enqueued.0 / number as f64,
        enqueued.1 / number as f64,
        at[1].0.since(&at[0].0) / worked as f64,
        at[1].1.since(&at[0].1) / worked as f64,
    ];
    let [a, b, c, d] = figures.map(|nanoseconds| nanoseconds / 1e3);
    Ok([a, b, c, d, a + b + c + d])
}

/// The database's first process: its others are children of it.
struct Server(u32);

impl Server {
    async fn of(jobs: &Jobs) -> Result<Server, Error> {
        if let Some(pool) = jobs.postgres() {
            let query = sqlx::query_scalar("SELECT pg_backend_pid()");
            let connection: i32 = query.fetch_one(pool).await?;
            return Ok(Server(parent(connection as u32)?));
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

    fn spent(&self) -> Result<Spent, Error> {
        let mut spent = Spent::by(self.0)?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Whoever has ended meanwhile is none of them.
            if let Ok(parent) = parent(id)
                && parent == self.0
                && let Ok(child) = Spent::by(id)
            {
                spent.0.extend(child.0);
            }
        }
        Ok(spent)
    }
}

/// Nanoseconds on a processor, by thread. (The times in `stat` are hundredths of a second: too coarse.)
struct Spent(HashMap<String, f64>);

impl Spent {
    fn by(process: u32) -> Result<Spent, Error> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{process}/task"))? {
            let entry = entry?;
            if let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) {
                let spent = text.split(' ').next().unwrap_or_default().parse()?;
                threads.insert(entry.file_name().to_string_lossy().into_owned(), spent);
            }
        }
        Ok(Spent(threads))
    }

    /// By those that live now. Connections and workers' threads live throughout; what else ends (a vacuum) is no part of a
    /// job.
    fn since(&self, before: &Spent) -> f64 {
        let threads = self.0.iter();
        threads
            .map(|(thread, spent)| spent - before.0.get(thread).unwrap_or(&0.0))
            .sum()
    }
}

fn parent(process: u32) -> Result<u32, Error> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which may have anything in it: the state, the parent.
    let (_, fields) = text.rsplit_once(')').ok_or("not a stat")?;
    let parent = fields.split_whitespace().nth(1).ok_or("not a stat")?;
    Ok(parent.parse()?)
}
