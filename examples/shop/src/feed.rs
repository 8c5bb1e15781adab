//! What the page is told: the last requests with their tasks, the last lines of the log, and whether the shop is stopping.
//!
//! Everything that changes gets the next version, and a page asks for what is newer than it has seen. So one that is slow
//! gets several changes at once and misses none, and nothing is kept for it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use after::TaskEnd;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::watch;

const REQUESTS: usize = 24;
const LINES: usize = 60;

/// Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    requests: VecDeque<Versioned<Request>>,
    lines: VecDeque<Versioned<String>>,
    phase: Phase,
}

#[derive(Debug)]
struct Versioned<T> {
    version: u64,
    value: T,
}

/// What the service is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its job.
    #[default]
    Serving,
    /// A signal has come: requests and tasks are waited for.
    Stopping,
    /// Nothing is waited for any more.
    Stopped,
}

/// A request, in milliseconds since the service was started.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    path: String,
    /// When it had come.
    began: f64,
    /// When the response's last byte was taken.
    answered: Option<f64>,
    status: Option<u16>,
    tasks: Vec<Task>,
}

/// A task of a request, or a step of it that could be one.
#[derive(Clone, Debug, Serialize)]
struct Task {
    name: String,
    began: Option<f64>,
    ended: Option<f64>,
    end: Option<&'static str>,
}

/// What is new.
#[derive(Debug, Serialize)]
pub(crate) struct Update {
    #[serde(skip)]
    pub(crate) version: u64,
    pub(crate) phase: Phase,
    pub(crate) requests: Vec<Request>,
    pub(crate) lines: Vec<String>,
}

impl Default for Feed {
    fn default() -> Self {
        Feed {
            shared: Arc::new(Shared {
                started: Instant::now(),
                state: Mutex::default(),
                version: watch::Sender::new(0),
            }),
        }
    }
}

impl Feed {
    /// What has changed since the version that was given out last; 0 at first.
    pub(crate) fn since(&self, seen: u64) -> Update {
        let state = self.state();
        Update {
            version: state.version,
            phase: state.phase,
            requests: newer(&state.requests, seen),
            lines: newer(&state.lines, seen),
        }
    }

    /// Told of each new version.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// A line for the page's log.
    pub(crate) fn line(&self, line: String) {
        self.change(|state, version| {
            if state.lines.len() == LINES {
                state.lines.pop_front();
            }
            let value = line;
            state.lines.push_back(Versioned { version, value });
        });
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.change(|state, _| state.phase = phase);
    }

    /// A request has come in.
    pub(crate) fn request(&self, path: &str) -> u64 {
        let began = self.now();
        self.change(|state, version| {
            if state.requests.len() == REQUESTS {
                state.requests.pop_front();
            }
            let value = Request {
                id: version,
                path: path.into(),
                began,
                answered: None,
                status: None,
                tasks: Vec::new(),
            };
            state.requests.push_back(Versioned { version, value });
            version
        })
    }

    pub(crate) fn answered(&self, id: u64, status: Option<StatusCode>) {
        let now = self.now();
        self.change_request(id, |request| {
            request.answered = Some(now);
            request.status = status.map(|status| status.as_u16());
        });
    }

    pub(crate) fn task_deferred(&self, id: u64, name: &str) {
        self.change_request(id, |request| {
            request.tasks.push(Task {
                name: name.into(),
                began: None,
                ended: None,
                end: None,
            });
        });
    }

    pub(crate) fn task_started(&self, id: u64, name: &str) {
        let now = self.now();
        self.change_request(id, |request| {
            let mut waiting = request.tasks.iter_mut();
            // Those of one name start in the order in which they were deferred.
            let started = waiting
                .find(|task| task.name == name && task.began.is_none() && task.ended.is_none());
            if let Some(task) = started {
                task.began = Some(now);
            }
        });
    }

    /// An observer is not told which of several tasks of one name it was: the one that began when this one did.
    pub(crate) fn task_finished(&self, id: u64, name: &str, ran: Duration, end: &TaskEnd<'_>) {
        let now = self.now();
        let began = now - milliseconds(ran);
        let off = |task: &Task| task.began.map_or(f64::MAX, |at| (at - began).abs());
        self.change_request(id, |request| {
            let running = request.tasks.iter_mut();
            let running = running.filter(|task| task.name == name && task.ended.is_none());
            if let Some(task) = running.min_by(|a, b| off(a).total_cmp(&off(b))) {
                task.ended = Some(now);
                task.end = Some(match end {
                    TaskEnd::Completed => "completed",
                    TaskEnd::Failed(_) => "failed",
                    TaskEnd::Panicked(_) => "panicked",
                    TaskEnd::TimedOut => "timed out",
                    TaskEnd::Discarded => "discarded",
                    TaskEnd::Shed => "shed",
                    _ => "lost",
                });
            }
        });
    }

    /// The tasks of answered requests that have not ended.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let state = self.state();
        let tasks = state
            .requests
            .iter()
            .flat_map(|request| &request.value.tasks);
        let unfinished = tasks.filter(|task| task.ended.is_none());
        unfinished.map(|task| task.name.clone()).collect()
    }

    fn change_request(&self, id: u64, change: impl FnOnce(&mut Request)) {
        self.change(|state, version| {
            // The newest are at the end. One that is no longer kept is nobody's business.
            let mut kept = state.requests.iter_mut().rev();
            if let Some(request) = kept.find(|request| request.value.id == id) {
                request.version = version;
                change(&mut request.value);
            }
        });
    }

    fn change<R>(&self, change: impl FnOnce(&mut State, u64) -> R) -> R {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let changed = change(&mut state, version);
        // Under the lock, so that versions are told in order.
        self.shared.version.send_replace(version);
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let locked = self.shared.state.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> f64 {
        milliseconds(self.shared.started.elapsed())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn newer<T: Clone>(all: &VecDeque<Versioned<T>>, seen: u64) -> Vec<T> {
    let newer = all.iter().filter(|one| one.version > seen);
    newer.map(|one| one.value.clone()).collect()
}
