//! What a task does.

use std::{
    fmt,
    hint::black_box,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::Failure;

/// Tasks of one request.
pub(crate) const TASKS: u64 = 3;

/// Requests that have reached the handler.
pub(crate) static REQUESTS: AtomicU64 = AtomicU64::new(0);
/// Tasks that have ended.
pub(crate) static DONE: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// So many steps of arithmetic: a fixed amount of work, because a clock would count the time for which the thread
    /// was not running.
    Steps(u64),
    /// Waits, as for a database.
    Sleep(Duration),
}

impl Task {
    pub(crate) async fn run(self) {
        match self {
            Task::Steps(steps) => compute(steps),
            Task::Sleep(duration) => tokio::time::sleep(duration).await,
        }
        DONE.fetch_add(1, Relaxed);
    }
}

fn compute(steps: u64) {
    let mut value = 1_u64;
    for step in 0..steps {
        value = black_box(
            value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(step),
        );
    }
}

/// Steps in a microsecond of this machine's CPU. The same figure serves all servers of a recording.
pub(crate) fn steps_in_a_microsecond() -> u64 {
    const STEPS: u64 = 100_000;
    let sample = |_| {
        let start = Instant::now();
        compute(STEPS);
        start.elapsed()
    };
    // The fastest is the one that nothing has interrupted.
    let fastest = (0..200).map(sample).min().unwrap_or_default();
    let nanoseconds = u64::try_from(fastest.as_nanos()).unwrap_or(u64::MAX);
    (STEPS * 1_000 / nanoseconds.max(1)).max(1)
}

impl FromStr for Task {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text.split_once(':') {
            Some(("steps", count)) => Ok(Task::Steps(count.parse()?)),
            Some(("sleep", microseconds)) => {
                Ok(Task::Sleep(Duration::from_micros(microseconds.parse()?)))
            }
            _ => Err("a task is steps:<count> or sleep:<microseconds>".into()),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Steps(steps) => write!(f, "steps:{steps}"),
            Task::Sleep(duration) => write!(f, "sleep:{}", duration.as_micros()),
        }
    }
}
