//! Sentence 26: errors, panics and losses are never silent.

mod common;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use common::{keeping, now_or_never, polls_to_end};

/// The marker by which a test of this file knows that it is the child process.
const CHILD: &str = "AFTER_TEST_CHILD";

/// Runs one test of this program in a process of its own; gives its standard error.
fn standard_error_of(test: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn is_child(test: &str) -> bool {
    std::env::var_os(CHILD).is_some_and(|child| child == test)
}

/// Without a subscriber failures go to standard error, a line each, with name and place.
#[test]
fn failures_go_to_standard_error_without_a_subscriber() {
    const TEST: &str = "failures_go_to_standard_error_without_a_subscriber";
    if is_child(TEST) {
        std::panic::set_hook(Box::new(|_| ()));
        let (runner, batches) = keeping();
        now_or_never(runner.scope(async {
            after::task("mail").defer(async { Err::<(), _>("no route") });
            after::task("audit").defer(async { panic!("of a task") });
            after::task("fine").defer(async {});
            let keyed = after::task("keyed").key("user:7");
            keyed.defer(async { Err::<(), _>("no route") });
        }));
        polls_to_end(&mut batches.take_one(), 2);
        return;
    }
    let text = standard_error_of(TEST);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("after: "))
        .collect();
    let [mail, audit, keyed] = lines[..] else {
        panic!("three lines: {text}")
    };
    let start = "after: task `keyed` (key `user:7`) deferred at tests/reports.rs:";
    assert!(keyed.starts_with(start), "{keyed}");
    assert!(
        mail.starts_with("after: task `mail` deferred at tests/reports.rs:"),
        "{mail}"
    );
    assert!(mail.ends_with(" failed: no route"), "{mail}");
    assert!(audit.ends_with(" panicked: of a task"), "{audit}");
}

/// Sentence 20: a `main` that ends without `shutdown` gets one summed line, not one a task.
#[cfg(feature = "tokio")]
#[test]
fn a_main_without_shutdown_gets_one_summed_line() {
    const TEST: &str = "a_main_without_shutdown_gets_one_summed_line";
    if is_child(TEST) {
        for builder in [
            &mut tokio::runtime::Builder::new_current_thread(),
            tokio::runtime::Builder::new_multi_thread().worker_threads(2),
        ] {
            let runtime = builder.build().unwrap();
            let runner = after::Runner::builder().build();
            runtime.block_on(async {
                for _ in 0..20 {
                    runner
                        .scope(async {
                            for _ in 0..5 {
                                after::task("mail").defer(std::future::pending::<()>());
                            }
                        })
                        .await;
                    tokio::task::yield_now().await;
                }
            });
            drop(runtime);
            assert_eq!(common::balanced(&runner).lost, 100);
        }
        return;
    }
    let text = standard_error_of(TEST);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("after: "))
        .collect();
    assert_eq!(lines.len(), 2, "one for each runtime: {text}");
    for line in lines {
        assert!(line.starts_with("after: 100 tasks lost"), "{line}");
        assert!(
            line.contains("`mail`") && line.contains("after::shutdown"),
            "{line}"
        );
    }
}

/// A loss while others are pending is reported by itself, not at the end of the process.
#[test]
fn a_loss_beside_pending_tasks_is_reported_by_itself() {
    const TEST: &str = "a_loss_beside_pending_tasks_is_reported_by_itself";
    if is_child(TEST) {
        let (runner, batches) = keeping();
        for _ in 0..2 {
            now_or_never(runner.scope(async { after::task("lost").defer(async {}) }));
        }
        let mut batches = batches.take_all();
        drop(batches.pop());
        // The other stays pending until the parent has read of this one.
        let _ = std::io::stdin().read_line(&mut String::new());
        drop(batches);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, TEST)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The child ends only when this has read the line.
    let line = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.starts_with("after: "));
    assert!(line.unwrap().starts_with("after: 1 task lost"));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// A spawner that does not run what it is given.
struct Refuses;

impl after::Spawner for Refuses {
    fn spawn(&self, batch: after::Batch) {
        // Closures reach `spawn_blocking` only from a batch that is polled.
        assert!(batch.names().eq(["closure"]), "of a spawner");
        polls_to_end(&mut { batch }, 3);
    }

    fn spawn_blocking(&self, work: after::spawner::BlockingWork) {
        drop(work);
    }
}

/// Sentences 21 and 26: a loss says why, and what to do: each reason has a line of its own.
#[test]
fn a_loss_says_why_and_what_to_do() {
    const TEST: &str = "a_loss_says_why_and_what_to_do";
    if is_child(TEST) {
        std::panic::set_hook(Box::new(|_| ()));
        let lose_one = |runner: &after::Runner, name| {
            now_or_never(runner.scope(async { after::task(name).defer(async {}) }));
        };
        let (runner, batches) = common::keeping_with(|builder| {
            let builder = builder.max_running(1).max_waiting(1);
            builder.overflow(after::Overflow::Shed)
        });
        now_or_never(runner.scope(async {
            for _ in 0..8 {
                after::task("shed").defer(async {});
            }
            after::task("shed closure").defer_blocking(|| ());
        }));
        // In one report, and not in one line.
        drop(batches.take_one());
        assert_eq!(common::balanced(&runner).shed, 7);

        lose_one(
            &after::Runner::new(after::spawner::from_fn(drop)),
            "dropped",
        );

        let request = runner.scope(async { after::task("held").defer(async {}) });
        let ((), batch) = now_or_never(request.held());
        drop(batch);
        now_or_never(runner.shutdown(std::time::Duration::ZERO));

        let recorder = after::testing::Recorder::new();
        lose_one(&recorder.runner(), "recorded");
        drop(recorder);

        let (runner, batches) = keeping();
        lose_one(&runner, "cut off");
        let report = now_or_never(runner.shutdown(std::time::Duration::ZERO));
        assert!(!report.is_clean());
        drop(batches.take_one());

        let runner = after::Runner::new(Refuses);
        lose_one(&runner, "refused");
        let runner = after::Runner::new(Refuses);
        now_or_never(runner.scope(async { after::task("closure").defer_blocking(|| ()) }));
        return;
    }
    let text = standard_error_of(TEST);
    let lines = text.lines().filter(|line| line.starts_with("after: "));
    let lines: Vec<_> = lines.collect();
    for (line, (count, why, name)) in lines.iter().zip([
        (
            "7 tasks shed: ",
            "`max_waiting` tasks were waiting",
            "first: `shed` (tests/reports.rs:",
        ),
        (
            "2 tasks lost: ",
            "their runtime or spawner dropped them",
            "first: `shed` (tests/reports.rs:",
        ),
        (
            "1 task lost: ",
            "their runtime or spawner dropped them: await `after::shutdown`",
            "first: `dropped`",
        ),
        (
            "1 task lost: ",
            "their batch was dropped by its holder: await it",
            "first: `held`",
        ),
        (
            "1 task lost: ",
            "a shutdown had reached its limit: give it a longer one",
            "first: `cut off`",
        ),
        (
            "1 task lost: ",
            "their spawner panicked",
            "first: `refused`",
        ),
        ("the spawner panicked: ", "of a spawner", ""),
        (
            "1 task lost: ",
            "the blocking pool dropped them before they ran",
            "first: `closure`",
        ),
    ]) {
        let expected = format!("after: {count}");
        assert!(line.starts_with(&expected), "{expected}: {text}");
        assert!(
            line.contains(why) && line.contains(name),
            "{why}, {name}: {text}"
        );
    }
    // What a recorder was never told to run is counted, and nothing is said of it.
    assert_eq!(lines.len(), 8, "{text}");
    assert!(lines[0].ends_with(" and 2 more"), "{text}");
}

/// With a subscriber they are `error` events, also those of a runtime that goes down.
#[cfg(feature = "tracing")]
mod events {
    use std::{
        fmt::Write as _,
        sync::{Arc, Mutex},
    };

    use tracing::{Event, Level, Subscriber, field::Field};
    use tracing_subscriber::{Layer, layer::SubscriberExt as _};

    use super::common::{keeping, now_or_never, polls_to_end};

    #[derive(Clone, Default)]
    struct Events(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Events {
        fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            assert_eq!(*event.metadata().level(), Level::ERROR);
            assert_eq!(event.metadata().target(), "after");
            struct Fields(String);
            impl tracing::field::Visit for Fields {
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    write!(self.0, "{}={value:?} ", field.name()).unwrap();
                }
            }
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }

    /// Failures are events with the task's name and place.
    #[test]
    fn failures_are_events_with_a_subscriber() {
        let events = Events::default();
        let subscriber = tracing_subscriber::registry().with(events.clone());
        tracing::subscriber::with_default(subscriber, || {
            let (runner, batches) = keeping();
            now_or_never(runner.scope(async {
                after::task("mail").defer(async { Err::<(), _>("no route") });
                after::task("audit").defer(async { panic!("of a task") });
                let lost = after::task("lost").key(String::from("user:7"));
                lost.defer(std::future::pending::<()>());
                let keyed = after::task("keyed").key("user:8");
                keyed.defer(async { Err::<(), _>("no route") });
            }));
            let mut batch = batches.take_one();
            for _ in 0..2 {
                let _ = super::common::poll_once(std::pin::Pin::new(&mut batch));
            }
            drop(batch);
        });
        let events = events.0.lock().unwrap();
        assert_eq!(events.len(), 4, "{events:?}");
        assert!(!events[0].contains("key="), "{events:?}");
        assert!(events[2].contains("key=\"user:8\" "), "{events:?}");
        assert!(events[0].contains("failed: no route"), "{events:?}");
        assert!(events[0].contains("task=\"mail\""), "{events:?}");
        assert!(
            events[0].contains("location=tests/reports.rs:"),
            "{events:?}"
        );
        assert!(events[1].contains("panicked: of a task"), "{events:?}");
        assert!(
            events[3].starts_with("message=1 task lost: "),
            "not said to be of `after` twice: {events:?}"
        );
        for field in [
            "count=1 ",
            "reason=\"dropped\" ",
            "task=\"lost\" ",
            "key=\"user:7\" ",
            "location=tests/reports.rs:",
            "first=\"`lost` (key `user:7`, tests/reports.rs:",
        ] {
            assert!(events[3].contains(field), "{field}: {events:?}");
        }
    }

    /// A subscriber is the user's code: it may panic, and it may defer.
    #[test]
    fn a_subscriber_that_panics_or_defers_hurts_nobody() {
        struct Bad;
        impl<S: Subscriber> Layer<S> for Bad {
            fn on_event(&self, _: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                after::defer(async {});
                panic!("a subscriber's");
            }
        }
        let (runner, batches) = keeping();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Bad), || {
            now_or_never(runner.scope(async {
                after::defer(async { Err::<(), _>("an error") });
                after::defer(async {});
            }));
            polls_to_end(&mut batches.take_one(), 4);
        });
        let stats = super::common::balanced(&runner);
        assert_eq!((stats.failed, stats.completed), (1, 2));
    }
}
