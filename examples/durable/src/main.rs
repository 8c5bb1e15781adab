//! An order and its receipt in one transaction: the process is killed in the middle, and the receipt comes.
//!
//!   cargo run -p durable
//!   DATABASE_URL=postgres://user@host/database cargo run -p durable
//!
//! `shop.rs` is the part to read. This file starts the processes, and tells what it sees.

mod shop;

use std::{
    error::Error,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", url, port] => shop::serve(url, port).await,
        ["work", url] => shop::work(url).await,
        [] => tell().await,
        _ => Err("usage: durable (on SQLite; on Postgres with DATABASE_URL)".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("durable: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn tell() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("shop.db");
    let url = std::env::var("DATABASE_URL").unwrap_or(format!("sqlite:{}", file.display()));
    let on_sqlite = url.starts_with("sqlite:");
    let jobs = shop::connect(&url).await?;
    // A number that no run before has taken.
    let number = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port()
        .to_string();

    // In their first life they kill themselves in the middle of a job's first attempt.
    let mut server = start(&["serve", &url, &port], on_sqlite)?;
    let mut workers = Vec::new();
    if !on_sqlite {
        for _ in 0..2 {
            workers.push(start(&["work", &url], true)?);
        }
    }

    println!("client  orders {number}: {}", place(&port, number).await?);
    let begin = Instant::now();
    let killed = if on_sqlite {
        server.wait().await?
    } else {
        let [first, second] = workers.as_mut_slice() else {
            return Err("two workers".into());
        };
        tokio::select! {
            status = first.wait() => status?,
            status = second.wait() => status?,
        }
    };
    println!("main    a process is gone: {}", how(killed));
    let before = receipts(&jobs, number).await?;
    println!("main    receipts of the order in the database: {before}");

    if on_sqlite {
        println!("main    starts it again");
        server = start(&["serve", &url, &port], false)?;
    } else {
        println!("main    leaves it so: there is another worker");
    }
    let end = Instant::now() + Duration::from_secs(60);
    while receipts(&jobs, number).await? == 0 {
        if Instant::now() > end {
            return Err("no receipt within a minute".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    println!(
        "main    the receipt came {:.1} s after the order",
        begin.elapsed().as_secs_f64()
    );

    // The server first.
    for mut child in std::iter::once(server).chain(workers) {
        terminate(&child);
        let status = timeout(Duration::from_secs(30), child.wait()).await??;
        if child.id().is_none() && !status.success() && how(status) != how(killed) {
            return Err(format!("a process ended badly: {}", how(status)).into());
        }
    }
    match receipts(&jobs, number).await? {
        1 if before == 0 => Ok(()),
        other => Err(format!("{before} receipts before, {other} in the end: not one").into()),
    }
}

fn start(arguments: &[&str], kills_itself: bool) -> Result<Child, BoxError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).kill_on_drop(true);
    if kills_itself {
        command.env("DURABLE_KILL", "1");
    } else {
        command.env_remove("DURABLE_KILL");
    }
    Ok(command.spawn()?)
}

async fn receipts(jobs: &after_apalis::Jobs, number: i64) -> Result<i64, BoxError> {
    const COUNT: &str = "SELECT count(*) FROM receipts WHERE number = $1";
    Ok(if let Some(pool) = jobs.sqlite() {
        sqlx::query_scalar(COUNT)
            .bind(number)
            .fetch_one(pool)
            .await?
    } else if let Some(pool) = jobs.postgres() {
        sqlx::query_scalar(COUNT)
            .bind(number)
            .fetch_one(pool)
            .await?
    } else {
        return Err("SQLite or Postgres: an order is a transaction".into());
    })
}

/// Once the server answers: the first line of its answer.
async fn place(port: &str, number: i64) -> Result<String, BoxError> {
    let end = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match TcpStream::connect(format!("127.0.0.1:{port}")).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    let request = format!(
        "POST /orders/{number} HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let line = answer.lines().next().unwrap_or_default();
    if !line.contains("201") {
        return Err(format!("no order: {answer}").into());
    }
    Ok(line.to_owned())
}

#[cfg(unix)]
fn terminate(child: &Child) {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
}

#[cfg(not(unix))]
fn terminate(_: &Child) {}

#[cfg(unix)]
fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(9) => "SIGKILL".into(),
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}

#[cfg(not(unix))]
fn how(status: ExitStatus) -> String {
    status.to_string()
}
