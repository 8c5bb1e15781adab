//! What each feature costs that is turned on: three tasks a request with it, against three plain ones, on tokio's
//! current-thread runtime. `cargo bench --bench features`.

mod common;

use std::task::{Context, Poll};
use std::{future::Future, pin::Pin, time::Duration};

use after::Runner;
use common::{
    clock::Clock,
    measure::{Candidate, Plan},
    processes,
    results::{Figure, Key, Sheet},
    table::{pivot, select, spread},
    wakes::{Meeting, Woken},
};
use tokio::runtime::{Builder, Runtime};

const FEATURES: Sheet = Sheet {
    name: "features",
    value: "median_ns",
    ratio: "ratio_to_plain",
};

const TASKS: usize = 3;
const HOUR: Duration = Duration::from_secs(3_600);

/// A request that defers its tasks in one way.
struct Request {
    meeting: &'static Meeting,
    defer: fn(Woken),
}

impl Future for Request {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        for task in 0..TASKS {
            (self.defer)(self.meeting.task(task, 0));
        }
        Poll::Ready(())
    }
}

/// Requests on one runtime, measured against plain ones.
struct Rows {
    runtime: Runtime,
    meeting: &'static Meeting,
}

impl Rows {
    fn row<S: Future>(&self, feature: &str, scope: impl Fn(Request) -> S, defer: fn(Woken)) {
        let plain = self.candidate("plain", after::scope, |task| after::defer(task));
        let with = self.candidate("with it", scope, defer);
        let key = Key::new(FEATURES, "tokio_current_thread", TASKS as u64, 0, feature);
        Plan::new(Clock::Real).compare(&key, "plain", vec![with, plain]);
    }

    fn candidate<'a, S: Future>(
        &'a self,
        name: &'static str,
        scope: impl Fn(Request) -> S + 'a,
        defer: fn(Woken),
    ) -> Candidate<'a> {
        let meeting = self.meeting;
        Candidate::new(name, move |requests| {
            self.runtime.block_on(async {
                for _ in 0..requests {
                    meeting.expect(TASKS as u64);
                    scope(Request { meeting, defer }).await;
                    meeting.all_arrived().await;
                }
            });
        })
    }

    /// With a Runner that has it for all its tasks.
    fn runner(&self, feature: &str, runner: &Runner) {
        self.row(
            feature,
            |request| runner.scope(request),
            |task| after::defer(task),
        );
    }
}

struct Watches;
impl after::Observer for Watches {}

fn measure() {
    // Time limits need a timer.
    let runtime = Builder::new_current_thread().enable_time().build();
    let rows = Rows {
        runtime: runtime.expect("a runtime"),
        meeting: Meeting::leaked(TASKS),
    };
    let named = |feature, defer| rows.row(feature, after::scope, defer);
    named("a name", |task| after::task("named").defer(task));
    named("a condition", |task| {
        after::task("named").on_success().defer(task);
    });
    named("a key", |task| {
        // One of them is taken back.
        after::task("named").key("key").defer(async {});
        after::forget("key");
        after::defer(task);
    });
    named("a time limit", |task| {
        after::task("named").timeout(HOUR).defer(task);
    });
    named("`spawned`", |task| {
        after::task("named").spawned().defer(task)
    });
    named("a context value", |task| {
        after::context::set(7_u64);
        after::defer(task);
    });
    named("a handle", |task| after::handle().defer(task));
    rows.runner("a Runner of your own", &Runner::builder().build());
    let builder = Runner::builder;
    rows.runner("`task_timeout`", &builder().task_timeout(HOUR).build());
    rows.runner("`scope_timeout`", &builder().scope_timeout(HOUR).build());
    rows.runner("`max_running`", &builder().max_running(1_000).build());
    rows.runner("an observer", &builder().observer(Watches).build());
    rows.runner("`on_defer`", &builder().on_defer(|_, task| task).build());
}

fn tables(figures: &[Figure]) -> String {
    let rows = select(figures, FEATURES.name, &["plain"], |_| true);
    pivot(
        &rows,
        "three tasks, each",
        |figure| figure.key.mode.clone(),
        spread,
    )
}

fn main() {
    processes::run("features", &[FEATURES], measure, tables);
}
