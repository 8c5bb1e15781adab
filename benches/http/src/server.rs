//! A server as another process.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{Failure, cell::Cell, usage::Counts, variant::Variant, work::Task};

/// Ends with this.
pub(crate) struct Server {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) address: String,
}

impl Server {
    /// On any core, if it is not given one.
    pub(crate) fn start(
        cell: Cell,
        variant: Variant,
        task: Task,
        core: Option<usize>,
    ) -> Result<Server, Failure> {
        let mut child = Command::new(env::current_exe()?)
            .args([
                "serve",
                variant.name(),
                &cell.workers.to_string(),
                &task.to_string(),
            ])
            .args(core.map(|core| core.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = child.stdin.take().ok_or("a server without an input")?;
        let answers = child.stdout.take().ok_or("a server without an output")?;
        let mut server = Server {
            child,
            questions,
            answers: BufReader::new(answers),
            address: String::new(),
        };
        server.address = server.read()?;
        Ok(server)
    }

    pub(crate) fn counts(&mut self) -> Result<Counts, Failure> {
        writeln!(self.questions, "counts")?;
        self.read()?.parse()
    }

    fn read(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim_end() {
            "" => Err("a server has gone".into()),
            line => Ok(line.to_owned()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have gone by itself; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
