//! How soon a job starts, and how soon one starts again whose process was killed: with the settings as they come.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use after_apalis::Jobs;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::mpsc,
    time::sleep,
};

use crate::{
    Error,
    chaos::{postgres_database, redis_database},
    job::Receipt,
};

pub(crate) async fn run() -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let urls = [
        (
            "sqlite",
            format!("sqlite:{}", folder.path().join("jobs.db").display()),
        ),
        ("postgres", postgres_database("rig_measure").await?),
        ("redis", redis_database(202).await?),
    ];
    println!(
        "From the commit (Redis: the push) to the start of the job, 300 jobs one after the other, ms:\n"
    );
    println!(
        "{:<10}{:<28}{:>8}{:>8}{:>8}",
        "store", "enqueued by", "median", "99 %", "longest"
    );
    for (store, url) in &urls {
        for (who, elsewhere) in [("the worker's process", false), ("another process", true)] {
            let mut waits = latency(url, elsewhere).await?;
            waits.sort();
            let ms = |at: usize| waits[at].as_secs_f64() * 1000.0;
            println!(
                "{store:<10}{who:<28}{:>8.1}{:>8.1}{:>8.1}",
                ms(waits.len() / 2),
                ms(waits.len() * 99 / 100),
                ms(waits.len() - 1)
            );
        }
    }
    println!(
        "\nFrom SIGKILL in the middle of a job to its next start by another worker, heartbeats of 5 s x 3, s:\n"
    );
    let rounds: Vec<_> = urls
        .into_iter()
        .map(|(store, url)| {
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for _ in 0..5 {
                    waits.push(recovery(&url).await?.as_secs_f64());
                }
                Ok::<_, Error>((store, waits))
            })
        })
        .collect();
    for round in rounds {
        let (store, waits) = round.await??;
        let waits: Vec<String> = waits.iter().map(|wait| format!("{wait:.1}")).collect();
        println!("{store:<10}{}", waits.join("  "));
    }
    Ok(())
}

async fn latency(url: &str, elsewhere: bool) -> Result<Vec<Duration>, Error> {
    let jobs = Jobs::connect(url).await?;
    // A connection of its own knows no more of the worker than another process would.
    let here = if elsewhere {
        Jobs::connect(url).await?
    } else {
        jobs.clone()
    };
    let (sender, mut started) = mpsc::unbounded_channel();
    let worker = jobs
        .worker()
        .handle(move |_: Receipt| {
            let _ = sender.send(Instant::now());
            async {}
        })
        .start()
        .await?;
    sleep(Duration::from_secs(1)).await;
    let mut waits = Vec::new();
    for order in 0..300 {
        // Longer than a worker on SQLite looks out for a commit after an enqueue, once in a while; and not in step.
        sleep(Duration::from_millis(fastrand::u64(5..25))).await;
        let receipt = Receipt { order };
        macro_rules! committed {
            ($pool:expr) => {{
                let mut tx = $pool.begin().await?;
                let _ = here.enqueue(&mut *tx, receipt).await?;
                tx.commit().await?;
            }};
        }
        if let Some(pool) = here.sqlite() {
            committed!(pool);
        } else if let Some(pool) = here.postgres() {
            committed!(pool);
        } else {
            let _ = here.push(receipt).await?;
        }
        let committed = Instant::now();
        let started = started.recv().await.ok_or("the worker has gone")?;
        waits.push(started.saturating_duration_since(committed));
    }
    worker.shutdown(Duration::from_secs(5)).await;
    Ok(waits)
}

async fn recovery(url: &str) -> Result<Duration, Error> {
    let jobs = Jobs::connect(url).await?;
    let mut lost = Command::new(std::env::current_exe()?)
        .args(["measure-worker", url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(lost.stdout.take().ok_or("its output")?).lines();
    let _ = jobs.push(Receipt { order: 1 }).await?;
    // It has the job.
    lines.next_line().await?;
    let (sender, mut started) = mpsc::unbounded_channel();
    let worker = jobs
        .worker()
        .handle(move |_: Receipt| {
            let _ = sender.send(Instant::now());
            async {}
        })
        .start()
        .await?;
    // At any moment between two heartbeats.
    sleep(Duration::from_millis(fastrand::u64(0..5000))).await;
    lost.kill().await?;
    let killed = Instant::now();
    let again = started.recv().await.ok_or("the worker has gone")?;
    worker.shutdown(Duration::from_secs(5)).await;
    Ok(again - killed)
}

pub(crate) async fn worker(url: &str) -> Result<(), Error> {
    let jobs = Jobs::connect(url).await?;
    let worker = jobs
        .worker()
        .handle(|_: Receipt| async {
            println!("it runs");
            std::future::pending::<()>().await;
        })
        .start()
        .await?;
    std::future::pending::<()>().await;
    worker.shutdown(Duration::ZERO).await;
    Ok(())
}
