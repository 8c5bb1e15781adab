use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use after_apalis::Jobs;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    Error,
    job::{HEARTBEAT, MISSED, Receipt},
    ledger::Entries,
};

/// What is never exceeded: who is lost is noticed after the heartbeats, and this is for the rest.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct Plan {
    stores: Vec<&'static str>,
    seconds: u64,
    seed: u64,
}

impl Plan {
    pub(crate) fn of(words: &[&str]) -> Result<Plan, Error> {
        let mut plan = Plan {
            stores: vec!["sqlite", "postgres", "redis", "defer"],
            seconds: 60,
            seed: fastrand::u64(..1_000_000),
        };
        for pair in words.chunks(2) {
            match pair {
                ["--store", "all"] => {}
                ["--store", store] => {
                    let known = plan.stores.iter().find(|known| *known == store);
                    plan.stores = vec![known.ok_or(format!("no store `{store}`"))?];
                }
                ["--seconds", seconds] => plan.seconds = seconds.parse()?,
                ["--seed", seed] => plan.seed = seed.parse()?,
                other => return Err(format!("what is {other:?}?").into()),
            }
        }
        Ok(plan)
    }
}

#[derive(Default)]
struct Row {
    store: &'static str,
    committed: usize,
    rolled_back: usize,
    done: usize,
    twice: usize,
    dead: usize,
    stuck: usize,
    lost: usize,
    ran_though_rolled_back: usize,
    killed: u32,
    paused: u32,
    stopped: u32,
    waited: Duration,
}

pub(crate) async fn run(plan: Plan) -> Result<bool, Error> {
    println!(
        "{} s on each store, seed {}; heartbeats every {HEARTBEAT:?}, {MISSED} missed",
        plan.seconds, plan.seed
    );
    let mut rows = Vec::new();
    for store in plan.stores {
        rows.push(on(store, Duration::from_secs(plan.seconds), plan.seed).await?);
    }
    println!(
        "\n{:<10}{:>10}{:>12}{:>8}{:>12}{:>6}{:>7}{:>6}   {:<28}{:>10}",
        "store",
        "committed",
        "rolled back",
        "done",
        "done twice",
        "dead",
        "stuck",
        "lost",
        "killed / paused / stopped",
        "last done"
    );
    let mut good = true;
    for row in &rows {
        println!(
            "{:<10}{:>10}{:>12}{:>8}{:>12}{:>6}{:>7}{:>6}   {:<28}{:>8.1} s",
            row.store,
            row.committed,
            row.rolled_back,
            row.done,
            row.twice,
            row.dead,
            row.stuck,
            row.lost,
            format!("{} / {} / {}", row.killed, row.paused, row.stopped),
            row.waited.as_secs_f64(),
        );
        if row.store == "defer" {
            // For contrast: in memory. That nothing was ever lost there would mean that nothing was tested.
            continue;
        }
        let mut wrong = |what: &str, count: usize| {
            if count > 0 {
                good = false;
                println!("VIOLATION on {}: {count} {what}", row.store);
            }
        };
        wrong("committed, and neither done nor dead in time", row.stuck);
        wrong("committed, and not in the store any more", row.lost);
        wrong(
            "rolled back, and run all the same",
            row.ran_though_rolled_back,
        );
        if row.committed == 0 || row.killed == 0 {
            wrong(
                "tests of nothing: no order was committed, or no process killed",
                1,
            );
        }
    }
    Ok(good)
}

/// A process that comes back.
struct Member {
    arguments: Vec<String>,
    child: Child,
    log: PathBuf,
    is_worker: bool,
}

impl Member {
    fn start(arguments: Vec<String>, log: PathBuf) -> Result<Member, Error> {
        let child = spawn(&arguments, &log)?;
        Ok(Member {
            is_worker: arguments[0] == "worker",
            arguments,
            child,
            log,
        })
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.child.id() {
            let _ = kill(Pid::from_raw(id as i32), signal);
        }
    }

    async fn restart(&mut self) -> Result<(), Error> {
        self.child.wait().await?;
        self.child = spawn(&self.arguments, &self.log)?;
        Ok(())
    }
}

fn spawn(arguments: &[String], log: &Path) -> Result<Child, Error> {
    let log = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)?;
    Ok(Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?)
}

async fn on(store: &'static str, time: Duration, seed: u64) -> Result<Row, Error> {
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ledger");
    let ledger = path.display().to_string();
    std::fs::write(&path, "")?;
    let url = url(store, folder.path(), seed).await?;

    // Once, so that the processes find the tables.
    let jobs = match store {
        "defer" => None,
        _ => Some(Jobs::connect(&url).await?),
    };
    const ORDERS: &str = "CREATE TABLE orders (number BIGINT PRIMARY KEY)";
    if let Some(jobs) = &jobs {
        if let Some(pool) = jobs.sqlite() {
            sqlx::query(ORDERS).execute(pool).await?;
        }
        if let Some(pool) = jobs.postgres() {
            sqlx::query(ORDERS).execute(pool).await?;
        }
    }

    let ports: Arc<[u16]> = (0..2).map(|_| free_port()).collect::<Result<_, _>>()?;
    let mut members = Vec::new();
    for port in ports.iter() {
        let arguments = ["producer", &url, &ledger, &port.to_string()].map(str::to_owned);
        members.push(Member::start(
            arguments.to_vec(),
            folder.path().join(format!("producer-{port}.log")),
        )?);
    }
    if store != "defer" {
        for number in 1..=2 {
            let arguments = ["worker", &url, &ledger].map(str::to_owned);
            members.push(Member::start(
                arguments.to_vec(),
                folder.path().join(format!("worker-{number}.log")),
            )?);
        }
    }

    let next = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| tokio::spawn(client(ports.clone(), next.clone(), over.clone())))
        .collect();

    let mut row = Row {
        store,
        ..Row::default()
    };
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(300..1500))).await;
        let index = random.usize(..members.len());
        // Jobs kill workers too.
        for member in &mut members {
            if member.child.try_wait()?.is_some() {
                member.restart().await?;
            }
        }
        let member = &mut members[index];
        match random.u32(..10) {
            0..6 => {
                row.killed += 1;
                member.signal(Signal::SIGKILL);
                sleep(Duration::from_millis(random.u64(..500))).await;
                member.restart().await?;
            }
            6..9 => {
                row.paused += 1;
                member.signal(Signal::SIGSTOP);
                // Some of these are longer than heartbeats may be missed.
                sleep(Duration::from_millis(random.u64(200..5000))).await;
                member.signal(Signal::SIGCONT);
            }
            _ => {
                row.stopped += 1;
                member.signal(Signal::SIGTERM);
                if timeout(Duration::from_secs(20), member.child.wait())
                    .await
                    .is_err()
                {
                    return Err(format!("{store}: no end after SIGTERM within 20 s").into());
                }
                member.restart().await?;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }

    // From here on nobody is disturbed but by jobs that kill.
    let calm = Instant::now();
    let limit = match store {
        // Nobody takes over what was in memory.
        "defer" => Duration::from_secs(2),
        _ => HEARTBEAT * MISSED + GRACE,
    };
    let committed = loop {
        for member in &mut members {
            if member.is_worker && member.child.try_wait()?.is_some() {
                member.restart().await?;
            }
        }
        let committed = count(&mut row, &path, jobs.as_ref()).await?;
        row.waited = calm.elapsed();
        if committed == row.done + row.dead || calm.elapsed() > limit {
            break committed;
        }
        sleep(Duration::from_millis(100)).await;
    };
    row.committed = committed;
    let left = committed - row.done - row.dead;
    match &jobs {
        Some(jobs) => {
            let counts = jobs.counts::<Receipt>().await?;
            row.stuck = left.min((counts.pending + counts.running) as usize);
            row.lost = left - row.stuck;
        }
        None => row.lost = left,
    }
    if left > 0 && store != "defer" {
        // To look into.
        for member in &members {
            let log = std::fs::read_to_string(&member.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("-- {}", member.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
    for member in &mut members {
        member.signal(Signal::SIGTERM);
    }
    for member in &mut members {
        if timeout(Duration::from_secs(20), member.child.wait())
            .await
            .is_err()
        {
            return Err(format!("{store}: no end after SIGTERM within 20 s").into());
        }
    }
    Ok(row)
}

/// The ledger against the store: how many were committed, and into the row what became of them.
async fn count(row: &mut Row, ledger: &Path, jobs: Option<&Jobs>) -> Result<usize, Error> {
    let entries = Entries::read(ledger)?;
    let mut committed = entries.committed.clone();
    let mut dead = HashSet::new();
    if let Some(jobs) = jobs {
        // Who was killed between the commit and the ledger has committed all the same.
        const ORDERS: &str = "SELECT number FROM orders";
        let numbers: Vec<i64> = if let Some(pool) = jobs.sqlite() {
            sqlx::query_scalar(ORDERS).fetch_all(pool).await?
        } else if let Some(pool) = jobs.postgres() {
            sqlx::query_scalar(ORDERS).fetch_all(pool).await?
        } else {
            Vec::new()
        };
        committed.extend(numbers.iter().map(|number| *number as u64));
        for letter in jobs.dead::<Receipt>(u32::MAX >> 1).await? {
            if let Some(order) = entries.ids.get(&letter.id) {
                dead.insert(*order);
            }
        }
    }
    row.rolled_back = entries.rolled_back.len();
    row.done = committed
        .iter()
        .filter(|order| entries.done.contains_key(order))
        .count();
    row.twice = entries.done.values().filter(|times| **times > 1).count();
    row.dead = committed
        .iter()
        .filter(|order| dead.contains(order) && !entries.done.contains_key(order))
        .count();
    row.ran_though_rolled_back = entries
        .rolled_back
        .iter()
        .filter(|order| entries.done.contains_key(order) || dead.contains(order))
        .count();
    Ok(committed.len())
}

/// Orders, one after the other, from one of the producers that may be away.
async fn client(ports: Arc<[u16]>, next: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let order = next.fetch_add(1, Ordering::Relaxed);
        let port = ports[fastrand::usize(..ports.len())];
        let request = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream
                .write_all(
                    format!("POST /orders/{order} HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .as_bytes(),
                )
                .await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await
        };
        // Whoever was killed, or is paused, doesn't answer: the order may be there, or not.
        let _ = timeout(Duration::from_secs(2), request).await;
        sleep(Duration::from_millis(fastrand::u64(10..60))).await;
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// An empty database of its own.
async fn url(store: &str, folder: &Path, seed: u64) -> Result<String, Error> {
    match store {
        "sqlite" => Ok(format!("sqlite:{}", folder.join("jobs.db").display())),
        "postgres" => postgres_database(&format!("rig_{}_{seed}", std::process::id())).await,
        "redis" => redis_database(200).await,
        _ => Ok("defer".into()),
    }
}

pub(crate) fn service(variable: &str) -> Result<String, Error> {
    std::env::var(variable).map_err(|_| {
        format!("{variable} is not set: eval \"$(integrations/apalis/services.sh start)\"").into()
    })
}

pub(crate) async fn postgres_database(name: &str) -> Result<String, Error> {
    use sqlx::Connection as _;
    let server = service("AFTER_POSTGRES_URL")?;
    let mut connection = sqlx::PgConnection::connect(&server).await?;
    for statement in [
        format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        format!("CREATE DATABASE {name}"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
    }
    let (host, _) = server.rsplit_once('/').ok_or("not a URL of a database")?;
    Ok(format!("{host}/{name}"))
}

pub(crate) async fn redis_database(number: u32) -> Result<String, Error> {
    let server = service("AFTER_REDIS_URL")?;
    let url = format!("{}/{number}", server.trim_end_matches('/'));
    let client = redis::Client::open(url.as_str())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHDB")
        .query_async::<()>(&mut connection)
        .await?;
    Ok(url)
}
