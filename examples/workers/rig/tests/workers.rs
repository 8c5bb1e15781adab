//! The example under workerd, the runtime of Cloudflare Workers. `test.sh` builds it, and says where it is.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use wasm_bindgen_cli_support::Bindgen;

/// Nothing takes this long: then it is stuck.
const STUCK: Duration = Duration::from_secs(60);

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run examples/workers/test.sh"))
}

/// The module and its JavaScript, as `worker-build` makes them.
fn worker() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("worker");
        let _ = fs::remove_dir_all(&folder);
        let mut bindgen = Bindgen::new();
        bindgen
            .input_path(setting("WORKER_WASM"))
            .out_name("worker")
            .typescript(false);
        bindgen.bundler(true).unwrap().generate(&folder).unwrap();
        fs::write(folder.join("worker.mjs"), include_str!("../worker.mjs")).unwrap();
        folder
    })
}

/// The snippets of crates, by their paths.
fn snippets(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder.join("snippets")).unwrap() {
        for file in fs::read_dir(entry.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            all.push(
                path.strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    all
}

/// workerd, with the Worker on a port of loopback.
struct Workerd {
    process: Child,
    port: u16,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Workerd {
    /// With the address of the audit service.
    fn start(audit: &str) -> Workerd {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let folder = worker();
        let modules: String = ["worker.mjs", "worker_bg.js"]
            .map(String::from)
            .into_iter()
            .chain(snippets(folder))
            .map(|path| format!("(name = \"{path}\", esModule = embed \"{path}\"), "))
            .collect();
        let config = format!(
            r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker), (name = "loopback", network = (allow = ["private"]))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [{modules}(name = "worker_bg.wasm", wasm = embed "worker_bg.wasm")],
  bindings = [(name = "AUDIT", text = "{audit}")],
  globalOutbound = "loopback",
  compatibilityDate = "2026-11-17",
);"#
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = folder.join(format!("{number}.capnp"));
        fs::write(&file, config).unwrap();
        // It tells its port on standard output, in a line of JSON. What the Worker says at `console.log` comes there too,
        // and what it says at `console.error` on standard error.
        let mut process = Command::new(setting("WORKERD"))
            .arg("serve")
            .arg(&file)
            .arg("--control-fd=1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let out: Box<dyn Read + Send> = Box::new(process.stdout.take().unwrap());
        let error: Box<dyn Read + Send> = Box::new(process.stderr.take().unwrap());
        for (stream, prefix) in [(out, ""), (error, "error: ")] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(format!("{prefix}{line}"));
                }
            });
        }
        let mut workerd = Workerd {
            process,
            port: 0,
            lines,
            seen: Vec::new(),
        };
        let line = workerd.line("\"port\":");
        let digits = line.split("\"port\":").nth(1).unwrap();
        workerd.port = digits.trim_end_matches('}').parse().unwrap();
        workerd.seen.clear();
        workerd
    }

    /// Status and body of the answer, once it is there as a whole.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(STUCK)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, body.to_owned())
    }

    /// Waits for a line that contains this; those before it are kept in `seen`.
    fn line(&mut self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(STUCK);
            let line = line.unwrap_or_else(|_| panic!("`{part}` is not among {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The client has its whole answer while the audit waits for its service, and the audit is done afterwards: `wait_until`
/// keeps the invocation alive.
#[test]
fn the_client_does_not_wait_for_the_audit() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut workerd = Workerd::start(&format!("http://{}/", service.local_addr().unwrap()));

    assert_eq!(workerd.get("/order"), (200, "ordered".into()));

    // Nobody has answered the audit so far.
    let (mut audit, _) = service.accept().unwrap();
    let mut request = [0; 4];
    audit.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"POST");
    assert_eq!(workerd.seen, [""; 0]);
    audit
        .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    workerd.line("audit: 201, Some(Finished)");
}

/// Sentence 13: a task that fails is reported, where a Worker shows it.
#[test]
fn a_failed_task_is_seen_at_console_error() {
    let mut workerd = Workerd::start("");
    assert_eq!(workerd.get("/failing-task"), (200, "sent later".into()));
    let line = workerd.line("mail");
    assert!(
        line.starts_with("error: after: task `mail` deferred at src/checks.rs:"),
        "{line}"
    );
    assert!(line.ends_with(" failed: connection refused"), "{line}");
}

/// An error of `worker`, from a future of JavaScript, is one as well: nobody listens there.
#[test]
fn a_failed_fetch_of_a_task_is_seen_at_console_error() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut workerd = Workerd::start(&format!("http://{nobody}/"));
    assert_eq!(workerd.get("/order"), (200, "ordered".into()));
    workerd.line("error: after: task `audit` deferred at src/lib.rs:");
}

/// Sentence 17: a time limit ends a task, and its sibling goes on.
#[test]
fn a_task_past_its_time_limit_is_ended_and_reported() {
    let mut workerd = Workerd::start("");
    assert_eq!(workerd.get("/timeout"), (200, "told later".into()));
    let line = workerd.line("webhook");
    assert!(line.starts_with("error: after: task `webhook`"), "{line}");
    assert!(line.ends_with(" timed out after 50ms"), "{line}");
    workerd.line("the sibling has ended");
}

/// A closure runs after the response, in its turn, in the request's scope.
#[test]
fn a_closure_runs_in_its_turn_on_the_only_thread() {
    let mut workerd = Workerd::start("");
    assert_eq!(workerd.get("/closure"), (200, "drawn later".into()));
    workerd.line("closure: 499999500000, Some(Finished)");
    assert_eq!(
        workerd.seen,
        [
            "the handler has ended",
            "before the closure",
            "closure: 499999500000, Some(Finished)"
        ]
    );
}

/// Sentence 12: conditions know that the handler has failed.
#[test]
fn the_outcome_of_a_handler_that_fails_is_known() {
    let mut workerd = Workerd::start("");
    assert_eq!(workerd.get("/error").0, 500);
    workerd.line("apology: Some(Failed)");
    assert!(
        !workerd.seen.contains(&"a receipt".into()),
        "{:?}",
        workerd.seen
    );
}

/// Sentence 15: what comes through a handle after the request runs on the Runner's spawner.
#[test]
fn late_work_runs_on_the_spawner_and_is_drained() {
    let mut workerd = Workerd::start("");
    assert_eq!(workerd.get("/late"), (200, "more later".into()));
    workerd.line("late: Some(Finished)");
}

/// Sentence 10: without a spawner the tasks are lost, counted, and a line says what to do.
#[test]
fn without_a_spawner_the_loss_is_reported() {
    let mut workerd = Workerd::start("");
    let (_, stats) = workerd.get("/no-spawner");
    assert!(stats.ends_with("lost 1, pending 0"), "{stats}");
    workerd.line("error: after: no thread can be started here");
    workerd.line("error: after: 1 task lost");
}

/// Sentences 19 to 21: an observer, `max_running` and `drain` work there.
#[test]
fn an_observer_a_limit_and_drain_work() {
    let workerd = Workerd::start("");
    let (_, answer) = workerd.get("/runner");
    assert_eq!(
        answer,
        "pending 2, most 1, slow true, quick true, deferred 2, completed 2, failed 0, panicked 0, timed out 0, \
         discarded 0, shed 0, lost 0, pending 0"
    );
}

/// Sentence 21: requests may share a limit, if each is polled in its own context.
#[test]
fn requests_share_a_limit() {
    let mut workerd = Workerd::start("");
    for _ in 0..3 {
        assert_eq!(workerd.get("/limit"), (200, "later".into()));
    }
    workerd.line("permit 3 is given back");
    let permits =
        (1..=3).flat_map(|n| ["taken", "given back"].map(|what| format!("permit {n} is {what}")));
    assert_eq!(workerd.seen, permits.collect::<Vec<_>>());
}

/// Sentence 20: a shutdown waits until its limit, and names what is unfinished then.
#[test]
fn a_shutdown_waits_until_its_limit() {
    let workerd = Workerd::start("");
    let (_, answer) = workerd.get("/shutdown");
    assert!(
        answer.starts_with("1 unfinished after 80ms: `stuck` (src/checks.rs:"),
        "{answer}"
    );
    assert!(answer.ends_with("lost 0, pending 1"), "{answer}");
}

/// What the page of the documentation shows is in the example.
#[test]
fn the_programs_of_the_documentation_are_the_example() {
    let page = include_str!("../../../../docs/serverless.md");
    let example = include_str!("../../src/lib.rs");
    let (_, page) = page.split_once("\n## Cloudflare Workers\n").unwrap();
    let programs = page.split("```rust\n").skip(1);
    let programs: Vec<_> = programs
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(programs.len(), 3);
    for program in programs {
        assert!(example.contains(program), "{program}");
    }
}
