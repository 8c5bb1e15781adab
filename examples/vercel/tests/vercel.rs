//! The function as a process, on the runtime of Vercel as it is, with what the platform has at the other end: a socket on
//! which the runtime says that it has started, and when an invocation has ended.
#![cfg(unix)]

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Nothing takes this long: then it is stuck.
const STUCK: Duration = Duration::from_secs(60);

struct Function {
    process: Child,
    port: u16,
    /// To the platform: messages of JSON, each with a zero byte at its end.
    platform: BufReader<UnixStream>,
    /// The service that the audit waits for.
    audit: TcpListener,
    socket: PathBuf,
}

impl Function {
    fn start() -> Function {
        let audit = TcpListener::bind("127.0.0.1:0").unwrap();
        // The runtime says the port that it was given, so zero would not do.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let socket = env::temp_dir().join(format!("after-vercel-{port}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_vercel-example"))
            .env("VERCEL_IPC_PATH", &socket)
            .env("VERCEL_DEV_PORT", port.to_string())
            .env("AUDIT", audit.local_addr().unwrap().to_string())
            .env_remove("VERCEL_DEV")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (platform, _) = listener.accept().unwrap();
        platform.set_read_timeout(Some(STUCK)).unwrap();
        let mut function = Function {
            process,
            port,
            platform: BufReader::new(platform),
            audit,
            socket,
        };
        assert_eq!(function.message()["type"], "server-started");
        function
    }

    fn message(&mut self) -> serde_json::Value {
        let mut message = Vec::new();
        self.platform.read_until(0, &mut message).unwrap();
        message.pop();
        serde_json::from_slice(&message).unwrap()
    }

    fn has_said_nothing(&mut self) -> bool {
        let stream = self.platform.get_ref();
        stream.set_nonblocking(true).unwrap();
        let said = self.platform.fill_buf().map(<[u8]>::len);
        self.platform.get_ref().set_nonblocking(false).unwrap();
        said.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// An invocation. Returns the answer, once it is there as a whole.
    fn invoke(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(STUCK)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             x-vercel-internal-invocation-id: first\r\nx-vercel-internal-request-id: 7\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Whether it takes connections. On a machine that stands still it seems that it does not: nothing fails by that.
    fn answers(&self) -> bool {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let second = Duration::from_secs(1);
        stream.set_read_timeout(Some(second)).unwrap();
        write!(
            stream,
            "GET /_vercel/ping HTTP/1.1\r\nhost: localhost\r\n\r\n"
        )
        .unwrap();
        stream.read(&mut [0]).is_ok_and(|read| read > 0)
    }

    /// The audit that waits, and what it has said.
    fn audit(&self) -> (TcpStream, String) {
        let (stream, _) = self.audit.accept().unwrap();
        stream.set_read_timeout(Some(STUCK)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (stream, line)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// All that the function has printed, once its process has gone.
    fn output(&mut self) -> (String, String) {
        let (mut out, mut error) = (String::new(), String::new());
        let stdout = self.process.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut out).unwrap();
        let stderr = self.process.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut error).unwrap();
        (out, error)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// The client has its answer while the audit waits; the invocation ends when the audit has, and not before.
#[test]
fn the_invocation_lasts_until_the_deferred_work_has_ended() {
    let mut function = Function::start();
    assert!(function.invoke("/order").ends_with("\r\n\r\nordered"));

    let (mut audit, line) = function.audit();
    assert_eq!(line, "finished\n");
    assert!(function.has_said_nothing());
    audit.write_all(b"!").unwrap();

    let end = function.message();
    assert_eq!(end["type"], "end");
    assert_eq!(end["payload"]["context"]["requestId"], 7);
    // From here on the platform may stop the instance.
    function.signal(Signal::SIGKILL);
    let (out, _) = function.output();
    assert!(
        out.contains("the audit of what has finished is stored"),
        "{out}"
    );
}

/// The work of a handler that fails runs as well, and knows how it has ended.
#[test]
fn the_deferred_work_of_a_handler_that_fails_runs() {
    let mut function = Function::start();
    assert!(function.invoke("/sold-out").starts_with("HTTP/1.1 500 "));
    let (mut audit, line) = function.audit();
    assert_eq!(line, "failed\n");
    audit.write_all(b"!").unwrap();
    assert_eq!(function.message()["type"], "end");
}

/// A task that fails is reported on standard error, which is the function's log, and the invocation ends.
#[test]
fn a_failed_task_is_reported_and_the_invocation_ends() {
    let mut function = Function::start();
    assert!(function.invoke("/order").ends_with("\r\n\r\nordered"));
    let (audit, _) = function.audit();
    drop(audit);
    assert_eq!(function.message()["type"], "end");
    function.signal(Signal::SIGKILL);
    let (_, error) = function.output();
    assert!(
        error.contains("after: task `audit` deferred at "),
        "{error}"
    );
    assert!(error.contains(" failed: "), "{error}");
}

/// At SIGTERM the runtime waits for what it was given.
#[test]
fn a_function_that_is_told_to_stop_ends_its_deferred_work() {
    let mut function = Function::start();
    assert!(function.invoke("/order").ends_with("\r\n\r\nordered"));
    let (mut audit, _) = function.audit();
    function.signal(Signal::SIGTERM);
    // It takes no connection any more, and is there.
    while function.answers() {}
    assert!(function.process.try_wait().unwrap().is_none());
    audit.write_all(b"!").unwrap();
    let (out, _) = function.output();
    assert!(
        out.contains("the audit of what has finished is stored"),
        "{out}"
    );
    assert!(out.contains("nothing unfinished"), "{out}");
    assert!(function.process.wait().unwrap().success());
}

/// The contrast: the platform does not know of what a handler has spawned, and the invocation ends in the middle of it.
#[test]
fn the_invocation_does_not_wait_for_what_was_spawned() {
    let mut function = Function::start();
    assert!(function.invoke("/spawned").ends_with("\r\n\r\nordered"));
    let (_audit, _) = function.audit();
    assert_eq!(function.message()["type"], "end");
    function.signal(Signal::SIGKILL);
    let (out, _) = function.output();
    assert!(!out.contains("is stored"), "{out}");
}

/// What the page of the documentation shows is in the example.
#[test]
fn the_programs_of_the_documentation_are_the_example() {
    let page = include_str!("../../../docs/serverless.md");
    let example = include_str!("../src/main.rs");
    let (_, page) = page.split_once("\n## Vercel\n").unwrap();
    let (page, _) = page.split_once("\n## ").unwrap();
    let programs = page.split("```rust\n").skip(1);
    let programs: Vec<_> = programs
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(programs.len(), 2);
    for program in programs {
        assert!(example.contains(program), "{program}");
    }
}
