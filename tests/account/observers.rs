//! Observers and hooks: sentences 26 and 27, row N19 of the conformance list; and what a builder refuses.

use std::{
    cell::Cell,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use after::{
    Batch, Observer, Order, Overflow, Runner, RunnerBuilder, Spawner, TaskDeferred, TaskEnd,
    TaskFinished, TaskFuture, TaskInfo, TaskStarted, spawner::BlockingWork,
};

use crate::common::{
    self, DefersOnDrop, Log, balanced, keeping_with, now_or_never, poll_once, polls_to_end, yields,
};

/// Notes every event, and checks what holds for each.
#[derive(Clone, Default)]
struct Notes {
    log: Log,
    /// By name: how often deferred, started, finished.
    counts: Arc<Mutex<HashMap<String, [usize; 3]>>>,
}

impl Notes {
    fn note(&self, event: usize, task: &TaskInfo<'_>, what: &str) {
        let mut counts = self.counts.lock().unwrap();
        let counts = counts.entry(task.name.to_string()).or_default();
        counts[event] += 1;
        assert!(counts[0] >= counts[1] && counts[0] >= counts[2]);
        let outcome = task
            .outcome
            .map_or("-".into(), |outcome| format!("{outcome:?}"));
        self.log.add(format!("{} {what} {outcome}", task.name));
    }
}

impl Observer for Notes {
    fn deferred(&self, event: &TaskDeferred<'_>) {
        self.note(0, &event.task, "deferred");
    }

    fn started(&self, event: &TaskStarted<'_>) {
        assert!(event.waited < Duration::from_secs(3_600));
        self.note(1, &event.task, "started");
    }

    fn finished(&self, event: &TaskFinished<'_>) {
        assert!(event.longest_poll <= event.ran);
        let end = match &event.end {
            TaskEnd::Failed(error) => format!("failed: {error}"),
            TaskEnd::Panicked(payload) => {
                let text = payload.downcast_ref::<&str>();
                format!("panicked: {}", text.copied().unwrap_or("?"))
            }
            other => format!("{other:?}").to_lowercase(),
        };
        self.note(2, &event.task, &end);
    }
}

fn noting(
    configure: impl FnOnce(RunnerBuilder) -> RunnerBuilder,
) -> (Runner, common::Batches, Log) {
    let notes = Notes::default();
    let log = notes.log.clone();
    let (runner, batches) = keeping_with(|builder| configure(builder.observer(notes)));
    (runner, batches, log)
}

/// Sentence 26: deferred, started, finished: in this order, with the outcome from the end of the request on.
#[test]
fn an_observer_sees_a_task_from_its_deferral_to_its_end() {
    let (runner, batches, log) = noting(|builder| builder);
    let request = runner.scope(async {
        after::task("a").defer(async {
            after::task("nested").defer(async {});
        });
        after::task("b").defer(async { Err::<(), _>("no route") });
        after::task("c").defer(async { panic!("of a task") });
        Err::<(), _>("no")
    });
    let _ = now_or_never(request.failed_if(Result::is_err));
    log.assert(&["a deferred -", "b deferred -", "c deferred -"]);
    polls_to_end(&mut batches.take_one(), 4);
    assert_eq!(
        log.entries()[3..],
        [
            "a started Failed",
            "nested deferred Failed",
            "a completed Failed",
            "b started Failed",
            "b failed: no route Failed",
            "c started Failed",
            "c panicked: of a task Failed",
            "nested started Failed",
            "nested completed Failed",
        ]
    );
}

/// Sentence 26: exactly one `finished` for each task however it ends; `started` only if it was polled.
#[test]
fn each_task_finishes_exactly_once() {
    for with_handle in [false, true] {
        let (runner, batches, log) = noting(|builder| {
            builder
                .max_running(3)
                .max_waiting(2)
                .overflow(Overflow::Shed)
        });
        let mut handle = None;
        now_or_never(runner.scope(async {
            handle = with_handle.then(after::handle);
            after::task("replaced").key("k").defer(async {});
            after::task("taken back").key("k").defer(async {});
            after::forget("k");
            after::task("condition").on_failure().defer(async {});
            after::task("odd")
                .when(|_| panic!("a condition's"))
                .defer(async {});
            after::task("stuck")
                .timeout(Duration::ZERO)
                .defer(std::future::pending::<()>());
            after::task("done").defer(yields(1));
            after::task("dropped").defer(std::future::pending::<()>());
            after::task("next").defer(std::future::pending::<()>());
            after::task("unpolled").defer(std::future::pending::<()>());
            after::task("shed").defer(async {});
        }));
        let mut batch = batches.take_one();
        // With a handle the batch may have one more turn.
        poll_once(Pin::new(&mut batch))
            .is_pending()
            .then_some(())
            .unwrap();
        poll_once(Pin::new(&mut batch))
            .is_pending()
            .then_some(())
            .unwrap();
        assert_eq!(batch.len(), 4);
        drop(batch);
        let entries = log.entries();
        for (name, expected) in [
            ("replaced", &["deferred -", "discarded -"][..]),
            ("taken back", &["deferred -", "discarded -"]),
            ("condition", &["deferred -", "discarded Finished"]),
            ("odd", &["deferred -", "panicked: a condition's Finished"]),
            (
                "stuck",
                &["deferred -", "started Finished", "timedout Finished"],
            ),
            ("done", &["deferred -", "started Finished", "lost Finished"]),
            (
                "dropped",
                &["deferred -", "started Finished", "lost Finished"],
            ),
            ("next", &["deferred -", "lost Finished"]),
            ("unpolled", &["deferred -", "lost Finished"]),
            ("shed", &["deferred -", "shed Finished"]),
        ] {
            let of_it = entries
                .iter()
                .filter_map(|entry| entry.strip_prefix(&format!("{name} ")));
            let of_it: Vec<_> = of_it.collect();
            assert_eq!(of_it, expected, "{name} (handle: {with_handle})");
        }
        assert_eq!(balanced(&runner).pending, 0);
    }
}

every_builder! {
    /// Sentences 19 and 26: what observers see adds up to what the account says, on every runtime.
    async fn observers_and_the_account_agree(builder) {
        let notes = Notes::default();
        let runner = builder.observer(notes.clone()).task_timeout(Duration::from_millis(10)).build();
        for order in [Order::Concurrent, Order::Sequential, Order::Parallel] {
            let request = runner.scope(async {
                after::task("stuck").defer(std::future::pending::<()>());
                after::task("closure").defer_blocking(|| after::task("of the closure").timeout(Duration::MAX).defer(async {}));
                after::task("spawned").spawned().timeout(Duration::MAX).defer(async { after::task("nested").timeout(Duration::MAX).defer(async {}) });
                after::task("error").defer(async { Err::<(), _>("an error") });
                after::task("never").on_failure().defer(async {});
                after::handle()
            });
            let handle = request.order(order).await;
            runner.drain().await;
            handle.task("late").defer(async {});
            runner.drain().await;
        }
        let stats = balanced(&runner);
        let counts = notes.counts.lock().unwrap().clone();
        let sum = |event: usize| counts.values().map(|counts| counts[event] as u64).sum::<u64>();
        assert_eq!((sum(0), sum(2)), (stats.deferred, stats.deferred));
        assert_eq!(sum(1), stats.deferred - stats.discarded);
        let ended = |how: &str| notes.log.entries().iter().filter(|entry| entry.contains(how)).count() as u64;
        assert_eq!(ended(" timedout "), stats.timed_out);
        assert_eq!(ended(" completed "), stats.completed);
        assert_eq!(ended(" failed: "), stats.failed);
        assert_eq!(ended(" discarded "), stats.discarded);
        // What is deferred once the request is over knows how it ended.
        for name in ["of the closure", "nested", "late"] {
            assert!(notes.log.entries().contains(&format!("{name} deferred Finished")), "{name}: {:?}", notes.log.entries());
        }
    }
}

/// Sentence 26: name, place and kind of each task; an unnamed one has its type's name.
#[test]
fn an_event_says_which_task_it_is_about() {
    type Seen = Arc<Mutex<Vec<(String, u32, bool)>>>;
    struct Names(Seen);
    impl Observer for Names {
        fn finished(&self, event: &TaskFinished<'_>) {
            let task = &event.task;
            assert_eq!(task.location.file(), file!());
            let seen = (task.name.to_string(), task.location.line(), task.blocking);
            self.0.lock().unwrap().push(seen);
            if task.blocking {
                assert_eq!(event.longest_poll, Duration::ZERO);
            }
        }
    }
    let seen = Seen::default();
    let (runner, batches) = keeping_with(|builder| {
        let builder = builder.order(Order::Sequential);
        builder
            .observer(Names(seen.clone()))
            .on_defer(|_, task| task)
    });
    let line = line!();
    now_or_never(runner.scope(async {
        after::defer(std::future::ready(()));
        after::task("named").defer(async {});
        after::task("closure").defer_blocking(|| ());
        after::handle().defer(std::future::ready(()));
    }));
    futures::executor::block_on(batches.take_one());
    let ready = std::any::type_name::<std::future::Ready<()>>().to_string();
    let expected = [
        (ready.clone(), line + 2, false),
        ("named".into(), line + 3, false),
        ("closure".into(), line + 4, true),
        (ready, line + 5, false),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// Sentences 7 and 26: every event has the key, also that of a task which is replaced, taken back, wrapped by a hook, split
/// off, late, or has other options.
#[test]
fn an_event_says_which_key_the_task_has() {
    struct Keys(Log);
    impl Keys {
        fn add(&self, event: &str, task: &TaskInfo<'_>) {
            let key = task.key.unwrap_or("-");
            self.0.add(format!("{event} {} {key}", task.name));
        }
    }
    impl Observer for Keys {
        fn deferred(&self, event: &TaskDeferred<'_>) {
            self.add("deferred", &event.task);
        }
        fn started(&self, event: &TaskStarted<'_>) {
            self.add("started", &event.task);
        }
        fn finished(&self, event: &TaskFinished<'_>) {
            self.add("finished", &event.task);
        }
    }
    for with_handle in [false, true] {
        let log = Log::new();
        let (runner, batches) = keeping_with(|builder| {
            builder
                .observer(Keys(log.clone()))
                .on_defer(|_, task| TaskFuture::new(task))
        });
        let handle = now_or_never(runner.scope(async {
            let handle = with_handle.then(after::handle);
            after::task("replaced").key("a").defer(async {});
            after::task("again").key("a").defer(async {});
            let key = String::from("b");
            after::task("taken back").key(key).defer(async {});
            assert!(after::forget("b"));
            after::task("closure").key("b").defer_blocking(|| ());
            after::task("apart").key("c").spawned().defer(async {});
            after::task("limited")
                .timeout(Duration::MAX)
                .key("d")
                .on_success()
                .defer(async {});
            after::task("plain").defer(async {});
            handle
        }));
        batches
            .take_all()
            .into_iter()
            .for_each(futures::executor::block_on);
        if let Some(handle) = handle {
            handle.task("late").key("e").defer(async {});
            batches
                .take_all()
                .into_iter()
                .for_each(futures::executor::block_on);
        }
        let entries = log.entries();
        for (name, key, runs) in [
            ("replaced", "a", false),
            ("again", "a", true),
            ("taken back", "b", false),
            ("closure", "b", true),
            ("apart", "c", true),
            ("limited", "d", true),
            ("plain", "-", true),
            ("late", "e", true),
        ] {
            let mut expected = vec![format!("deferred {name} {key}")];
            expected.extend(runs.then(|| format!("started {name} {key}")));
            expected.push(format!("finished {name} {key}"));
            if name == "late" && !with_handle {
                expected.clear();
            }
            let middle = format!(" {name} ");
            let of_it = entries.iter().filter(|entry| entry.contains(&middle));
            assert!(of_it.eq(&expected), "{name}: {entries:?}");
        }
        assert_eq!(balanced(&runner).pending, 0);
    }
}

/// Sentence 26: `ran` and `longest_poll` cover what a task does; both are zero for one that never ran.
#[test]
fn times_cover_what_a_task_does() {
    struct Times(Arc<Mutex<Vec<(Duration, Duration)>>>);
    impl Observer for Times {
        fn finished(&self, event: &TaskFinished<'_>) {
            self.0.lock().unwrap().push((event.ran, event.longest_poll));
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (runner, batches) = keeping_with(|builder| builder.observer(Times(seen.clone())));
    let work = Duration::from_millis(5);
    now_or_never(runner.scope(async {
        after::task("never").on_failure().defer(async {});
        after::defer(async move {
            // It keeps its thread, which is what is measured.
            std::thread::sleep(work);
            yields(1).await;
            std::thread::sleep(work);
        });
    }));
    polls_to_end(&mut batches.take_one(), 4);
    let [never, works] = seen.lock().unwrap()[..] else {
        panic!("two tasks");
    };
    assert_eq!(never, (Duration::ZERO, Duration::ZERO));
    assert!(works.0 >= 2 * work && works.1 >= work && works.1 <= works.0);
}

/// Sentence 26: a panicking observer hurts nobody, and the others are told all the same, in the order of their adding.
#[test]
fn a_panicking_observer_hurts_nobody() {
    struct Panics;
    impl Observer for Panics {
        fn deferred(&self, _: &TaskDeferred<'_>) {
            panic!("an observer's");
        }
        fn started(&self, _: &TaskStarted<'_>) {
            panic!("an observer's");
        }
        fn finished(&self, _: &TaskFinished<'_>) {
            panic!("an observer's");
        }
    }
    let notes = [Notes::default(), Notes::default()];
    let (runner, batches) = keeping_with(|builder| {
        let builder = builder.observer(notes[0].clone()).observer(Panics);
        builder.observer(notes[1].clone())
    });
    let answer = now_or_never(runner.scope(async {
        after::task("a").defer(async {});
        after::task("b").key("b").defer(async {});
        after::task("c").key("b").on_failure().defer(async {});
        "answer"
    }));
    assert_eq!(answer, "answer");
    polls_to_end(&mut batches.take_one(), 3);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.discarded, stats.pending), (1, 2, 0));
    assert_eq!(notes[0].log.entries(), notes[1].log.entries());
    assert_eq!(notes[0].log.entries().len(), 7);
}

/// Section 5: an observer may defer, in each of its methods; nothing of ours is held meanwhile.
#[test]
fn an_observer_may_defer() {
    struct Defers(Log);
    impl Defers {
        fn defer(&self, task: &TaskInfo<'_>, entry: &'static str) {
            if task.name == "observed" {
                let log = self.0.clone();
                after::task("of the observer").defer(async move { log.add(entry) });
            }
        }
    }
    impl Observer for Defers {
        fn deferred(&self, event: &TaskDeferred<'_>) {
            self.defer(&event.task, "deferred");
        }
        fn started(&self, event: &TaskStarted<'_>) {
            self.defer(&event.task, "started");
        }
        fn finished(&self, event: &TaskFinished<'_>) {
            self.defer(&event.task, "finished");
        }
    }
    for with_handle in [false, true] {
        for condition in [false, true] {
            let log = Log::new();
            let (runner, batches) = keeping_with(|builder| builder.observer(Defers(log.clone())));
            now_or_never(runner.scope(async {
                if with_handle {
                    drop(after::handle());
                }
                let task = after::task("observed").key("k");
                let task = if condition { task.on_failure() } else { task };
                task.defer(async {});
            }));
            polls_to_end(&mut batches.take_one(), 5);
            let expected: &[_] = match condition {
                true => &["deferred", "finished"],
                false => &["deferred", "started", "finished"],
            };
            log.assert(expected);
            assert_eq!(balanced(&runner).pending, 0);
        }
    }
}

thread_local! {
    static SPAN: Cell<&'static str> = const { Cell::new("none") };
}

/// A hook that notes which "span" was current at the call of `defer`, and when the task runs.
fn spanned(
    log: &Log,
) -> impl Fn(&TaskInfo<'_>, TaskFuture) -> TaskFuture + Send + Sync + 'static + use<> {
    let log = log.clone();
    move |_, task| {
        let (log, span) = (log.clone(), SPAN.get());
        TaskFuture::new(async move {
            log.add(format!("in {span}"));
            task.await
        })
    }
}

/// Sentence 27: a hook runs at the call of `defer`, and wraps every kind of task.
#[test]
fn a_hook_runs_at_the_call_of_defer_for_every_kind_of_task() {
    let log = Log::new();
    let (runner, batches) = keeping_with(|builder| {
        let builder = builder.order(Order::Sequential);
        builder.on_defer(spanned(&log))
    });
    let inner = log.clone();
    let handle = now_or_never(runner.scope(async {
        SPAN.set("plain");
        after::defer(async move {
            inner.add("plain runs");
            SPAN.set("nested");
            after::defer(async {});
        });
        SPAN.set("named");
        after::task("named").defer(async {});
        SPAN.set("keyed");
        after::task("keyed").key("k").defer(async {});
        SPAN.set("closure");
        after::defer_blocking(|| ());
        SPAN.set("handle");
        after::handle().defer(async {});
        after::handle()
    }));
    SPAN.set("none");
    log.assert(&[]);
    futures::executor::block_on(batches.take_one());
    SPAN.set("late");
    handle.task("late").defer(async {});
    SPAN.set("none");
    polls_to_end(&mut batches.take_one(), 3);
    log.assert(&[
        "in plain",
        "plain runs",
        "in named",
        "in keyed",
        "in closure",
        "in handle",
        "in nested",
        "in late",
    ]);
    assert_eq!(balanced(&runner).completed, 7);
}

/// Sentence 27: of several hooks the one added first is innermost.
#[test]
fn the_hook_added_first_is_innermost() {
    let log = Log::new();
    let hook = |name: &'static str| {
        let log = log.clone();
        move |_: &TaskInfo<'_>, task: TaskFuture| {
            let log = log.clone();
            TaskFuture::new(async move {
                log.add(format!("{name} begins"));
                let output = task.await;
                log.add(format!("{name} ends"));
                output
            })
        }
    };
    let (runner, batches) =
        keeping_with(|builder| builder.on_defer(hook("first")).on_defer(hook("second")));
    now_or_never(runner.scope(async {
        let log = log.clone();
        after::defer(async move { log.add("task") });
    }));
    polls_to_end(&mut batches.take_one(), 3);
    log.assert(&[
        "second begins",
        "first begins",
        "task",
        "first ends",
        "second ends",
    ]);
}

/// Sentence 27, the trap of section 5: a hook that panics: `defer` returns, the task counts as panicked.
#[test]
fn a_hook_that_panics_costs_only_its_own_task() {
    let log = Log::new();
    let outer = log.clone();
    let (runner, batches) = keeping_with(|builder| {
        let builder = builder.on_defer(|_, task| {
            if SPAN.get() == "bad" {
                panic!("a hook's");
            }
            task
        });
        builder.on_defer(move |_, task| {
            outer.add("the other hook");
            task
        })
    });
    let answer = now_or_never(runner.scope(async {
        SPAN.set("bad");
        let guard = DefersOnDrop {
            log: log.clone(),
            entry: "its destructor's",
        };
        after::defer(async move { drop(guard) });
        SPAN.set("good");
        after::defer(async {});
        "answer"
    }));
    assert_eq!(answer, "answer");
    batches.drive(4);
    let stats = balanced(&runner);
    assert!(!log.entries().contains(&"outside".to_string()));
    assert!(stats.panicked >= 1 && stats.completed >= 1, "{stats:?}");
    assert_eq!(stats.pending, 0);
}

/// Sentence 27: a hook that drops the task drops it in the call of `defer`; what it returns instead is what ends.
#[test]
fn a_hook_may_drop_the_task() {
    let log = Log::new();
    let (runner, batches) = keeping_with(|builder| {
        builder.on_defer(|_, task| {
            if SPAN.get() != "drop" {
                return task;
            }
            SPAN.set("none");
            drop(task);
            TaskFuture::new(std::future::pending())
        })
    });
    now_or_never(runner.scope(async {
        let guard = DefersOnDrop {
            log: log.clone(),
            entry: "destructor",
        };
        SPAN.set("drop");
        after::task("gone").defer(async move { drop(guard) });
        log.assert(&[]);
    }));
    let mut batch = batches.take_one();
    assert_eq!(batch.len(), 2);
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    log.assert(&["destructor"]);
    drop(batch);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.lost, stats.pending), (1, 1, 0));
}

/// Sentences 7, 12, 17 and 27: a hook may defer; keys, conditions and timeouts work on what hooks have wrapped.
#[test]
fn keys_conditions_and_timeouts_work_with_hooks() {
    let (runner, batches) = keeping_with(|builder| {
        builder.on_defer(|_, task| {
            if SPAN.replace("none") == "defer" {
                after::task("of the hook").defer(async {});
            }
            TaskFuture::new(task)
        })
    });
    now_or_never(runner.scope(async {
        after::task("replaced").key("k").defer(async {});
        after::task("kept").key("k").defer(async {});
        after::task("forgotten").key("f").defer(async {});
        assert!(after::forget("f"));
        after::task("condition").on_failure().defer(async {});
        after::task("stuck")
            .timeout(Duration::ZERO)
            .defer(std::future::pending::<()>());
        SPAN.set("defer");
        after::task("last")
            .spawned()
            .defer(async { Err::<(), _>("an error") });
    }));
    let mut all = batches.take_all();
    assert_eq!(all.len(), 2);
    let mut names: Vec<_> = all
        .iter()
        .flat_map(|batch| batch.names().map(String::from))
        .collect();
    names.sort();
    assert_eq!(names, ["kept", "last", "of the hook", "stuck"]);
    for batch in all.drain(..) {
        futures::executor::block_on(batch);
    }
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.completed, stats.failed), (7, 2, 1));
    assert_eq!((stats.discarded, stats.timed_out, stats.pending), (3, 1, 0));
}

fn refused(builder: RunnerBuilder) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| builder.build())).unwrap_err();
    *payload
        .downcast::<String>()
        .unwrap_or_else(|payload| Box::new(payload.downcast::<&str>().unwrap().to_string()))
}

/// api.rs: `build` panics on a limit of zero and says which, and on `max_waiting` without `max_running`.
#[test]
fn a_limit_of_zero_is_refused_by_name() {
    let builder = Runner::builder;
    for (builder, name) in [
        (builder().task_timeout(Duration::ZERO), "task_timeout"),
        (builder().scope_timeout(Duration::ZERO), "scope_timeout"),
        (builder().max_running(0), "max_running"),
        (builder().max_running(1).max_waiting(0), "max_waiting"),
        (builder().max_waiting(1), "max_waiting"),
    ] {
        let message = refused(builder);
        assert!(message.contains(&format!("`{name}`")), "{message}");
    }
    drop(builder().max_running(1).max_waiting(1).build());
}

/// The value of the context that is current, or that none is.
fn whose() -> &'static str {
    after::context::get::<&'static str>().unwrap_or("nobody's")
}

/// Notes where each event is told.
#[derive(Clone, Default)]
struct Contexts(Log);

impl Contexts {
    fn add(&self, event: &str, task: &TaskInfo<'_>) {
        self.0.add(format!("{event} {} {}", task.name, whose()));
    }
}

impl Observer for Contexts {
    fn deferred(&self, event: &TaskDeferred<'_>) {
        self.add("deferred", &event.task);
    }
    fn started(&self, event: &TaskStarted<'_>) {
        self.add("started", &event.task);
    }
    fn finished(&self, event: &TaskFinished<'_>) {
        let end = format!("{:?}", event.end).to_lowercase();
        self.add(&end, &event.task);
    }
}

/// Sentences 16, 26 and 27: observers and hooks run with the task's scope current: called from the request, from a task,
/// through a handle from outside or from another scope, from a closure; and however the task ends.
#[test]
fn observers_and_hooks_run_in_the_scope_of_the_task() {
    for with_handle in [false, true] {
        let seen = Contexts::default();
        let hooked = Log::new();
        let (runner, batches) = keeping_with(|builder| {
            let hooked = hooked.clone();
            let builder = builder.max_running(100).max_waiting(1);
            let builder = builder.overflow(Overflow::Shed).observer(seen.clone());
            builder.on_defer(move |_, task| {
                hooked.add(whose());
                task
            })
        });
        let (answer, answered) = futures::channel::oneshot::channel::<()>();
        let (give, taken) = std::sync::mpsc::channel();
        let mut request = Box::pin(runner.scope(async {
            after::context::set("the request's");
            if with_handle {
                give.send(after::handle()).unwrap();
            }
            after::task("plain").defer(async {
                after::task("nested").defer(async {});
            });
            after::task("replaced").key("k").defer(async {});
            after::task("taken back").key("k").defer(async {});
            assert!(after::forget("k"));
            after::task("condition").on_failure().defer(async {});
            after::task("spawned").spawned().defer(async {});
            after::task("closure").defer_blocking(|| {
                after::task("of the closure").defer(async {});
            });
            after::task("stuck").defer(std::future::pending::<()>());
            let _ = answered.await;
        }));
        assert!(poll_once(request.as_mut()).is_pending());
        let handle: Option<after::Handle> = taken.try_recv().ok();
        if let Some(handle) = &handle {
            handle.task("outside").key("o").defer(async {});
            handle.task("again").key("o").defer(async {});
            handle.task("not").on_failure().defer(async {});
            now_or_never(runner.scope(async {
                after::context::set("another's");
                handle.task("from another").defer(async {});
            }));
        }
        drop(answer);
        assert!(poll_once(request.as_mut()).is_ready());
        let mut all = batches.take_all();
        while !seen
            .0
            .entries()
            .iter()
            .any(|entry| entry.contains("completed of the closure"))
        {
            for batch in &mut all {
                let _ = poll_once(Pin::new(batch));
            }
            all.extend(batches.take_all());
            std::thread::yield_now();
        }
        if let Some(handle) = &handle {
            handle.task("joins").defer(std::future::pending::<()>());
        }
        drop(all);
        if let Some(handle) = &handle {
            handle.task("late").defer(async {});
            handle.task("late, not").on_failure().defer(async {});
            // More than may run: one waits, and the rest is shed.
            now_or_never(runner.scope(async {
                after::context::set("the request's");
                (0..100).for_each(|_| after::task("many").defer(async {}));
            }));
            handle.task("shed").defer(async {});
            drop(batches.take_all());
        }
        let entries = seen.0.entries();
        // The values go with the last task: what comes after it sees none, at any of its events.
        let late = |entry: &str| entry.contains(" late") || entry.contains(" shed ");
        for entry in &entries {
            let whose = if late(entry) {
                " nobody's"
            } else {
                " the request's"
            };
            assert!(entry.ends_with(whose), "{entry}: {entries:?}");
        }
        let of_late = hooked.entries();
        let of_late = of_late.iter().filter(|entry| *entry != "the request's");
        assert_eq!(of_late.count(), if with_handle { 3 } else { 0 });
        let mut expected = vec![
            "started plain",
            "completed plain",
            "started nested",
            "completed nested",
            "discarded replaced",
            "discarded taken back",
            "discarded condition",
            "completed spawned",
            "started closure",
            "completed closure",
            "deferred of the closure",
            "started stuck",
            "lost stuck",
        ];
        if with_handle {
            expected.extend([
                "deferred outside",
                "discarded outside",
                "completed again",
                "discarded not",
                "completed from another",
                "deferred joins",
                "lost joins",
                "deferred late",
                "lost late",
                "discarded late, not",
                "deferred shed",
                "shed shed",
            ]);
        }
        for expected in expected {
            let found = entries
                .iter()
                .any(|entry| entry.starts_with(&format!("{expected} ")));
            assert!(found, "{expected}: {entries:?}");
        }
        assert_eq!(balanced(&runner).pending, 0);
    }
}

/// Sentence 27: a hook sees the error with which its task has ended, and passes it on.
#[test]
fn a_hook_sees_how_its_task_has_ended() {
    let log = Log::new();
    let (runner, batches) = keeping_with(|builder| {
        let log = log.clone();
        builder.order(Order::Sequential).on_defer(move |_, task| {
            let log = log.clone();
            TaskFuture::new(async move {
                let output = task.await;
                log.add(
                    output
                        .error()
                        .map_or("no error".into(), ToString::to_string),
                );
                output
            })
        })
    });
    now_or_never(runner.scope(async {
        after::defer(async { Err::<(), _>("no route") });
        after::defer(async { Ok::<u8, std::fmt::Error>(7) });
        after::defer(async {});
        after::defer_blocking(|| Err::<(), _>("of a closure"));
        after::defer_blocking(|| panic!("of a closure"));
        // It unwinds through the hook, which sees nothing of it.
        after::defer(async { panic!("of a task") });
        after::task("never")
            .on_failure()
            .defer(async { Err::<(), _>("never") });
    }));
    futures::executor::block_on(batches.take_one());
    log.assert(&[
        "no route",
        "no error",
        "no error",
        "of a closure",
        "no error",
    ]);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.failed, stats.panicked), (2, 2, 2));
    assert_eq!((stats.discarded, stats.pending), (1, 0));
}

/// Sentence 27: a hook is told which task it is given: its name, key, place, and whether it is a closure; and the outcome, when
/// there is one.
#[test]
fn a_hook_is_told_which_task_it_wraps() {
    let log = Log::new();
    let notes = log.clone();
    let (runner, batches) = keeping_with(|builder| {
        builder.on_defer(move |task: &TaskInfo<'_>, future| {
            assert_eq!(task.location.file(), file!());
            let (name, key) = (task.name, task.key);
            notes.add(format!(
                "{name} {key:?} {:?} {}",
                task.outcome, task.blocking
            ));
            future
        })
    });
    now_or_never(runner.scope(async {
        after::task("mail").key("user:7").defer(async {
            after::task("nested").defer(async {});
        });
        after::task("file").defer_blocking(|| {});
    }));
    log.assert(&["mail Some(\"user:7\") None false", "file None None true"]);
    let mut batch = batches.take_one();
    for _ in 0..2 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(log.entries()[2], "nested None Some(Finished) false");
}

/// Sentence 27: a hook may give back another task than it was given; each runs under the name of the call that it came from.
#[test]
fn a_hook_may_exchange_tasks() {
    let log = Log::new();
    let kept = Mutex::new(None);
    let (runner, batches) = keeping_with(|builder| {
        builder.on_defer(move |_, future| {
            let before = kept.lock().unwrap().replace(future);
            before.unwrap_or_else(|| TaskFuture::new(std::future::pending()))
        })
    });
    let tell = |what: &'static str| {
        let log = log.clone();
        async move { log.add(what) }
    };
    now_or_never(runner.scope(async {
        after::task("a").defer(tell("a"));
        after::task("b").defer(tell("b"));
    }));
    let mut batch = batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    // The second runs what the first was to do.
    log.assert(&["a"]);
    assert!(batch.names().eq(["a"]));
    drop(batch);
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.lost), (1, 1));
}

/// Sentence 27: a task that a hook has kept, and gives back for another call of `defer`, runs for that call, and under its name;
/// also where the allocator gives it the place of one that the hook has dropped.
#[test]
fn a_task_that_is_given_back_later_has_the_name_of_that_call() {
    fn defer(name: &'static str) {
        after::task(name).defer(async {});
    }
    let kept: Mutex<Option<TaskFuture>> = Mutex::new(None);
    let (runner, batches) = keeping_with(|builder| {
        builder.on_defer(move |task: &TaskInfo<'_>, future| match task.name {
            "first" => {
                drop(future);
                defer("second");
                kept.lock().unwrap().take().unwrap()
            }
            _ => {
                *kept.lock().unwrap() = Some(future);
                TaskFuture::new(std::future::pending())
            }
        })
    });
    now_or_never(runner.scope(async { defer("first") }));
    let batch = batches.take_one();
    assert!(batch.names().eq(["second", "first"]));
    drop(batch);
    balanced(&runner);
}

/// A closure that has returned, of which its batch has not heard when it is dropped, ran for as long as it did.
#[test]
fn a_closure_that_returned_unheard_ran_for_as_long_as_it_did() {
    struct Ran(Arc<Mutex<Vec<Duration>>>);

    impl Observer for Ran {
        fn finished(&self, event: &TaskFinished<'_>) {
            self.0.lock().unwrap().push(event.ran);
        }
    }

    /// Blocking work is run by the test.
    struct Keeps(Mutex<Vec<BlockingWork>>);

    impl Spawner for Keeps {
        fn spawn(&self, _: Batch) {}

        fn spawn_blocking(&self, work: BlockingWork) {
            self.0.lock().unwrap().push(work);
        }
    }

    let ran: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let keeps = Arc::new(Keeps(Mutex::default()));
    let least = Duration::from_millis(2);
    let runner = Runner::builder()
        .spawner(keeps.clone())
        .observer(Ran(ran.clone()))
        .build();
    let request = async {
        after::defer_blocking(move || {
            let begun = Instant::now();
            while begun.elapsed() < least {}
        });
    };
    let ((), mut batch) = now_or_never(runner.scope(request).held());
    for _ in 0..2 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    let work = keeps.0.lock().unwrap().pop();
    work.expect("the batch has begun").run();
    drop(batch);
    let ran = ran.lock().unwrap();
    assert!(ran[0] >= least, "{ran:?}");
    assert_eq!(balanced(&runner).completed, 1);
}

/// Notes how long a task waited, and when that was told.
#[derive(Clone, Default)]
struct Waits {
    told: Arc<Mutex<Option<(Duration, Instant)>>>,
}

impl Observer for Waits {
    fn started(&self, event: &TaskStarted<'_>) {
        *self.told.lock().unwrap() = Some((event.waited, Instant::now()));
    }
}

/// Runs until the clock shows that a millisecond has passed: no shorter wait is told from another.
fn let_a_millisecond_pass() {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1) {
        std::hint::spin_loop();
    }
}

/// Sentence 26: a task could not start before its gate was open, and has not waited until then: also one that joined
/// meanwhile, and is a batch of its own.
#[test]
fn a_spawned_task_that_joins_behind_a_gate_waits_from_its_opening() {
    let waits = Waits::default();
    let (runner, batches) = keeping_with(|builder| builder.observer(waits.clone()));
    let mut request = runner.open();
    let handle = request.enter(after::handle);
    let guard = request.start_guard();
    request.enter(|| after::defer(yields(1)));
    request.end(after::Outcome::Finished);
    handle.task("own").spawned().defer(async {});
    let_a_millisecond_pass();
    let before = Instant::now();
    drop(guard);
    batches.drive(10);
    let (waited, told) = waits.told.lock().unwrap().take().unwrap();
    assert!(waited <= told - before, "{waited:?}");
}

/// Sentence 26: a task that is stored after the hand-over has waited since then, although its hook ran before.
#[test]
fn a_task_whose_hook_ends_its_request_waits_from_its_storing() {
    let waits = Waits::default();
    let open = Arc::new(Mutex::new(None::<after::OpenScope>));
    let ends = open.clone();
    let (runner, batches) = keeping_with(|builder| {
        builder
            .observer(waits.clone())
            .on_defer(move |task, future| {
                if task.name == "late" {
                    ends.lock()
                        .unwrap()
                        .take()
                        .unwrap()
                        .end(after::Outcome::Finished);
                }
                future
            })
    });
    let mut request = runner.open();
    let handle = request.enter(after::handle);
    request.enter(|| after::task("first").defer(std::future::pending::<()>()));
    *open.lock().unwrap() = Some(request);
    handle.task("late").defer(async {});
    let stored = Instant::now();
    let_a_millisecond_pass();
    let until = Instant::now();
    batches.drive(10);
    let (waited, _) = waits.told.lock().unwrap().take().unwrap();
    assert!(waited >= until - stored, "{waited:?}");
    // They and their Runner's spawner would keep each other.
    drop(batches.take_all());
}
