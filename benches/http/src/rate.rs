//! All variants at the same rates, which the server can stand: 30, 60 and 85 % of what three spawns in the handler do at
//! the most. The server has a core to itself, and so have its clients.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    Failure,
    cell::{Cell, Work},
    checks::settled,
    cores, generator,
    paced::{Clients, Offer, Paced},
    record::write,
    server::Server,
    usage::{self, Counts},
    variant::Variant,
    work,
};

/// The server is on one core, so tokio's runtime has one worker, as it has by default there.
pub(crate) const CELLS: [Cell; 3] = [
    Cell::new(Work::Cpu(5), 1, CONNECTIONS),
    Cell::new(Work::Cpu(200), 1, CONNECTIONS),
    Cell::new(Work::Sleep(2_000), 1, CONNECTIONS),
];
/// Of the capacity, in percent.
pub(crate) const SHARES: [u32; 3] = [30, 60, 85];
/// More than are in use at a time, unless a server can't keep up.
const CONNECTIONS: usize = 256;
/// Those of `wrk` when the capacity is measured, and of a check.
const CLOSED: usize = 32;

const RUNS: u64 = 5;
pub(crate) const TIME: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(300);
/// For a check, which is to work on a machine that has other things to do.
const QUICK_RATE: f64 = 300.0;
const QUICK_TIME: Duration = Duration::from_millis(300);
/// For what must come: an answer on each connection, and in a check all answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of the file.
pub(crate) const HEADER: &str = "task,runtime,share,rate,run,variant,answered_per_second,cpu_us_per_request,p50_us,window_p99_us,p99_us,p999_us,\
     late_p99_us,due,unanswered,others";

/// Five runs of each variant in each cell, at each rate.
pub(crate) fn all(path: &Path) -> Result<(), Failure> {
    let [core, ours] = cores::two()?.ok_or("the server and its clients need a core each")?;
    cores::keep_to(ours)?;
    let steps = work::steps_in_a_microsecond();
    let capacities = CELLS.map(|cell| capacity(cell, core, steps));
    let mut lines = Vec::new();
    for number in 0..RUNS {
        for (cell, capacity) in CELLS.iter().zip(&capacities) {
            let capacity = capacity.as_ref().map_err(ToString::to_string)?;
            // The variants take turns at each rate, each time beginning with another one. Those that wait sleep.
            let mut variants = Variant::ALL;
            variants.rotate_left(number as usize);
            let mut servers = Vec::new();
            for variant in variants {
                servers.push(Load::start(*cell, variant, Some(core), steps)?);
            }
            for server in &mut servers {
                server.measure(CONNECTIONS, capacity * 0.6, WARM_UP, TIME, number)?;
            }
            for share in SHARES {
                let rate = capacity * f64::from(share) / 100.0;
                for server in &mut servers {
                    let measured = server.measure(CONNECTIONS, rate, TIME, TIME, number)?;
                    let line = line(*cell, share, rate, number, server.variant, &measured);
                    eprintln!("{line}");
                    lines.push(line);
                }
            }
        }
    }
    write(path, HEADER, &lines)
}

/// That every variant works, that no request is missing, and that a stall is seen. Its figures mean nothing.
pub(crate) fn quick(path: &Path) -> Result<(), Failure> {
    stall()?;
    let cores = cores::two()?;
    if let Some([_, ours]) = cores {
        cores::keep_to(ours)?;
    }
    let core = cores.map(|[core, _]| core);
    let steps = work::steps_in_a_microsecond();
    let mut lines = Vec::new();
    for cell in CELLS {
        for variant in Variant::ALL {
            let mut server = Load::start(cell, variant, core, steps)?;
            let measured = server.measure(CLOSED, QUICK_RATE, QUICK_TIME, PATIENCE, 0)?;
            let (answered, due) = (measured.paced.answered, measured.paced.due);
            if answered != due {
                return Err(format!("{variant}: {answered} answers to {due} requests").into());
            }
            lines.push(line(cell, 0, QUICK_RATE, 0, variant, &measured));
        }
    }
    println!(
        "{} runs: each request was sent and answered, and each task has run",
        lines.len()
    );
    write(path, HEADER, &lines)
}

/// What the clients of some server see.
pub(crate) fn print(address: &str, path: &str, rate: f64, seconds: f64) -> Result<(), Failure> {
    if let Some([_, ours]) = cores::two()? {
        cores::keep_to(ours)?;
    }
    let clients = Clients::connect(address, path, CONNECTIONS, PATIENCE)?;
    let before = usage::of_this()?;
    let time = Duration::from_secs_f64(seconds);
    let paced = clients.offer(Offer {
        rate,
        time,
        patience: time,
        seed: 1,
    })?;
    let cpu = (usage::of_this()? - before).as_secs_f64() * 1e6 / paced.answered.max(1) as f64;
    println!(
        "{} due, {} answered, {:.0} a second; p50 {:?}, p99 {:?}, p99.9 {:?}; sent late: p50 {:?}, p99 {:?}; {cpu:.1} µs of \
         the generator's CPU time a request",
        paced.due,
        paced.answered,
        paced.per_second,
        paced.latency(0.5),
        paced.latency(0.99),
        paced.latency(0.999),
        paced.late(0.5),
        paced.late(0.99),
    );
    Ok(())
}

/// Requests a second that the server does at the most, its tasks spawned in the handler.
fn capacity(cell: Cell, core: usize, steps: u64) -> Result<f64, Failure> {
    let task = cell.work.task(steps);
    let server = Server::start(cell, Variant::Spawn, task, Some(core))?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        rates.push(generator::load(&server.address, "/", CLOSED, 1)?.per_second);
    }
    rates.sort_by(f64::total_cmp);
    eprintln!(
        "capacity with {}: {:.0} a second",
        cell.work.name(),
        rates[1]
    );
    Ok(rates[1])
}

/// A server, and what it has had so far.
struct Load {
    server: Server,
    variant: Variant,
    answered: u64,
    unanswered: u64,
}

struct Measured {
    paced: Paced,
    /// Of the server, for one request and its tasks, in microseconds.
    cpu: f64,
    /// Which share of the machine other processes had meanwhile.
    others: f64,
}

impl Load {
    fn start(
        cell: Cell,
        variant: Variant,
        core: Option<usize>,
        steps: u64,
    ) -> Result<Load, Failure> {
        let server = Server::start(cell, variant, cell.work.task(steps), core)?;
        Ok(Load {
            server,
            variant,
            answered: 0,
            unanswered: 0,
        })
    }

    fn measure(
        &mut self,
        connections: usize,
        rate: f64,
        time: Duration,
        patience: Duration,
        number: u64,
    ) -> Result<Measured, Failure> {
        let address = &self.server.address;
        let clients = Clients::connect(address, "/", connections, PATIENCE)?;
        self.answered += connections as u64;
        let before = self.settled()?;
        let (busy_before, all_before) = usage::of_machine()?;
        let ours_before = usage::of_this()?;
        let paced = clients.offer(Offer {
            rate,
            time,
            patience,
            // In a run all variants have the same arrivals.
            seed: number + 1,
        })?;
        let (busy, all) = usage::of_machine()?;
        let ours = usage::of_this()? - ours_before;
        self.answered += paced.answered;
        self.unanswered += paced.due - paced.answered;
        let after = self.settled()?;
        let cpu = after.cpu - before.cpu;
        // A tick of /proc/stat is a hundredth of a second.
        let ours = (cpu + ours).as_secs_f64() * 100.0;
        Ok(Measured {
            paced,
            cpu: cpu.as_secs_f64() * 1e6 / (after.requests - before.requests).max(1) as f64,
            others: ((busy - busy_before) as f64 - ours).max(0.0)
                / (all - all_before).max(1) as f64,
        })
    }

    /// Waits until all tasks have ended.
    fn settled(&mut self) -> Result<Counts, Failure> {
        settled(
            &mut self.server,
            self.variant,
            self.answered,
            self.unanswered,
        )
    }
}

fn line(
    cell: Cell,
    share: u32,
    rate: f64,
    number: u64,
    variant: Variant,
    measured: &Measured,
) -> String {
    let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
    let paced = &measured.paced;
    format!(
        "{},{},{share},{rate:.0},{},{variant},{:.0},{:.2},{:.1},{:.1},{:.1},{:.1},{:.1},{},{},{:.3}",
        cell.work.name(),
        cell.runtime(),
        number + 1,
        paced.per_second,
        measured.cpu,
        microseconds(paced.latency(0.5)),
        microseconds(paced.typical_p99()),
        microseconds(paced.latency(0.99)),
        microseconds(paced.latency(0.999)),
        microseconds(paced.late(0.99)),
        paced.due,
        paced.due - paced.answered,
        measured.others,
    )
}

/// A server with two connections that does nothing for a while: each request that was due meanwhile must be among the slow
/// ones, not only the two that were on their way.
fn stall() -> Result<(), Failure> {
    const STALL: Duration = Duration::from_millis(200);
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    let serve = move |mut stream: std::net::TcpStream| -> Result<(), Failure> {
        let mut buffer = [0; 1_024];
        let mut answered = 0;
        while stream.read(&mut buffer)? > 0 {
            answered += 1;
            if answered == 50 {
                thread::sleep(STALL);
            }
            stream.write_all(ANSWER)?;
        }
        Ok(())
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    let clients = Clients::connect(&address, "/", 2, PATIENCE)?;
    let measured = clients.offer(Offer {
        rate: 500.0,
        time: Duration::from_secs(1),
        patience: PATIENCE,
        seed: 1,
    })?;
    let slow = measured.latencies.iter().filter(|time| **time > STALL / 4);
    let slow = slow.count();
    // 150 ms of 200 at 500 a second, less what Poisson takes.
    match slow >= 40 {
        true => Ok(()),
        false => Err(format!("a stall of {STALL:?} has delayed {slow} requests only").into()),
    }
}
