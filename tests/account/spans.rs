//! Sentences 26 and 27: a task's failure is reported in the span that its hook has entered, once.

use std::{
    fmt::{self, Write as _},
    future::pending,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use after::{Order, Runner, RunnerBuilder, TaskFuture, TaskInfo};
use futures::FutureExt as _;
use tracing::{
    Dispatch, Event, Instrument as _, Subscriber,
    field::{Field, Visit},
    info_span,
    instrument::WithSubscriber as _,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::{LookupSpan, Registry},
};

use crate::common::{
    ByHand, Log, balanced, keeping_with, now_or_never, poll_once, polls_to_end, yields,
};

/// Notes each event of `after`, with the innermost span that it stands in.
struct Notes(Log);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        assert_eq!(event.metadata().target(), "after");
        let span = context.event_span(event);
        let span = span.map_or("none", |span| span.name());
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { task, message } = fields;
        self.0.add(format!("in {span}, {task}: {message}"));
    }
}

#[derive(Default)]
struct Fields {
    task: String,
    message: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = match field.name() {
            "task" => &mut self.task,
            "message" => &mut self.message,
            _ => return,
        };
        write!(text, "{value:?}").unwrap();
        text.retain(|letter| letter != '"');
    }
}

fn noting() -> (Dispatch, Log) {
    let log = Log::new();
    let subscriber = Registry::default().with(Notes(log.clone()));
    (Dispatch::new(subscriber), log)
}

/// A hook that brings a span to the task, and the subscriber too, wherever it runs.
fn in_request(
    subscriber: &Dispatch,
) -> impl Fn(&TaskInfo<'_>, TaskFuture) -> TaskFuture + Send + Sync + 'static {
    let subscriber = subscriber.clone();
    move |_, task| {
        let span = tracing::dispatcher::with_default(&subscriber, || info_span!("request"));
        TaskFuture::new(task.instrument(span).with_subscriber(subscriber.clone()))
    }
}

fn defer_failures() {
    after::task("error").defer(async {
        yields(1).await;
        Err::<(), _>("of a task")
    });
    after::task("panic").defer(async { panic!("told to") });
    let timeout = after::task("timeout").key("k").timeout(Duration::ZERO);
    timeout.defer(pending::<()>());
    after::task("closure's error").defer_blocking(|| Err::<(), _>("of a closure"));
    after::task("closure's panic").defer_blocking(|| panic!("told to"));
    after::task("spawned")
        .spawned()
        .defer(async { Err::<(), _>("of a task") });
    after::task("fine").defer(async {
        after::task("nested").defer(async { Err::<(), _>("of a task") });
    });
}

every_builder! {
    /// Errors, panics and timeouts, of futures and of closures, in each order: in the span, and once.
    async fn failures_are_reported_in_the_span_that_the_hook_enters(builder) {
        let (subscriber, log) = noting();
        let runner = builder.on_defer(in_request(&subscriber)).build();
        for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
            log.clear();
            runner.scope(async { defer_failures() }).order(order).await;
            runner.drain().await;
            let mut seen = log.entries();
            seen.sort();
            assert_eq!(seen, [
                "in request, closure's error: deferred task failed: of a closure",
                "in request, closure's panic: deferred task panicked: told to",
                "in request, error: deferred task failed: of a task",
                "in request, nested: deferred task failed: of a task",
                "in request, panic: deferred task panicked: told to",
                "in request, spawned: deferred task failed: of a task",
                "in request, timeout: deferred task timed out after 0ns",
            ], "{order:?}");
        }
        let stats = balanced(&runner);
        assert_eq!((stats.failed, stats.panicked, stats.timed_out), (12, 6, 3));
        assert_eq!((stats.completed, stats.pending), (3, 0));
    }
}

/// Runs a batch by hand with the subscriber of `noting`, and gives what was noted and the Runner.
fn noted(
    configure: impl FnOnce(RunnerBuilder) -> RunnerBuilder,
    request: impl FnOnce(),
) -> (Vec<String>, Runner) {
    let (subscriber, log) = noting();
    let runner = tracing::dispatcher::with_default(&subscriber, || {
        let (runner, batches) = keeping_with(configure);
        let scope = runner.scope(async { request() });
        now_or_never(scope.instrument(info_span!("request")));
        for mut batch in batches.take_all() {
            polls_to_end(&mut batch, 8);
        }
        runner
    });
    balanced(&runner);
    (log.entries(), runner)
}

/// The hooks of the feature `tracing`.
#[test]
fn failures_stand_in_the_spans_of_the_two_hooks() {
    let request = || {
        after::task("error").defer(async { Err::<(), _>("of a task") });
        let timeout = after::task("timeout").timeout(Duration::ZERO);
        timeout.defer(pending::<()>());
    };
    let (seen, _) = noted(
        |builder| builder.on_defer(after::tracing::in_current_span),
        request,
    );
    assert_eq!(
        seen,
        [
            "in request, error: deferred task failed: of a task",
            "in request, timeout: deferred task timed out after 0ns",
        ]
    );
    let (seen, _) = noted(
        |builder| builder.on_defer(after::tracing::following_current_span),
        request,
    );
    assert_eq!(
        seen,
        [
            "in after.task, error: deferred task failed: of a task",
            "in after.task, timeout: deferred task timed out after 0ns",
        ]
    );
}

/// The limit of the scope after the first turn, which has polled 32 tasks: what has not begun is reported outside, and the
/// hook's future is not polled for it.
#[test]
fn the_limit_of_the_scope_is_reported_in_the_spans_of_what_has_begun() {
    const LIMIT: Duration = Duration::from_secs(5);
    let (subscriber, log) = noting();
    tracing::dispatcher::with_default(&subscriber, || {
        let spawner = ByHand::default();
        let runner = Runner::builder()
            .spawner(spawner.clone())
            .scope_timeout(LIMIT)
            .max_running(40)
            .on_defer(after::tracing::in_current_span)
            .build();
        now_or_never(
            runner
                .scope(async {
                    for _ in 0..40 {
                        after::task("task").defer(pending::<()>());
                    }
                    after::task("waits").defer(pending::<()>());
                })
                .instrument(info_span!("request")),
        );
        let mut batch = spawner.batches.take_one();
        for _ in 0..2 {
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
        }
        log.assert(&[]);
        spawner.fire(LIMIT);
        polls_to_end(&mut batch, 2);
        assert_eq!(balanced(&runner).timed_out, 41);
    });
    let reported = |entry: &str| log.entries().iter().filter(|seen| *seen == entry).count();
    assert_eq!(
        [
            reported("in request, task: deferred task timed out after 5s"),
            reported("in none, task: deferred task timed out after 5s"),
            reported("in none, waits: deferred task timed out after 5s"),
        ],
        [32, 8, 1]
    );
}

/// Blocking work past its limit is reported at the limit, and its end is told to nobody.
#[test]
fn blocking_work_past_its_limit_is_reported_in_the_span_and_once() {
    const LIMIT: Duration = Duration::from_secs(5);
    let (subscriber, log) = noting();
    tracing::dispatcher::with_default(&subscriber, || {
        let spawner = ByHand::default();
        let runner = Runner::builder()
            .spawner(spawner.clone())
            .task_timeout(LIMIT)
            .on_defer(after::tracing::in_current_span)
            .build();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let request = runner.scope(async move {
            after::task("closure").defer_blocking(move || {
                begun.send(()).unwrap();
                goes_on.recv().unwrap();
                Err::<(), _>("too late")
            });
        });
        now_or_never(request.instrument(info_span!("request")));
        let mut batch = spawner.batches.take_one();
        for _ in 0..2 {
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
        }
        let work = spawner.blocking.lock().unwrap().pop().unwrap();
        let thread = std::thread::spawn(move || work.run());
        has_begun.recv().unwrap();
        spawner.fire(LIMIT);
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        let expected = "in request, closure: deferred task timed out after 5s, and can't be stopped: it is blocking work";
        log.assert(&[expected]);
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
        go_on.send(()).unwrap();
        thread.join().unwrap();
        polls_to_end(&mut batch, 1);
        log.assert(&[expected]);
        assert_eq!(balanced(&runner).timed_out, 1);
    });
}

/// What goes wrong in the hook's own future is not the task's: it is reported outside, beside what the task has reported.
#[test]
fn a_panic_of_the_hooks_future_is_reported_outside() {
    let panics = |builder: RunnerBuilder| {
        builder.on_defer(|_, task| {
            let wrapped = async move {
                match AssertUnwindSafe(task).catch_unwind().await {
                    Ok(output) if output.error().is_none() => output,
                    Ok(_) => panic!("after an error"),
                    Err(_) => panic!("after a panic"),
                }
            };
            TaskFuture::new(wrapped.instrument(info_span!("hook")))
        })
    };
    let (seen, runner) = noted(panics, || {
        after::task("error").defer(async { Err::<(), _>("of a task") });
        after::task("panic").defer(async { panic!("told to") });
    });
    assert_eq!(
        seen,
        [
            "in hook, error: deferred task failed: of a task",
            "in none, error: deferred task panicked: after an error",
            "in hook, panic: deferred task panicked: told to",
            "in none, panic: deferred task panicked: after a panic",
        ]
    );
    assert_eq!(runner.stats().panicked, 2);
}

/// A hook's future that has the task no more, or awaits something else: its timeout is reported outside, and once.
#[test]
fn a_timeout_that_does_not_reach_the_task_is_reported_outside() {
    let (seen, runner) = noted(
        |builder| {
            builder.on_defer(|info, task| {
                let dropped = info.name == "dropped";
                let span = info_span!("hook");
                let wrapped = async move {
                    if dropped {
                        drop(task);
                        return pending().await;
                    }
                    let output = task.await;
                    pending::<()>().await;
                    output
                };
                TaskFuture::new(wrapped.instrument(span))
            })
        },
        || {
            for name in ["dropped", "ended"] {
                let task = after::task(name).timeout(Duration::ZERO);
                task.defer(async { Err::<(), _>("of a task") });
            }
        },
    );
    // The second error is the task's, and the timeout is that of what the hook does after it.
    assert_eq!(
        seen,
        [
            "in none, dropped: deferred task timed out after 0ns",
            "in hook, ended: deferred task failed: of a task",
            "in none, ended: deferred task timed out after 0ns",
        ]
    );
    assert_eq!(runner.stats().timed_out, 2);
}

/// At its limit a task is polled no more: what the hook has made of it is.
#[test]
fn a_task_past_its_limit_does_not_run_again() {
    let polls = Arc::new(Log::new());
    let (seen, runner) = noted(
        |builder| {
            let polls = polls.clone();
            builder.on_defer(move |_, task| {
                let polls = polls.clone();
                let mut task = Box::pin(task);
                TaskFuture::new(std::future::poll_fn(move |cx| {
                    polls.add("hook");
                    task.as_mut().poll(cx)
                }))
            })
        },
        || {
            let polls = polls.clone();
            let task = after::task("timeout").timeout(Duration::ZERO);
            task.defer(std::future::poll_fn(move |_| -> Poll<()> {
                polls.add("task");
                Poll::Pending
            }));
        },
    );
    polls.assert(&["hook", "task", "hook"]);
    assert_eq!(
        seen,
        ["in none, timeout: deferred task timed out after 0ns"]
    );
    assert_eq!(runner.stats().timed_out, 1);
}

/// What the hook's future does when it is polled once more is its own: it may panic, or resolve.
#[test]
fn a_hooks_future_that_panics_or_resolves_at_the_limit_hurts_nobody() {
    let (seen, runner) = noted(
        |builder| {
            builder.on_defer(|info, task| {
                let panics = info.name == "panics";
                let mut task = Some(Box::pin(task));
                let mut polls = 0;
                TaskFuture::new(std::future::poll_fn(move |cx| {
                    polls += 1;
                    if polls == 1 {
                        // It has ended, and that is kept from the batch.
                        let output = task.take().unwrap().as_mut().poll(cx);
                        task = Some(Box::pin(TaskFuture::new(std::future::ready(
                            match output {
                                Poll::Ready(output) => output,
                                Poll::Pending => unreachable!("it is ready"),
                            },
                        ))));
                        return Poll::Pending;
                    }
                    assert!(!panics, "of the hook");
                    task.as_mut().unwrap().as_mut().poll(cx)
                }))
            })
        },
        || {
            for name in ["panics", "resolves"] {
                let task = after::task(name).timeout(Duration::ZERO);
                task.defer(async { Err::<(), _>("of a task") });
            }
            after::task("sibling").defer(async {});
        },
    );
    assert_eq!(
        seen,
        [
            "in none, panics: deferred task failed: of a task",
            "in none, panics: deferred task panicked: of the hook",
            "in none, panics: deferred task timed out after 0ns",
            "in none, resolves: deferred task failed: of a task",
            "in none, resolves: deferred task timed out after 0ns",
        ]
    );
    let stats = runner.stats();
    assert_eq!((stats.timed_out, stats.completed), (2, 1));
}

/// A hook that catches the task's panic, and lets it go on at the limit: it was reported.
#[test]
fn a_panic_that_the_hook_has_kept_is_reported_once() {
    let (seen, runner) = noted(
        |builder| {
            builder.on_defer(|_, task| {
                let mut task = Box::pin(AssertUnwindSafe(task).catch_unwind());
                let mut kept = None;
                TaskFuture::new(std::future::poll_fn(move |cx| {
                    if let Some(payload) = kept.take() {
                        std::panic::resume_unwind(payload);
                    }
                    kept = match task.as_mut().poll(cx) {
                        Poll::Ready(Err(payload)) => Some(payload),
                        _ => unreachable!("it panics"),
                    };
                    Poll::Pending
                }))
            })
        },
        || {
            let task = after::task("panic").timeout(Duration::ZERO);
            task.defer(async { panic!("told to") });
        },
    );
    assert_eq!(
        seen,
        [
            "in none, panic: deferred task panicked: told to",
            "in none, panic: deferred task timed out after 0ns",
        ]
    );
    assert_eq!(runner.stats().timed_out, 1);
}

/// A task that runs the tasks of another Runner to their end: each is reported by its own name.
#[test]
fn a_wrapped_task_may_run_other_wrapped_tasks() {
    let hook = |builder: RunnerBuilder| builder.on_defer(after::tracing::following_current_span);
    let (seen, runner) = noted(hook, || {
        after::task("outer").defer(async move {
            let (runner, batches) = keeping_with(hook);
            now_or_never(runner.scope(async {
                after::task("inner").defer(async { Err::<(), _>("of the inner") });
                after::task("inner panic").defer(async { panic!("told to") });
            }));
            polls_to_end(&mut batches.take_one(), 2);
            let stats = balanced(&runner);
            assert_eq!((stats.failed, stats.panicked), (1, 1));
            Err::<(), _>("of the outer")
        });
    });
    assert_eq!(
        seen,
        [
            "in after.task, inner: deferred task failed: of the inner",
            "in after.task, inner panic: deferred task panicked: told to",
            "in after.task, outer: deferred task failed: of the outer",
        ]
    );
    assert_eq!(runner.stats().failed, 1);
}

/// A task that its hook has given to another thread is reported once, as one without a hook.
#[test]
fn a_task_that_the_hook_has_given_away_is_reported_once() {
    let (seen, runner) = noted(
        |builder| {
            builder.on_defer(|_, task| {
                TaskFuture::new(async move {
                    let thread = std::thread::spawn(move || {
                        let mut task = pin!(task);
                        poll_once(task.as_mut())
                    });
                    match thread.join() {
                        Ok(Poll::Ready(output)) => output,
                        Ok(Poll::Pending) => unreachable!("it is ready"),
                        Err(payload) => std::panic::resume_unwind(payload),
                    }
                })
            })
        },
        || {
            after::task("error").defer(async { Err::<(), _>("of a task") });
            after::task("panic").defer(async { panic!("told to") });
        },
    );
    assert_eq!(
        seen,
        [
            "in none, error: deferred task failed: of a task",
            "in none, panic: deferred task panicked: told to",
        ]
    );
    let stats = runner.stats();
    assert_eq!((stats.failed, stats.panicked), (1, 1));
}

/// A panic of the hook's own is reported, also if the task's payload has gone before: the new one may have its address.
#[test]
fn a_panic_of_the_hook_in_place_of_the_tasks_is_reported() {
    let panics = |builder: RunnerBuilder| {
        builder.on_defer(|_, task| {
            TaskFuture::new(async move {
                let caught = AssertUnwindSafe(task).catch_unwind().await;
                let Ok(output) = caught else {
                    drop(caught);
                    panic!("of the hook");
                };
                output
            })
        })
    };
    let (seen, runner) = noted(panics, || {
        after::task("panic").defer(async { panic!("told to") });
    });
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert_eq!(runner.stats().panicked, 1);

    // Payloads without a size have one address.
    struct Marker;
    let panics = |builder: RunnerBuilder| {
        builder.on_defer(|_, task| {
            TaskFuture::new(async move {
                match AssertUnwindSafe(task).catch_unwind().await {
                    Ok(output) => output,
                    Err(_) => std::panic::panic_any(()),
                }
            })
        })
    };
    let (seen, _) = noted(panics, || {
        after::task("panic").defer(async { std::panic::panic_any(Marker) });
    });
    assert_eq!(seen.len(), 2, "{seen:#?}");
}

/// A hook may run the task inside a task of another Runner, which has a hook too: the failure is the task's, and not the
/// other one's.
#[test]
fn a_task_that_runs_inside_another_fails_under_its_own_name() {
    let (subscriber, log) = noting();
    tracing::dispatcher::with_default(&subscriber, || {
        let (other, carriers) =
            keeping_with(|builder| builder.on_defer(after::tracing::following_current_span));
        let (runner, batches) = keeping_with(|builder| {
            builder.on_defer(move |_, task| {
                let (send, receive) = futures::channel::oneshot::channel();
                now_or_never(other.scope(async {
                    after::task("carrier").defer(async move {
                        let _ = send.send(task.await);
                    });
                }));
                TaskFuture::new(async move { receive.await.expect("the carrier is there") })
            })
        });
        now_or_never(runner.scope(async {
            after::task("error").defer(async { Err::<(), _>("of a task") });
        }));
        for mut batch in carriers.take_all() {
            polls_to_end(&mut batch, 8);
        }
        polls_to_end(&mut batches.take_one(), 8);
        let entries = log.entries();
        let failures: Vec<_> = entries
            .iter()
            .filter(|entry| entry.contains("failed"))
            .collect();
        assert_eq!(failures.len(), 1, "{entries:#?}");
        assert!(!failures[0].contains("carrier"), "{entries:#?}");
        assert_eq!(runner.stats().failed, 1);
    });
}

/// Sentence 17: blocking work that was reported at its limit has timed out, also if it has returned since, and its batch is
/// dropped before it hears of that.
#[test]
fn blocking_work_past_its_limit_has_timed_out_whatever_it_returns() {
    const LIMIT: Duration = Duration::from_secs(5);
    for hooked in [false, true] {
        let (subscriber, log) = noting();
        tracing::dispatcher::with_default(&subscriber, || {
            let spawner = ByHand::default();
            let mut builder = Runner::builder()
                .spawner(spawner.clone())
                .task_timeout(LIMIT);
            if hooked {
                builder = builder.on_defer(after::tracing::in_current_span);
            }
            let runner = builder.build();
            let (begun, has_begun) = std::sync::mpsc::channel();
            let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
            now_or_never(runner.scope(async move {
                after::task("closure").defer_blocking(move || {
                    begun.send(()).unwrap();
                    goes_on.recv().unwrap();
                    Err::<(), _>("too late")
                });
            }));
            let mut batch = spawner.batches.take_one();
            for _ in 0..2 {
                assert!(poll_once(Pin::new(&mut batch)).is_pending());
            }
            let work = spawner.blocking.lock().unwrap().pop().unwrap();
            let thread = std::thread::spawn(move || work.run());
            has_begun.recv().unwrap();
            spawner.fire(LIMIT);
            assert!(poll_once(Pin::new(&mut batch)).is_pending());
            go_on.send(()).unwrap();
            thread.join().unwrap();
            drop(batch);
            let stats = balanced(&runner);
            assert_eq!((stats.timed_out, stats.failed, stats.lost), (1, 0, 0));
            assert_eq!(log.entries().len(), 1, "{:#?}", log.entries());
        });
    }
}
