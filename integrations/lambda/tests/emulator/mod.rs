//! A small emulator of the platform: it starts a function's process, serves the runtime API to it on loopback, and stops
//! the process (SIGSTOP) whenever it asks for the next invocation, until there is one (SIGCONT).
//!
//! What it sees goes into one log, in the order in which it was seen. The function's tasks write to it too, over a socket
//! of their own, and go on only when their mark is in the log.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Response, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use http_body_util::BodyExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};

/// Nothing here takes long: what is not seen by then does not come.
const WATCHDOG: Duration = Duration::from_secs(20);

/// What the emulator has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The function has asked for the next invocation, and its process is frozen, if the platform freezes.
    Next,
    /// An invocation was given out, and the process goes on.
    Event(u64),
    /// The whole response of an invocation, as the client has it.
    Response(u64, String),
    /// The error in place of a response.
    Error(u64, String),
    /// What a task has told.
    Mark(String),
    /// A task that has told `wait: ..` may go on.
    Released,
}

#[derive(Clone)]
struct Platform {
    /// Not any more when it is being ended. Locked while a signal is sent.
    freezes: Arc<Mutex<bool>>,
    pid: watch::Sender<Option<Pid>>,
    log: watch::Sender<Vec<Seen>>,
    released: watch::Sender<bool>,
    events: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<(u64, Duration, Value)>>>,
}

/// A function's process under the emulator. Dropped, it is killed, frozen or not.
pub(crate) struct Function {
    child: Child,
    platform: Platform,
    invocations: u64,
    events: mpsc::UnboundedSender<(u64, Duration, Value)>,
    output: Output,
    errors: Output,
}

type Output = Arc<Mutex<String>>;

impl Function {
    /// An example of this crate, under a platform that freezes.
    pub(crate) async fn start(example: &str, kind: &str) -> Function {
        Function::start_on(example, kind, None, None).await
    }

    /// With `concurrency` invocations at a time, and nothing is frozen.
    pub(crate) async fn start_concurrent(example: &str, kind: &str, concurrency: u32) -> Function {
        Function::start_on(example, kind, Some(concurrency), None).await
    }

    /// With this margin before the deadline.
    pub(crate) async fn start_with_margin(example: &str, kind: &str, margin: Duration) -> Function {
        Function::start_on(example, kind, None, Some(margin)).await
    }

    async fn start_on(
        example: &str,
        kind: &str,
        concurrency: Option<u32>,
        margin: Option<Duration>,
    ) -> Function {
        let (events, receiver) = mpsc::unbounded_channel();
        let platform = Platform {
            freezes: Arc::new(Mutex::new(concurrency.is_none())),
            pid: watch::Sender::new(None),
            log: watch::Sender::new(Vec::new()),
            released: watch::Sender::new(false),
            events: Arc::new(tokio::sync::Mutex::new(receiver)),
        };
        let api = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route(
                "/2018-06-01/runtime/invocation/{id}/response",
                post(response),
            )
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2020-01-01/extension/register", post(register))
            .route(
                "/2020-01-01/extension/event/next",
                get(std::future::pending::<()>),
            )
            .with_state(platform.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, api).await.unwrap() });
        let marks = TcpListener::bind("127.0.0.1:0").await.unwrap();

        let mut command = Command::new(program(example));
        command
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", example)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("MARKS", marks.local_addr().unwrap().to_string())
            .env("FUNCTION", kind)
            .env_remove("AWS_LAMBDA_MAX_CONCURRENCY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(concurrency) = concurrency {
            command.env("AWS_LAMBDA_MAX_CONCURRENCY", concurrency.to_string());
        }
        if let Some(margin) = margin {
            command.env("MARGIN_MS", margin.as_millis().to_string());
        }
        tokio::spawn(take_marks(marks, platform.clone()));
        let mut child = command.spawn().expect("the example starts");
        platform.pid.send_replace(Some(pid(&child)));
        let output = read(child.stdout.take().unwrap());
        let errors = read(child.stderr.take().unwrap());
        Function {
            child,
            platform,
            invocations: 0,
            events,
            output,
            errors,
        }
    }

    /// An HTTP request for the function, as its gateway hands it on; returns its number.
    pub(crate) fn get(&mut self, path: &str) -> u64 {
        self.get_within(path, Duration::from_secs(60))
    }

    /// As `get`, with a time limit of the function.
    pub(crate) fn get_within(&mut self, path: &str, limit: Duration) -> u64 {
        let http = json!({
            "method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test",
        });
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
            "headers": { "host": "localhost" }, "isBase64Encoded": false,
            "requestContext": {
                "accountId": "1", "apiId": "1", "domainName": "localhost", "domainPrefix": "localhost", "http": http,
                "requestId": "1", "routeKey": "$default", "stage": "$default", "timeEpoch": 0,
            },
        });
        self.invoke(event, limit)
    }

    pub(crate) fn invoke(&mut self, event: Value, limit: Duration) -> u64 {
        self.invocations += 1;
        self.events.send((self.invocations, limit, event)).unwrap();
        self.invocations
    }

    /// Waits until the log has this; returns where.
    pub(crate) async fn sees(&self, seen: Seen) -> usize {
        self.sees_nth(seen, 1).await
    }

    /// Waits until the log has this for the nth time; returns where.
    pub(crate) async fn sees_nth(&self, seen: Seen, nth: usize) -> usize {
        let place = |log: &[Seen]| {
            let places = log.iter().enumerate().filter(|(_, entry)| **entry == seen);
            places.map(|(place, _)| place).nth(nth - 1)
        };
        let mut log = self.platform.log.subscribe();
        let found = timeout(WATCHDOG, log.wait_for(|log| place(log).is_some())).await;
        match found {
            Ok(log) => place(&log.unwrap()).unwrap(),
            Err(_) => panic!(
                "{seen:?} did not come: {:#?}\n{}",
                self.log(),
                self.errors()
            ),
        }
    }

    pub(crate) fn log(&self) -> Vec<Seen> {
        self.platform.log.borrow().clone()
    }

    /// Lets the tasks go on that have told `wait: ..`, and those to come.
    pub(crate) fn release(&self) {
        self.platform
            .log
            .send_modify(|log| log.push(Seen::Released));
        self.platform.released.send_replace(true);
    }

    /// Whether its process is stopped, as the kernel says.
    pub(crate) fn is_frozen(&self) -> bool {
        is_stopped(pid(&self.child))
    }

    /// As the platform ends it: it is thawed, and has SIGTERM.
    pub(crate) fn terminate(&self) {
        let mut freezes = self.platform.freezes.lock().unwrap();
        *freezes = false;
        kill(pid(&self.child), Signal::SIGTERM).unwrap();
        kill(pid(&self.child), Signal::SIGCONT).unwrap();
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        let polled = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(WATCHDOG, polled).await.expect("it ends")
    }

    /// Waits until its standard output has this.
    pub(crate) async fn says(&self, what: &str) {
        has(&self.output, what).await;
    }

    /// Waits until its standard error has this.
    pub(crate) async fn logs(&self, what: &str) {
        has(&self.errors, what).await;
    }

    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // What has ended already is still ours until it is waited for, so these reach nobody else.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(pid(&self.child), Signal::SIGCONT);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Platform {
    fn freezes(&self, pid: Pid) -> bool {
        let freezes = self.freezes.lock().unwrap();
        if *freezes {
            kill(pid, Signal::SIGSTOP).unwrap();
        }
        *freezes
    }

    fn saw(&self, seen: Seen) {
        self.log.send_modify(|log| log.push(seen));
    }
}

async fn next(State(platform): State<Platform>) -> impl IntoResponse {
    let mut started = platform.pid.subscribe();
    let pid = started
        .wait_for(|pid| pid.is_some())
        .await
        .unwrap()
        .unwrap();
    if platform.freezes(pid) {
        // It is sent, and takes effect when each thread has come by.
        while !is_stopped(pid) && *platform.freezes.lock().unwrap() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    platform.saw(Seen::Next);
    // With the lock: one event is for one who asks.
    let event = platform.events.lock().await.recv().await;
    let Some((id, limit, event)) = event else {
        return std::future::pending().await;
    };
    platform.saw(Seen::Event(id));
    // One that goes on already does not mind.
    kill(pid, Signal::SIGCONT).unwrap();
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + limit;
    Response::builder()
        .header("lambda-runtime-aws-request-id", id.to_string())
        .header(
            "lambda-runtime-deadline-ms",
            deadline.as_millis().to_string(),
        )
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:test")
        .body(Body::from(event.to_string()))
        .unwrap()
}

async fn response(State(platform): State<Platform>, Path(id): Path<u64>, body: Body) -> StatusCode {
    let body = whole(body).await;
    platform.saw(Seen::Response(id, body));
    StatusCode::ACCEPTED
}

async fn error(State(platform): State<Platform>, Path(id): Path<u64>, body: Body) -> StatusCode {
    let body = whole(body).await;
    platform.saw(Seen::Error(id, body));
    StatusCode::ACCEPTED
}

/// What the client has: of an answer in one piece its `body`, of a streamed one what comes after the head.
async fn whole(body: Body) -> String {
    let bytes = body
        .collect()
        .await
        .expect("the function sends it all")
        .to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if let Some((_, streamed)) = text.split_once("\0\0\0\0\0\0\0\0") {
        return streamed.to_owned();
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::String(answer)) => answer,
        Ok(answer) => answer["body"].as_str().map_or(text, str::to_owned),
        Err(_) => text,
    }
}

async fn register() -> impl IntoResponse {
    let registered = json!({
        "functionName": "function", "functionVersion": "1", "handler": "bootstrap", "accountId": "1",
    });
    (
        [("lambda-extension-identifier", "an-extension")],
        registered.to_string(),
    )
}

async fn take_marks(listener: TcpListener, platform: Platform) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let platform = platform.clone();
        tokio::spawn(async move {
            let (reader, mut writer) = socket.split();
            let mut line = String::new();
            let read = tokio::io::BufReader::new(reader).read_line(&mut line).await;
            if read.is_err() || line.is_empty() {
                return;
            }
            let mark = line.trim_end().to_owned();
            let waits = mark.starts_with("wait: ");
            platform.saw(Seen::Mark(mark));
            if waits {
                let mut released = platform.released.subscribe();
                released.wait_for(|released| *released).await.unwrap();
            }
            // The process may have been killed meanwhile.
            let _ = writer.write_all(b"\n").await;
        });
    }
}

async fn has(output: &Output, what: &str) {
    let polled = async {
        while !output.lock().unwrap().contains(what) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(WATCHDOG, polled).await.is_err() {
        panic!("{what:?} did not come: {}", output.lock().unwrap());
    }
}

fn read(pipe: impl Read + Send + 'static) -> Output {
    let output = Output::default();
    let written = output.clone();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut written = written.lock().unwrap();
            written.push_str(&line);
            written.push('\n');
        }
    });
    output
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
}

/// Its state, and that of each of its threads.
fn is_stopped(pid: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // After the name, which may have anything in it but ends with the last bracket.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// An example's program. `cargo test` builds them; `cargo test --test lambda` does not, and an old one that is there is
/// used: `cargo build -p after-lambda --examples` makes them new.
fn program(example: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("the test's own program");
    path.pop();
    path.pop();
    path.join("examples").join(example)
}
