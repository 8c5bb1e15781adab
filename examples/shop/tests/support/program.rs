//! The program itself, and a collector of analytics that answers when it is told to.

use std::{future::Future, process::Stdio, time::Duration};

use axum::{Router, http::StatusCode, routing::post};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    sync::watch,
};

/// What hangs fails the test. Nothing here takes a hundredth of it.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let ended = tokio::time::timeout(Duration::from_secs(60), future).await;
    ended.unwrap_or_else(|_| panic!("this has not come: {what}"))
}

/// Collects analytics, and answers when the test says so.
pub(crate) struct Collector {
    pub(crate) url: String,
    asked: watch::Receiver<u32>,
    answer: watch::Sender<bool>,
}

impl Collector {
    pub(crate) async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asking, asked) = watch::channel(0);
        let (answer, answered) = watch::channel(false);
        let collect = async move || {
            asking.send_modify(|times| *times += 1);
            answered
                .clone()
                .wait_for(|answered| *answered)
                .await
                .unwrap();
            StatusCode::ACCEPTED
        };
        let app = Router::new().route("/", post(collect));
        tokio::spawn(async { axum::serve(listener, app).await });
        Collector { url, asked, answer }
    }

    pub(crate) async fn asked(&mut self) {
        soon(
            "a question to the collector",
            self.asked.wait_for(|times| *times > 0),
        )
        .await
        .unwrap();
    }

    pub(crate) fn answer(&self) {
        self.answer.send_replace(true);
    }
}

/// The program. Killed when the test ends, however it ends.
pub(crate) struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    pub(crate) address: String,
    // Of its temporary files: a program that is killed leaves them.
    _folder: TempDir,
}

impl Program {
    /// On a port that the system chooses, with neighbours that take no time, unless the settings say otherwise.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
            .envs([
                ("PORT", "0"),
                ("NEIGHBOUR_MS", "0"),
                ("SHUTDOWN_MS", "60000"),
            ])
            .env("TMPDIR", folder.path())
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        soon("the first line", output.read_line(&mut line))
            .await
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("The shop is open: ")
            .unwrap()
            .to_owned();
        Program {
            child,
            output,
            address,
            _folder: folder,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().unwrap().try_into().unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Its exit code, and what it has printed.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let mut output = String::new();
        soon(
            "the end of its output",
            self.output.read_to_string(&mut output),
        )
        .await
        .unwrap();
        let status = soon("its end", self.child.wait()).await.unwrap();
        (status.code(), output)
    }
}
