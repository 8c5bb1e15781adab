//! The clients of the overload: a process of their own, which asks for a time and says what it has seen.

use std::{
    net::SocketAddr,
    ops::Add,
    process::Stdio,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::{Method, Version};
use http_body_util::BodyExt as _;
use tokio::{
    process::Command,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    AnyError,
    clients::Connection,
    tally::{add, read},
};

/// The argument that makes this program a crowd: `--crowd ADDRESS CLIENTS MILLISECONDS`.
pub(crate) const ARGUMENT: &str = "--crowd";

/// How often a client asks, if it is answered.
const PERIOD: Duration = Duration::from_millis(100);
/// One of so many requests is given up after [`PATIENCE`], perhaps while its answer waits for room.
const HANGS_UP: usize = 16;
const PATIENCE: Duration = Duration::from_millis(10);

/// What the clients have seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) hung_up: u64,
    /// Neither: none of the load's.
    pub(crate) broken: u64,
}

impl Add for Seen {
    type Output = Seen;

    fn add(self, other: Seen) -> Seen {
        Seen {
            requests: self.requests + other.requests,
            answered: self.answered + other.answered,
            hung_up: self.hung_up + other.hung_up,
            broken: self.broken + other.broken,
        }
    }
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    answered: AtomicU64,
    hung_up: AtomicU64,
    broken: AtomicU64,
}

/// Runs so many clients as a process.
pub(crate) async fn run(
    address: SocketAddr,
    clients: usize,
    time: Duration,
) -> Result<Seen, AnyError> {
    let mut crowd = Command::new(std::env::current_exe()?);
    crowd.args([
        ARGUMENT,
        &address.to_string(),
        &clients.to_string(),
        &time.as_millis().to_string(),
    ]);
    let crowd = crowd.stderr(Stdio::inherit()).kill_on_drop(true);
    let said = crowd.output().await?;
    if !said.status.success() {
        return Err(format!("the clients have failed: {}", said.status).into());
    }
    let figures = String::from_utf8(said.stdout)?;
    let figures: Vec<u64> = figures
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [requests, answered, hung_up, broken] = figures[..] else {
        return Err("the clients have not said four figures".into());
    };
    Ok(Seen {
        requests,
        answered,
        hung_up,
        broken,
    })
}

/// The `main` of that process.
pub(crate) fn main(arguments: &[String]) -> Result<(), AnyError> {
    let [address, clients, time] = arguments else {
        return Err(format!("{ARGUMENT} needs three values").into());
    };
    let (address, clients) = (address.parse()?, clients.parse()?);
    let until = Instant::now() + Duration::from_millis(time.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let counts = Counts::default();
    let asking = (0..clients).map(|number| ask(number, clients, address, until, &counts));
    runtime.block_on(join_all(asking));
    println!(
        "{} {} {} {}",
        read(&counts.requests),
        read(&counts.answered),
        read(&counts.hung_up),
        read(&counts.broken)
    );
    Ok(())
}

/// One client.
async fn ask(number: usize, of: usize, address: SocketAddr, until: Instant, counts: &Counts) {
    // Not all at the same moment.
    sleep(PERIOD.mul_f64(number as f64 / of as f64)).await;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    for request in number.. {
        ticks.tick().await;
        if Instant::now() >= until {
            break;
        }
        let open = match &mut connection {
            Some(open) => open,
            None => match Connection::open(address, Version::HTTP_11).await {
                Ok(open) => connection.insert(open),
                Err(_) => {
                    add(&counts.broken);
                    continue;
                }
            },
        };
        let answer = open.send(Method::GET, "/");
        let read = async { answer.await?.into_body().collect().await };
        add(&counts.requests);
        let read = match request % HANGS_UP {
            0 => timeout(PATIENCE, read).await.ok(),
            _ => Some(read.await),
        };
        match read {
            Some(Ok(_)) => add(&counts.answered),
            Some(Err(_)) => {
                add(&counts.broken);
                connection = None;
            }
            None => {
                add(&counts.hung_up);
                connection = None;
            }
        }
    }
}
