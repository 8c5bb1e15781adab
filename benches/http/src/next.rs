//! The same routes in Next.js and in axum, a server with a core of its own each: see `benches/next`.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use after::tower::AfterLayer;
use axum::{Router, routing::get};
use tokio::{runtime::Builder, time::sleep};

use crate::{
    Failure, cores, generator,
    paced::{Clients, Offer},
    record::write,
    rows::lines,
    table::{said_of, spread},
    usage,
};

/// Of the file.
const HEADER: &str = "load,route,run,server,requests_per_second,cpu_us_per_request,p50_us,p99_us,p999_us,version,others";

const RUNS: u64 = 5;
const SECONDS: u64 = 3;
/// Until a just-in-time compiler has seen enough.
const WARM_UP: u64 = 5;
const CONNECTIONS: usize = 32;
/// For what must come: a start, an answer, the last task.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many times the requests of Next.js.
const TARGET: f64 = 60.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Next,
    Axum,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Next, Kind::Axum];

    fn name(self) -> &'static str {
        match self {
            Kind::Next => "Next.js",
            Kind::Axum => "axum",
        }
    }
}

/// A route, and how many tasks it leaves.
const HELLO: (&str, u64) = ("/hello", 0);
const THREE: (&str, u64) = ("/three", 3);
const INLINE: (&str, u64) = ("/inline", 2);
const AFTER: (&str, u64) = ("/after", 2);

/// Tasks that have ended.
static DONE: AtomicU64 = AtomicU64::new(0);

/// The routes of `benches/next/app`, with the layer: prints its address.
pub(crate) fn serve() -> Result<(), Failure> {
    let task = async || {
        DONE.fetch_add(1, Relaxed);
    };
    let wait = async |milliseconds| sleep(Duration::from_millis(milliseconds)).await;
    let three = move || async move {
        after::defer(task());
        after::defer(task());
        after::defer(task());
        "hello\n"
    };
    let inline = move || async move {
        wait(100).await;
        wait(50).await;
        task().await;
        wait(30).await;
        task().await;
        "hello\n"
    };
    let after = move || async move {
        after::defer(async move {
            wait(50).await;
            task().await;
        });
        after::defer(async move {
            wait(30).await;
            task().await;
        });
        wait(100).await;
        "hello\n"
    };
    let router = Router::new()
        .route(HELLO.0, get(async || "hello\n"))
        .route(THREE.0, get(three))
        .route(INLINE.0, get(inline))
        .route(AFTER.0, get(after))
        .route("/done", get(async || format!("{}\n", DONE.load(Relaxed))))
        .layer(AfterLayer::new());
    // As many workers as cores: this has one.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = tokio::net::TcpListener::bind(any_port).await?;
        println!("{}", listener.local_addr()?);
        axum::serve(listener, router).await?;
        Ok(())
    })
}

/// Five runs of both servers, in turns.
pub(crate) fn all(folder: &Path, path: &Path) -> Result<(), Failure> {
    let cores = cores::two()?.ok_or("a server and its clients need a core each")?;
    let mut lines = Vec::new();
    // Half of what Next.js can do in the first run, for both, in all.
    let mut rate = None;
    for number in 0..RUNS {
        let mut servers = Kind::ALL;
        servers.rotate_left(number as usize % 2);
        // The first is Next.js: it sets the rate.
        for kind in servers {
            let mut run = Run::start(kind, folder, Some(cores), number)?;
            for route in [HELLO, THREE] {
                run.closed(route, WARM_UP)?;
                let load = run.closed(route, SECONDS)?;
                lines.push(load.line);
                if route == THREE {
                    rate.get_or_insert(load.per_second / 2.0);
                }
            }
            let rate = rate.ok_or("no rate")?;
            let time = Duration::from_secs(SECONDS);
            lines.push(run.open("half of Next.js", THREE, rate, time)?);
            for route in [INLINE, AFTER] {
                lines.push(run.open("20 a second", route, 20.0, time)?);
            }
        }
    }
    for line in &lines {
        eprintln!("{line}");
    }
    write(path, HEADER, &lines)
}

/// That both servers answer, and that no task is missing. Its figures mean nothing.
pub(crate) fn quick(folder: &Path, path: &Path) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for kind in Kind::ALL {
        let mut run = Run::start(kind, folder, cores::two()?, 0)?;
        for route in [HELLO, THREE, INLINE, AFTER] {
            lines.push(run.open("20 a second", route, 20.0, Duration::from_millis(500))?);
        }
    }
    println!(
        "{} runs: each was answered, and each task has run",
        lines.len()
    );
    write(path, HEADER, &lines)
}

/// One server, as long as it is measured.
struct Run {
    kind: Kind,
    number: u64,
    child: Child,
    address: String,
    version: String,
}

struct Closed {
    line: String,
    per_second: f64,
}

impl Run {
    fn start(
        kind: Kind,
        folder: &Path,
        cores: Option<[usize; 2]>,
        number: u64,
    ) -> Result<Run, Failure> {
        // What is started has the core of who starts it.
        if let Some([core, _]) = cores {
            cores::keep_to(core)?;
        }
        let (child, address, version) = match kind {
            Kind::Next => next(folder)?,
            Kind::Axum => axum()?,
        };
        let run = Run {
            kind,
            number,
            child,
            address,
            version,
        };
        if let Some([_, ours]) = cores {
            cores::keep_to(ours)?;
        }
        let start = Instant::now();
        while run.done().is_err() {
            if start.elapsed() > PATIENCE {
                return Err(format!("{} does not start", kind.name()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(run)
    }

    /// Under a load that asks again as soon as it is answered.
    fn closed(&mut self, route: (&str, u64), seconds: u64) -> Result<Closed, Failure> {
        let before = self.done()?;
        let watch = Watch::start(self.child.id())?;
        let load = generator::load(&self.address, route.0, CONNECTIONS, seconds)?;
        let (cpu, others) = watch.end(load.answered)?;
        self.settle(before, route.1, load.answered, CONNECTIONS as u64)?;
        Ok(Closed {
            line: format!(
                "32 connections,{},{},{},{:.0},{cpu:.1},{},{},,{},{others:.3}",
                route.0,
                self.number + 1,
                self.kind.name(),
                load.per_second,
                load.p50,
                load.p99,
                self.version,
            ),
            per_second: load.per_second,
        })
    }

    /// Under a load that comes at its own rate.
    fn open(
        &mut self,
        name: &str,
        route: (&str, u64),
        rate: f64,
        time: Duration,
    ) -> Result<String, Failure> {
        let before = self.done()?;
        let clients = Clients::connect(&self.address, route.0, CONNECTIONS, PATIENCE)?;
        self.settle(before, route.1, CONNECTIONS as u64, 0)?;
        let before = self.done()?;
        let watch = Watch::start(self.child.id())?;
        let settings = Offer {
            rate,
            time,
            patience: PATIENCE,
            seed: self.number + 1,
        };
        let paced = clients.offer(settings)?;
        let (cpu, others) = watch.end(paced.answered)?;
        if paced.answered < paced.due {
            return Err(format!("{} of {} answered", paced.answered, paced.due).into());
        }
        self.settle(before, route.1, paced.answered, 0)?;
        let microseconds = |share| paced.latency(share).as_micros();
        Ok(format!(
            "{name},{},{},{},{:.0},{cpu:.1},{},{},{},{},{others:.3}",
            route.0,
            self.number + 1,
            self.kind.name(),
            paced.per_second,
            microseconds(0.5),
            microseconds(0.99),
            microseconds(0.999),
            self.version,
        ))
    }

    /// Waits until all tasks have ended; `open` is how many requests may have been cut off.
    fn settle(&self, before: u64, tasks: u64, answered: u64, open: u64) -> Result<(), Failure> {
        let start = Instant::now();
        let mut last = None;
        loop {
            let done = self.done()? - before;
            let all = (tasks * answered..=tasks * (answered + open)).contains(&done);
            if all && last == Some(done) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let name = self.kind.name();
                return Err(
                    format!("{name}: {done} tasks have run, of {answered} requests").into(),
                );
            }
            last = Some(done);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many tasks have ended.
    fn done(&self) -> Result<u64, Failure> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let address = &self.address;
        write!(
            stream,
            "GET /done HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        // In chunks, the first line is a length.
        let chunked = head.to_ascii_lowercase().contains("chunked");
        let count = body.lines().nth(usize::from(chunked));
        Ok(count.ok_or("no count")?.parse()?)
    }
}

/// What a server takes, and what the rest of the machine does meanwhile.
struct Watch {
    server: u32,
    cpu: Duration,
    ours: Duration,
    machine: (u64, u64),
}

impl Watch {
    fn start(server: u32) -> Result<Watch, Failure> {
        Ok(Watch {
            server,
            cpu: usage::of_process(server)?,
            ours: usage::of_this()? + usage::of_children()?,
            machine: usage::of_machine()?,
        })
    }

    /// Microseconds of the server's CPU time for a request, and the share of the machine that others had.
    fn end(self, requests: u64) -> Result<(f64, f64), Failure> {
        let cpu = usage::of_process(self.server)? - self.cpu;
        let ours = usage::of_this()? + usage::of_children()? - self.ours;
        let (busy, all) = usage::of_machine()?;
        let (busy, all) = (busy - self.machine.0, all - self.machine.1);
        // A tick of /proc/stat is a hundredth of a second.
        let ours = (cpu + ours).as_secs_f64() * 100.0;
        let others = (busy as f64 - ours).max(0.0) / all.max(1) as f64;
        Ok((cpu.as_secs_f64() * 1e6 / requests.max(1) as f64, others))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have gone by itself; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next(folder: &Path) -> Result<(Child, String, String), Failure> {
    // Free a moment ago; it can't be told to take any.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let child = Command::new("node")
        .arg("server.js")
        .current_dir(folder)
        .env("PORT", port.to_string())
        .env("HOSTNAME", "127.0.0.1")
        .env("NODE_ENV", "production")
        .env("NEXT_TELEMETRY_DISABLED", "1")
        .stdout(Stdio::null())
        .spawn()?;
    let version = Command::new("node")
        .args([
            "-p",
            "require('next/package.json').version + ' on Node.js ' + process.versions.node",
        ])
        .current_dir(folder)
        .output()?;
    let version = String::from_utf8(version.stdout)?.trim().to_owned();
    Ok((child, format!("127.0.0.1:{port}"), version))
}

fn axum() -> Result<(Child, String, String), Failure> {
    let mut child = Command::new(env::current_exe()?)
        .arg("serve-next")
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("a server without an output")?;
    let mut address = String::new();
    BufReader::new(out).read_line(&mut address)?;
    Ok((child, address.trim().to_owned(), String::from("axum 0.8")))
}

/// Requests a second, CPU, p50, p99, p99.9 and the share of others.
type Figures = [f64; 6];
type Figure = fn(&Figures) -> f64;

struct Row {
    load: String,
    route: String,
    run: String,
    server: String,
    figures: Figures,
    version: String,
}

/// What was recorded, as Markdown.
pub(crate) fn print(path: &Path) -> Result<(), Failure> {
    let rows: Vec<Row> = lines(path, HEADER)?;
    let of_next = rows.iter().find(|row| row.server == Kind::Next.name());
    let others: Vec<f64> = rows.iter().map(|row| row.figures[5]).collect();
    println!(
        "Next.js {}; axum 0.8 with `AfterLayer`. {}\n",
        of_next.map_or("", |row| &row.version),
        said_of(others),
    );

    let (per_second, cpu, p50, p99): (Figure, Figure, Figure, Figure) =
        (|row| row[0], |row| row[1], |row| row[2], |row| row[3]);
    let (closed, half, slow) = ("32 connections", "half of Next.js", "20 a second");
    println!("| | Next.js | axum | in axum's favour |");
    println!("|---|--:|--:|--:|");
    for (words, route) in [("no task", HELLO), ("three `after`", THREE)] {
        let of = |kind| figures(&rows, closed, route.0, kind, per_second);
        let (next, axum) = (of(Kind::Next), of(Kind::Axum));
        println!(
            "| {words}, requests a second | {} | {} | {} |",
            spread(next.clone(), 1.0, 0),
            spread(axum.clone(), 1.0, 0),
            spread(ratios(&axum, &next), 1.0, 0),
        );
    }
    let at_half = "three `after`, both at half of what Next.js can do";
    let awaited = "100 ms of work, then 50 and 30 ms awaited";
    let after = "100 ms of work, 50 and 30 ms in `after`";
    for (words, load, route, name, figure, unit) in [
        (
            "three `after`",
            closed,
            THREE,
            "CPU a request in µs",
            cpu,
            1.0,
        ),
        ("three `after`", closed, THREE, "p50 in ms", p50, 1e-3),
        ("three `after`", closed, THREE, "p99 in ms", p99, 1e-3),
        (at_half, half, THREE, "p50 in ms", p50, 1e-3),
        (at_half, half, THREE, "p99 in ms", p99, 1e-3),
        (awaited, slow, INLINE, "p50 in ms", p50, 1e-3),
        (after, slow, AFTER, "p50 in ms", p50, 1e-3),
    ] {
        let of = |kind| figures(&rows, load, route.0, kind, figure);
        let (next, axum) = (of(Kind::Next), of(Kind::Axum));
        // Less is better.
        println!(
            "| {words}, {name} | {} | {} | {} |",
            spread(next.clone(), unit, 2),
            spread(axum.clone(), unit, 2),
            spread(ratios(&next, &axum), 1.0, 2),
        );
    }
    let of = |kind| figures(&rows, closed, THREE.0, kind, per_second);
    let ratios = ratios(&of(Kind::Axum), &of(Kind::Next));
    let reached = ratios.iter().filter(|ratio| **ratio >= TARGET).count();
    println!(
        "\nAt least {TARGET:.0} times the requests of Next.js with three `after`: in {reached} of {} runs.",
        ratios.len()
    );
    Ok(())
}

/// In the order of the runs.
fn figures(rows: &[Row], load: &str, route: &str, kind: Kind, figure: Figure) -> Vec<f64> {
    let of = (load, route, kind.name());
    let mut rows: Vec<&Row> = rows
        .iter()
        .filter(|row| (&*row.load, &*row.route, &*row.server) == of)
        .collect();
    rows.sort_by_key(|row| &row.run);
    rows.iter().map(|row| figure(&row.figures)).collect()
}

/// Run by run.
fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

impl FromStr for Row {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let fields: Vec<&str> = line.split(',').collect();
        let [
            load,
            route,
            run,
            server,
            per_second,
            cpu,
            p50,
            p99,
            p999,
            version,
            others,
        ] = fields[..]
        else {
            return Err(format!("a line has too many fields, or too few: {line}").into());
        };
        // `wrk` is not asked for it.
        let p999 = if p999.is_empty() { "NaN" } else { p999 };
        Ok(Row {
            load: load.to_owned(),
            route: route.to_owned(),
            run: run.to_owned(),
            server: server.to_owned(),
            figures: [
                per_second.parse()?,
                cpu.parse()?,
                p50.parse()?,
                p99.parse()?,
                p999.parse()?,
                others.parse()?,
            ],
            version: version.to_owned(),
        })
    }
}
