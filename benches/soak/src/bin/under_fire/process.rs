//! The server as a process, seen from outside.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{AnyError, serve};

/// A process that is still there after this is killed, and its run has failed.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Killed when it is dropped, if it is still there.
pub(crate) struct Server {
    child: Arc<Mutex<Child>>,
    pid: Pid,
    output: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
    /// Dropped when the process is known to have ended: the watchdog goes home.
    _watched: Sender<()>,
}

impl Server {
    pub(crate) fn start(runtime: &str, log: &Path, limit: Duration) -> Result<Server, AnyError> {
        let mut command = Command::new(env::current_exe()?);
        command.args([serve::ARGUMENT, runtime]).arg(log);
        command.arg(limit.as_millis().to_string());
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let pid = Pid::from_raw(child.id().try_into()?);
        let output = child.stdout.take().ok_or("no output")?;
        let child = Arc::new(Mutex::new(child));
        let (watched, ended) = mpsc::channel();
        let hung = child.clone();
        thread::spawn(move || {
            if ended.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                // Through the `Child`, which knows whether there is still somebody to kill.
                let _ = lock(&hung).kill();
            }
        });
        let mut server = Server {
            child,
            pid,
            output: BufReader::new(output),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            _watched: watched,
        };
        let line = server.line()?;
        let address = line.trim_end().strip_prefix("listening on ");
        server.address = address.ok_or("no address")?.parse()?;
        Ok(server)
    }

    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// The process is a child that nobody has waited for, so the number is still its own.
    pub(crate) fn send(&self, signal: Signal) -> Result<(), AnyError> {
        Ok(signal::kill(self.pid, signal)?)
    }

    /// Waits for its end; gives what else it has printed.
    pub(crate) fn end(mut self) -> Result<(ExitStatus, String), AnyError> {
        // Up to the end of the process, or of the watchdog's patience.
        let output = io::read_to_string(&mut self.output)?;
        loop {
            // Not `wait`: the watchdog needs the lock.
            let ended = lock(&self.child).try_wait()?;
            if let Some(status) = ended {
                return Ok((status, output));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file for the lines of the tasks, removed when it is dropped.
pub(crate) struct Log {
    pub(crate) path: PathBuf,
}

impl Log {
    pub(crate) fn new() -> Log {
        let path = env::temp_dir().join(format!("after-under-fire-{}.log", process::id()));
        // Of an earlier process with the same number.
        let _ = fs::remove_file(&path);
        Log { path }
    }

    pub(crate) fn ids(&self) -> Result<Vec<u64>, AnyError> {
        let text = fs::read_to_string(&self.path)?;
        Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
