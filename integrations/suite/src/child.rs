//! Another process, line by line, until it is told to stop.

use std::process::Stdio;

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::GUARD;

/// A process, and what it prints. Dropping it kills it.
pub(crate) struct Served {
    process: Child,
    pid: Pid,
    output: Lines<BufReader<ChildStdout>>,
    /// What was read so far.
    pub(crate) lines: Vec<String>,
}

impl Served {
    pub(crate) fn start(command: &mut Command) -> Served {
        let command = command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let pid = Pid::from_raw(process.id().unwrap().try_into().unwrap());
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Served {
            process,
            pid,
            output,
            lines: Vec::new(),
        }
    }

    /// The next line, or `None` when it prints no more.
    pub(crate) async fn next(&mut self) -> Option<&str> {
        let line = timeout(GUARD, self.output.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("no line after {:#?}", self.lines));
        self.lines.push(line.unwrap()?);
        self.lines.last().map(String::as_str)
    }

    pub(crate) fn terminate(&self) {
        signal::kill(self.pid, Signal::SIGTERM).unwrap();
    }

    /// Waits until it has ended, with code 0, and gives all its lines.
    pub(crate) async fn ended(mut self) -> Vec<String> {
        while self.next().await.is_some() {}
        let status = timeout(GUARD, self.process.wait()).await;
        let status = status.expect("the process ends").unwrap();
        assert_eq!(status.code(), Some(0), "{:#?}", self.lines);
        self.lines
    }
}
