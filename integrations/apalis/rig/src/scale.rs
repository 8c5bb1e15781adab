//! Jobs a second, enqueued and worked off, with apalis alone beside it: what this crate costs.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use after_apalis::Jobs;
use apalis_core::{backend::TaskSink, task::builder::TaskBuilder, worker::builder::WorkerBuilder};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    Error,
    chaos::{postgres_database, redis_database},
    cost::{BEGIN, END, quantile, sorted},
    job::Receipt,
};

/// So many connections enqueue at once.
const PRODUCERS: u64 = 8;

pub(crate) async fn run(words: &[&str]) -> Result<(), Error> {
    let (jobs, rounds) = options(words, 20_000, 3)?;
    println!(
        "{jobs} jobs (Redis: at most 5,000), the median of {rounds} rounds, jobs a second. Enqueued: one a transaction (Postgres), {PRODUCERS} at \
         once.\n"
    );
    println!(
        "{:<10}{:<10}{:>10}{:>14}{:>14}{:>14}",
        "store", "", "enqueued", "1 process", "2 processes", "4 processes"
    );
    for store in ["postgres", "redis"] {
        // Of more than 8,000 that are due, apalis' own fetch on Redis fails.
        let jobs = if store == "redis" {
            jobs.min(5_000)
        } else {
            jobs
        };
        // In turns, so that whatever else the machine does hits both.
        let mut figures = [vec![Vec::new(); 4], vec![Vec::new(); 4]];
        for _ in 0..rounds {
            for (at, processes) in [1, 2, 4].into_iter().enumerate() {
                for (which, kind) in ["apalis", "after"].into_iter().enumerate() {
                    let url = database(store).await?;
                    let (enqueued, done) = round(store, kind, &url, jobs, processes).await?;
                    figures[which][0].push(enqueued);
                    figures[which][at + 1].push(done);
                }
            }
        }
        for (which, kind) in ["apalis", "after"].into_iter().enumerate() {
            let mut line = format!("{store:<10}{kind:<10}");
            for (at, column) in figures[which].iter().enumerate() {
                let median = quantile(&sorted(column.clone()), 2);
                let width = if at == 0 { 10 } else { 14 };
                line.push_str(&format!("{median:>width$.0}"));
            }
            println!("{line}");
        }
    }
    Ok(())
}

/// The numbers of jobs and of rounds: from the command line, or these.
pub(crate) fn options(words: &[&str], jobs: u64, rounds: u64) -> Result<(u64, u64), Error> {
    let (mut jobs, mut rounds) = (jobs, rounds);
    for pair in words.chunks(2) {
        match pair {
            ["--jobs", number] => jobs = number.parse()?,
            ["--rounds", number] => rounds = number.parse()?,
            other => return Err(format!("what is {other:?}?").into()),
        }
    }
    Ok((jobs, rounds))
}

/// A process of `worker`.
pub(crate) fn process(kind: &str, store: &str, url: &str) -> Result<Command, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["scale-worker", &format!("{kind}-{store}"), url])
        .kill_on_drop(true);
    Ok(command)
}

async fn round(
    store: &str,
    kind: &'static str,
    url: &str,
    number: u64,
    processes: usize,
) -> Result<(f64, f64), Error> {
    let jobs = Jobs::connect(url).await?;
    tables(&jobs).await?;
    let begin = Instant::now();
    enqueue_all(&jobs, store, kind, number).await?;
    let enqueued = number as f64 / begin.elapsed().as_secs_f64();

    let children = (0..processes).map(|_| {
        let child = process(kind, store, url)?.stdout(Stdio::null()).spawn()?;
        Ok::<_, Error>(child)
    });
    let children: Vec<Child> = children.collect::<Result<_, _>>()?;
    // Without the start of the processes.
    let mut first = None::<(Instant, u64)>;
    let limit = Instant::now() + Duration::from_secs(120);
    let done = loop {
        sleep(Duration::from_millis(20)).await;
        let done = jobs.counts::<Receipt>().await?.done;
        if first.is_none() && done > number / 10 {
            first = Some((Instant::now(), done));
        }
        if done >= number {
            let (begin, before) = first.unwrap_or((Instant::now(), 0));
            break (done - before) as f64 / begin.elapsed().as_secs_f64();
        }
        if Instant::now() > limit {
            return Err(format!("{kind} on {store}: {done} of {number} done after 120 s").into());
        }
    };
    drop(children);
    Ok((enqueued, done))
}

/// An empty one.
pub(crate) async fn database(store: &str) -> Result<String, Error> {
    match store {
        "postgres" => postgres_database("rig_scale").await,
        _ => redis_database(201).await,
    }
}

pub(crate) async fn tables(jobs: &Jobs) -> Result<(), Error> {
    if let Some(pool) = jobs.postgres() {
        sqlx::query("CREATE TABLE orders (number BIGINT PRIMARY KEY)")
            .execute(pool)
            .await?;
    }
    Ok(())
}

pub(crate) async fn enqueue_all(
    jobs: &Jobs,
    store: &str,
    kind: &'static str,
    number: u64,
) -> Result<(), Error> {
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let jobs = jobs.clone();
            let postgres = store == "postgres";
            tokio::spawn(async move {
                for order in (producer..number).step_by(PRODUCERS as usize) {
                    enqueue(&jobs, kind, postgres, order).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for producer in producers {
        producer.await??;
    }
    Ok(())
}

async fn enqueue(jobs: &Jobs, kind: &str, postgres: bool, order: u64) -> Result<(), Error> {
    let receipt = Receipt { order };
    if postgres {
        let pool = jobs.postgres().ok_or("on Postgres")?;
        let mut tx = pool.begin().await?;
        sqlx::query("INSERT INTO orders (number) VALUES ($1)")
            .bind(order as i64)
            .execute(&mut *tx)
            .await?;
        if kind == "after" {
            let _ = jobs.enqueue(&mut *tx, receipt).await?;
        } else {
            let task = TaskBuilder::new(serde_json::to_vec(&receipt)?).build();
            apalis_postgres::queries::push_tasks(&mut *tx, "receipt", vec![task]).await?;
        }
        tx.commit().await?;
    } else if kind == "after" {
        let _ = jobs.push(receipt).await?;
    } else {
        let connection = jobs.redis().ok_or("on Redis")?;
        let config = apalis_redis::Config::default().queue("receipt");
        let mut storage =
            apalis_redis::RedisStorage::<Receipt>::new(connection).with_config(config);
        storage.push(receipt).await?;
    }
    Ok(())
}

/// A process that works off: `apalis` with a backend of its own, as its documentation shows, or `after` with defaults. Of so
/// many jobs it says when it has had a tenth, and when all.
pub(crate) async fn worker(kind: &str, url: &str, jobs: Option<u64>) -> Result<(), Error> {
    let handled = Arc::new(AtomicU64::new(0));
    let nothing = move |_: Receipt| {
        let handled = handled.fetch_add(1, Ordering::Relaxed) + 1;
        if Some(handled) == jobs.map(|jobs| jobs / 10) {
            println!("{BEGIN}");
        } else if Some(handled) == jobs {
            println!("{END}");
        }
        async { Ok::<_, std::io::Error>(()) }
    };
    let name = format!("scale-{}", std::process::id());
    match kind {
        "apalis-postgres" => {
            let pool = sqlx::PgPool::connect(url).await?;
            let config = apalis_postgres::Config::default().queue("receipt");
            let backend = apalis_postgres::PostgresStorage::<Receipt>::new(&pool)
                .with_config(config)
                .with_pubsub();
            let worker = WorkerBuilder::new(name.as_str()).backend(backend);
            worker.build(nothing).run().await?;
        }
        "apalis-redis" => {
            let connection = apalis_redis::connect(url).await?;
            let config = apalis_redis::Config::default().queue("receipt");
            let backend =
                apalis_redis::RedisStorage::<Receipt>::new(connection).with_config(config);
            let worker = WorkerBuilder::new(name.as_str()).backend(backend);
            worker.build(nothing).run().await?;
        }
        _ => {
            let mut term = signal(SignalKind::terminate())?;
            let jobs = Jobs::connect(url).await?;
            let worker = jobs.worker().handle(nothing).start().await?;
            term.recv().await;
            worker.shutdown(Duration::from_secs(5)).await;
        }
    }
    Ok(())
}
