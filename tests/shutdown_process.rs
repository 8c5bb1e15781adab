//! Sentence 20, as its users meet it: examples as real processes, stopped with a signal: under load, and while a closure, a
//! task, a stream or a client is stuck.
#![cfg(all(unix, feature = "tokio"))]

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, SIGTERM},
    unistd::Pid,
};

const RUNS: u64 = 20;
/// Two of them keep their connection, and two open one for each request, so that some open one just as the server stops.
const CLIENTS: u64 = 4;
/// Requests of one client at the most: the load is bounded, whatever the server does.
const MOST_REQUESTS: u64 = 5_000;
/// A process that is still there after this is killed, and its test fails.
const WATCHDOG: Duration = Duration::from_secs(30);

/// Whatever the moment of the signal: the process ends with code 0, and each request that was answered has its line.
#[test]
fn every_answered_request_has_its_line_after_sigterm() {
    let (mut requests, mut open) = (0, Duration::ZERO);
    for run in 0..RUNS {
        let log = Log::new(&format!("load-{run}"));
        // From tasks that are over at once to tasks that are all still there when the signal comes.
        let task_ms = (run * 7 % 60).to_string();
        let mut server = Server::start(&["--task-ms", &task_ms, "--log", log.path()]);

        let began = Instant::now();
        let load = Arc::new(Load::default());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (load, address) = (load.clone(), server.address);
                thread::spawn(move || load.ask(client, address))
            })
            .collect();
        // After another number of answers in each run.
        while load.answered.load(Ordering::Relaxed) < 20 + run * 11 {
            assert!(clients.iter().any(|client| !client.is_finished()));
            thread::sleep(Duration::from_micros(200));
        }
        load.signalled.store(true, Ordering::Release);
        server.terminate();
        let answered: Vec<u64> = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect();
        open += began.elapsed();
        requests += answered.len();

        let (status, output) = server.end();
        assert_eq!(status.code(), Some(0), "run {run}: {output}");
        assert!(output.contains("nothing unfinished"), "run {run}: {output}");
        let lines = log.lines();
        let logged: BTreeSet<_> = lines.iter().copied().collect();
        assert_eq!(lines.len(), logged.len(), "run {run}: a line twice");
        let missing: Vec<_> = answered.iter().filter(|id| !logged.contains(id)).collect();
        assert!(
            missing.is_empty(),
            "run {run}: answered, and lost: {missing:?}"
        );
    }
    // For whoever reads it; a slow machine is no failure.
    let rate = requests as f64 / open.as_secs_f64();
    println!("{requests} requests in {RUNS} runs, {rate:.0} a second under load");
}

/// What is unfinished at the limit is named in the report, and the exit code says so.
#[test]
fn tasks_past_the_limit_are_named() {
    let log = Log::new("limit");
    let mut server = Server::start(&[
        "--task-ms",
        "600000",
        "--limit-ms",
        "100",
        "--log",
        log.path(),
    ]);
    let mut connection = Connection::open(server.address, true).unwrap();
    assert!(connection.ask(1).unwrap());
    assert!(connection.ask(2).unwrap());
    server.terminate();
    let (status, output) = server.end();
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(
        output.contains("2 unfinished after 100ms: `work` (examples/shutdown.rs:"),
        "{output}"
    );
    assert!(output.contains("deferred 2, completed 0"), "{output}");
    assert!(log.lines().is_empty());
}

/// Who asks twice means it: the report is printed as things stand, and the process does not wait.
#[test]
fn a_second_signal_ends_it_at_once_with_the_report() {
    let log = Log::new("twice");
    // Nothing of this ends by itself before the watchdog comes.
    let patient = ["--task-ms", "600000", "--limit-ms", "600000"];
    let mut server = Server::start(&[&patient[..], &["--log", log.path()]].concat());
    let mut connection = Connection::open(server.address, true).unwrap();
    assert!(connection.ask(1).unwrap());
    server.terminate();
    // Two signals that come at once are one. This is printed when the first has been taken.
    let line = server.line();
    assert!(line.starts_with("stopping"), "{line}");
    server.terminate();
    let (status, output) = server.end();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(
        output.contains("ended by a second signal: 1 unfinished"),
        "{output}"
    );
    assert!(output.contains("`work` (examples/shutdown.rs:"), "{output}");
    assert!(log.lines().is_empty());
}

/// A client that never finishes its request must not keep the process for ever, nor the work of others.
#[test]
fn half_a_request_does_not_hold_it_past_the_limit() {
    let log = Log::new("half");
    let patient = ["--task-ms", "10", "--limit-ms", "500"];
    let mut server = Server::start(&[&patient[..], &["--log", log.path()]].concat());
    let mut half = TcpStream::connect(server.address).unwrap();
    half.write_all(b"GET /work?id=2 HTTP/1.1\r\n").unwrap();
    let mut connection = Connection::open(server.address, true).unwrap();
    assert!(connection.ask(1).unwrap());
    server.terminate();
    let (status, output) = server.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_eq!(log.lines(), [1]);
    drop(half);
}

/// The servers that are shown to be copied. `layered`: a request is over when its body is, else when its response is there.
const PROGRAMS: &[Program] = &[
    Program {
        name: "shutdown",
        layered: false,
    },
    #[cfg(feature = "tower")]
    Program {
        name: "quickstart",
        layered: true,
    },
    #[cfg(feature = "tower")]
    Program {
        name: "axum",
        layered: true,
    },
    #[cfg(feature = "tower")]
    Program {
        name: "hyper",
        layered: true,
    },
];

struct Program {
    name: &'static str,
    layered: bool,
}

impl Program {
    fn serve(&self, limit_ms: u32) -> Server {
        let arguments: &[&str] = match self.name {
            "shutdown" => &[],
            _ => &["--serve"],
        };
        Server::of(self.name, arguments, limit_ms)
    }
}

const SHORT_MS: u32 = 300;
/// Longer than the watchdog's patience: who waits for this is killed.
const LONG_MS: u32 = 600_000;

/// Nothing stops a closure, and a tokio runtime that is dropped waits for it: the process ends all the same.
#[test]
fn a_closure_that_never_returns_is_named_and_the_process_ends() {
    for program in PROGRAMS {
        let mut server = program.serve(SHORT_MS);
        assert!(get(server.address, "stuck/closure").ends_with("deferred\n"));
        server.terminate();
        let (status, output) = server.end();
        assert_eq!(status.code(), Some(2), "{}: {output}", program.name);
        let named = "1 unfinished after 300ms: `stuck closure` (examples/stuck/mod.rs:";
        assert!(output.contains(named), "{}: {output}", program.name);
    }
}

/// A task that waits for ever is dropped with the process.
#[test]
fn a_task_that_never_ends_is_named_and_the_process_ends() {
    for program in PROGRAMS {
        let mut server = program.serve(SHORT_MS);
        assert!(get(server.address, "stuck/task").ends_with("deferred\n"));
        server.terminate();
        let (status, output) = server.end();
        assert_eq!(status.code(), Some(2), "{}: {output}", program.name);
        let named = "1 unfinished after 300ms: `stuck task` (examples/stuck/mod.rs:";
        assert!(output.contains(named), "{}: {output}", program.name);
    }
}

/// `stop` comes before the server's end, so what awaits `stopping` ends before it: without it the server would wait for the
/// stream, and the stream for the `shutdown` that comes after the server.
#[test]
fn a_stream_that_ends_at_stopping_holds_nothing() {
    for program in PROGRAMS {
        let mut server = program.serve(LONG_MS);
        let mut stream = open_stream(server.address, "stream");
        server.terminate();
        let (status, output) = server.end();
        assert_eq!(status.code(), Some(0), "{}: {output}", program.name);
        assert!(output.contains("nothing unfinished; deferred 1, completed 1"));
        assert!(!output.contains("still open"), "{}: {output}", program.name);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "the end is told: {rest:?}");
    }
}

/// A stream without an end holds the server for its limit, and no longer. With the layer its request has not ended, so its
/// tasks are unfinished.
#[test]
fn a_stream_that_never_ends_holds_the_process_for_its_limits() {
    for program in PROGRAMS {
        let mut server = program.serve(SHORT_MS);
        let _stream = open_stream(server.address, "stuck/stream");
        server.terminate();
        let (status, output) = server.end();
        let still_open = "onnections are still open after 300ms";
        assert!(output.contains(still_open), "{}: {output}", program.name);
        let (code, says) = match program.layered {
            true => (2, "1 of requests that have not ended"),
            false => (0, "nothing unfinished; deferred 1, completed 1"),
        };
        assert_eq!(status.code(), Some(code), "{}: {output}", program.name);
        assert!(output.contains(says), "{}: {output}", program.name);
    }
}

/// A client that sends half a request holds the server for its limit, and no task is behind it.
#[test]
fn half_a_request_holds_the_process_for_its_limit() {
    for program in PROGRAMS {
        let mut server = program.serve(SHORT_MS);
        let mut half = TcpStream::connect(server.address).unwrap();
        half.write_all(b"GET /stuck/task HTTP/1.1\r\n").unwrap();
        // Accepted before the other one, which has its answer.
        assert!(get(server.address, "nothing").starts_with("HTTP/1.1 404"));
        server.terminate();
        let (status, output) = server.end();
        assert_eq!(status.code(), Some(0), "{}: {output}", program.name);
        assert!(output.contains("nothing unfinished"), "{output}");
    }
}

/// The first program of the README, as it stands there (`tests/documents.rs` compares): the client has its response, both
/// tasks run, and SIGTERM ends it with code 0.
#[test]
#[cfg(feature = "tower")]
fn the_readmes_first_program_loses_no_task_at_sigterm() {
    let mut server = Server::of("checkout", &[], LONG_MS);
    let answer = ask(server.address, "POST", "checkout");
    assert!(answer.ends_with("\r\n\r\nthanks\n"), "{answer}");
    server.terminate();
    let (status, output) = server.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("nothing unfinished; deferred 2, completed 2"));
}

/// The program of `docs/production.md`, likewise.
#[test]
#[cfg(all(feature = "tower", feature = "tracing"))]
fn the_program_for_production_loses_no_task_at_sigterm() {
    let mut server = Server::of("production", &[], LONG_MS);
    let answer = get(server.address, "");
    assert!(answer.ends_with("\r\n\r\nhello\n"), "{answer}");
    server.terminate();
    let (status, output) = server.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("audit: Some(Finished)"), "{output}");
    assert!(output.contains("nothing unfinished; deferred 2, completed 2"));
}

/// The whole answer to a GET, on a connection of its own.
fn get(address: SocketAddr, path: &str) -> String {
    ask(address, "GET", path)
}

/// The whole answer, on a connection of its own.
fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let request =
        format!("{method} /{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// An answer that has begun.
fn open_stream(address: SocketAddr, path: &str) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
    stream.get_ref().set_read_timeout(Some(WATCHDOG)).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    while line != "open\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no stream");
    }
    stream
}

/// An example, running.
struct Server {
    child: Arc<Mutex<Child>>,
    pid: Pid,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
    /// Dropped when the process is known to have ended: the watchdog goes home.
    _watched: Sender<()>,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        Server::of("shutdown", arguments, LONG_MS)
    }

    fn of(name: &'static str, arguments: &[&str], limit_ms: u32) -> Server {
        let mut child = Command::new(example(name))
            .args(arguments)
            .env("LIMIT_MS", limit_ms.to_string())
            .env("ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        let child = Arc::new(Mutex::new(child));
        let (watched, ended) = mpsc::channel();
        let hung = child.clone();
        thread::spawn(move || {
            if ended.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                // Through the `Child`, which knows whether there is still somebody to kill.
                let _ = hung.lock().unwrap().kill();
            }
        });
        let mut server = Server {
            child,
            pid,
            output,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            _watched: watched,
        };
        let line = server.line();
        let address = line
            .split_once(" on http://")
            .map(|(_, rest)| rest.trim_end());
        let address = address.and_then(|rest| rest.split(';').next());
        server.address = address.expect(&line).parse().unwrap();
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// SIGTERM. The process is a child that nobody has waited for, so the number is still its own.
    fn terminate(&self) {
        signal::kill(self.pid, SIGTERM).unwrap();
    }

    /// Waits for its end; gives what else it has printed.
    fn end(&mut self) -> (ExitStatus, String) {
        let mut output = String::new();
        // Up to the end of the process, or of the watchdog's patience.
        self.output.read_to_string(&mut output).unwrap();
        loop {
            // Not `wait`: the watchdog needs the lock.
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            if let Some(status) = ended {
                return (status, output);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    /// A test that fails leaves nothing behind. Nothing happens if the end has been seen.
    fn drop(&mut self) {
        let Ok(mut child) = self.child.lock() else {
            return;
        };
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The program of an example. `cargo test` builds them; `cargo test --test shutdown_process` does not, and an old one that
/// is there is used: `cargo build --all-features --examples` makes them new.
fn example(name: &str) -> PathBuf {
    static BUILDS: Mutex<()> = Mutex::new(());
    // `<target>/<profile>/deps/<this test>`.
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(name);
    let _one_at_a_time = BUILDS.lock().unwrap_or_else(PoisonError::into_inner);
    if !example.exists() {
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--locked", "--features", "tower"])
            .args(["--example", name, "--target-dir"])
            .arg(profile.parent().unwrap())
            .args(profile.ends_with("release").then_some("--release"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().unwrap().success());
    }
    example
}

/// A file for the lines, removed at the end.
struct Log {
    path: PathBuf,
}

impl Log {
    fn new(name: &str) -> Log {
        let name = format!("after-shutdown-{}-{name}.log", std::process::id());
        let path = env::temp_dir().join(name);
        // Of an earlier process with the same number.
        let _ = fs::remove_file(&path);
        Log { path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn lines(&self) -> Vec<u64> {
        let text = fs::read_to_string(&self.path).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "half a line: {text}"
        );
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What the clients of one run share.
#[derive(Default)]
struct Load {
    answered: AtomicU64,
    /// Before the signal no request may fail.
    signalled: AtomicBool,
}

impl Load {
    /// Asks until the server is gone. Each id is sent once and never again; gives those that were answered in full.
    fn ask(&self, client: u64, address: SocketAddr) -> Vec<u64> {
        let keeps = client.is_multiple_of(2);
        let mut connection = None;
        let mut answered = Vec::new();
        for request in 0..MOST_REQUESTS {
            let id = client * MOST_REQUESTS + request;
            let answer = Connection::take_or_open(&mut connection, address, keeps)
                .and_then(|connection| connection.ask(id));
            let stays = match answer {
                Ok(stays) => {
                    answered.push(id);
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    stays
                }
                Err(error) => {
                    let signalled = self.signalled.load(Ordering::Acquire);
                    assert!(signalled, "request {id} before the signal: {error}");
                    // Refused, or cut: it stays unanswered, and nobody was promised anything.
                    break;
                }
            };
            if !stays {
                connection = None;
            }
        }
        answered
    }
}

/// One connection of HTTP/1.1, with no client library that might retry.
struct Connection {
    stream: BufReader<TcpStream>,
    keep: bool,
}

impl Connection {
    fn open(address: SocketAddr, keep: bool) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WATCHDOG))?;
        let stream = BufReader::new(stream);
        Ok(Connection { stream, keep })
    }

    fn take_or_open(
        connection: &mut Option<Connection>,
        address: SocketAddr,
        keep: bool,
    ) -> io::Result<&mut Connection> {
        match connection {
            Some(connection) => Ok(connection),
            None => Ok(connection.insert(Connection::open(address, keep)?)),
        }
    }

    /// Sends one request and reads all of its answer. Returns whether the connection can take another one.
    fn ask(&mut self, id: u64) -> io::Result<bool> {
        let connection = if self.keep { "keep-alive" } else { "close" };
        let request = format!(
            "GET /work?id={id} HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\n\r\n"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;

        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        if status.is_empty() {
            return Err(cut());
        }
        assert!(status.starts_with("HTTP/1.1 200 "), "{status}");
        let (mut length, mut stays) = (None, self.keep);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line
                .strip_suffix("\r\n")
                .ok_or_else(cut)?
                .to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse::<usize>().ok(),
                Some(("connection", "close")) => stays = false,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length.expect("a length")];
        self.stream.read_exact(&mut body)?;
        assert_eq!(body, format!("accepted {id}\n").into_bytes());
        Ok(stays)
    }
}
