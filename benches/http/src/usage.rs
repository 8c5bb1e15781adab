//! What a server has done, and what it took.

use std::{fmt, fs, io, str::FromStr, sync::atomic::Ordering::Relaxed, time::Duration};

use after::Runner;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

use crate::{
    Failure,
    work::{DONE, REQUESTS},
};

/// Of a server, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests that have reached the handler.
    pub(crate) requests: u64,
    /// Tasks that have ended.
    pub(crate) done: u64,
    /// CPU time of all threads, user and system.
    pub(crate) cpu: Duration,
    /// How often a thread has gone to sleep.
    pub(crate) sleeps: u64,
    /// What `after` says: deferred, completed, pending.
    pub(crate) deferred: u64,
    pub(crate) completed: u64,
    pub(crate) pending: u64,
}

impl Counts {
    pub(crate) fn now() -> io::Result<Counts> {
        // The account is read after `DONE`, which a task raises before it ends; `checks` reads again until they agree.
        let (requests, done) = (REQUESTS.load(Relaxed), DONE.load(Relaxed));
        let stats = Runner::global().stats();
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Counts {
            requests,
            done,
            cpu: of_this()?,
            sleeps: u64::try_from(usage.voluntary_context_switches()).unwrap_or(0),
            deferred: stats.deferred,
            completed: stats.completed,
            pending: stats.pending,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            requests,
            done,
            cpu,
            sleeps,
            deferred,
            completed,
            pending,
        } = self;
        let cpu = cpu.as_micros();
        write!(
            f,
            "{requests} {done} {cpu} {sleeps} {deferred} {completed} {pending}"
        )
    }
}

impl FromStr for Counts {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        let Ok([requests, done, cpu, sleeps, deferred, completed, pending]) =
            <[u64; 7]>::try_from(numbers?)
        else {
            return Err(format!("a server has said: {line}").into());
        };
        let cpu = Duration::from_micros(cpu);
        Ok(Counts {
            requests,
            done,
            cpu,
            sleeps,
            deferred,
            completed,
            pending,
        })
    }
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec()).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

/// CPU time of the processes that this one has started and that have ended.
pub(crate) fn of_children() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

/// CPU time of this process.
pub(crate) fn of_this() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

/// CPU time of another process, to the tick of a hundredth of a second.
pub(crate) fn of_process(id: u32) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name, in brackets, may have blanks.
    let (_, fields) = stat.rsplit_once(')').ok_or("a process without a name")?;
    let ticks: Result<Vec<u64>, _> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect();
    Ok(Duration::from_millis(ticks?.iter().sum::<u64>() * 10))
}

/// The whole machine's time, of all its processors: busy, and in all. Time taken by other machines on the same
/// hardware is busy. In ticks, whose length cancels out in a share.
pub(crate) fn of_machine() -> Result<(u64, u64), Failure> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Result<Vec<u64>, _> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(str::parse)
        .collect();
    let ticks = ticks?;
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let all: u64 = ticks.iter().sum();
    Ok((all - idle, all))
}
