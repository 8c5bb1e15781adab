//! The public names, used as programs outside the repository use them, and the auto traits that they rely on.

use std::{
    error::Error,
    fmt::{Debug, Display},
    future::Future,
    panic::Location,
    time::Duration,
};

use after::{
    Attached, Batch, BoxError, Entered, Handle, Held, InstallError, Observer, OpenScope, Order,
    Outcome, Overflow, Runner, RunnerBuilder, Scope, ShutdownReport, Spawner, Stats, Stopping,
    TaskBuilder, TaskDeferred, TaskEnd, TaskFinished, TaskFuture, TaskInfo, TaskOutput, TaskResult,
    TaskStarted, TryDeferError, Unfinished, context, spawner,
    testing::{Recorder, Stuck},
};

fn send<T: Send>() {}
fn sync<T: Sync>() {}
fn unpin<T: Unpin>() {}
fn owned<T: 'static>() {}
fn debug<T: Debug>() {}
fn clone<T: Clone>() {}
fn error<T: Error>() {}
fn task_result<T: TaskResult>() {}
fn spawner<T: Spawner>() {}

/// `Batch: Send + Unpin + 'static`; a scope is `Send` if its future is; handles and Runners go anywhere.
#[test]
fn auto_traits_are_as_promised() {
    type Request = std::future::Ready<()>;
    send::<Batch>();
    unpin::<Batch>();
    owned::<Batch>();
    send::<Scope<Request>>();
    send::<Held<Request>>();
    send::<Attached<Request>>();
    send::<OpenScope>();
    sync::<OpenScope>();
    unpin::<OpenScope>();
    owned::<OpenScope>();
    send::<Entered<'_, Request>>();
    unpin::<Entered<'_, Request>>();
    send::<Stopping>();
    unpin::<Stopping>();
    send::<TaskBuilder>();
    send::<RunnerBuilder>();
    send::<spawner::BlockingWork>();
    send::<Handle>();
    sync::<Handle>();
    send::<Runner>();
    sync::<Runner>();
    clone::<Handle>();
    clone::<Runner>();
    clone::<ShutdownReport>();
    clone::<Unfinished>();
}

/// Everything is `Debug`, without locks and without users' values.
#[test]
fn everything_is_debug() {
    debug::<Batch>();
    debug::<Scope<std::future::Ready<()>>>();
    debug::<Held<std::future::Ready<()>>>();
    debug::<Attached<std::future::Ready<()>>>();
    debug::<OpenScope>();
    debug::<Entered<'_, std::future::Ready<()>>>();
    debug::<Handle>();
    debug::<Runner>();
    debug::<RunnerBuilder>();
    debug::<Stopping>();
    debug::<TaskBuilder>();
    debug::<Stats>();
    debug::<ShutdownReport>();
    debug::<Unfinished>();
    debug::<InstallError>();
    debug::<TryDeferError<()>>();
    debug::<spawner::BlockingWork>();
    debug::<spawner::FromFn<()>>();
    #[cfg(feature = "threads")]
    debug::<spawner::Threads>();
    let builder = after::task("audit").key("a user's secret");
    assert_eq!(
        format!("{builder:?}"),
        "TaskBuilder { name: \"audit\", keyed: true, timeout: None, conditional: false, spawned: false, .. }"
    );
}

/// What may be deferred: `()`, `!`, results with any error that turns into a `BoxError`.
#[test]
fn task_results_are_as_promised() {
    task_result::<()>();
    task_result::<Result<(), BoxError>>();
    task_result::<Result<u8, std::num::ParseIntError>>();
    task_result::<Result<String, String>>();
    task_result::<Result<(), &'static str>>();
    let diverges = || {
        after::defer(async { std::process::exit(1) });
        after::defer(async { panic!("no output type") });
        after::defer(async {
            loop {
                std::future::pending::<()>().await;
            }
        });
        after::defer(async {
            "1".parse::<u8>()?;
            after::Ok(())
        });
        after::defer(std::future::ready(()));
        after::defer_blocking(|| std::fs::read("x"));
    };
    let _ = diverges;
    error::<TryDeferError<()>>();
    error::<InstallError>();
}

/// Every spawner is one, and so are pointers to them.
#[test]
fn spawners_are_spawners() {
    #[cfg(feature = "threads")]
    {
        spawner::<spawner::Threads>();
        spawner::<&'static spawner::Threads>();
    }
    spawner::<Box<dyn Spawner>>();
    spawner::<std::sync::Arc<dyn Spawner>>();
    spawner::<spawner::FromFn<fn(Batch)>>();
    #[cfg(feature = "tokio")]
    {
        spawner::<spawner::Tokio>();
        clone::<spawner::Tokio>();
        debug::<spawner::Tokio>();
        let _: fn(tokio::runtime::Handle) -> spawner::Tokio = spawner::Tokio::from;
    }
    #[cfg(feature = "smol")]
    {
        let smol: spawner::Smol = spawner::Smol;
        let _ = (smol, smol);
        debug::<spawner::Smol>();
    }
    #[cfg(feature = "async-std")]
    {
        let async_std: spawner::AsyncStd = spawner::AsyncStd;
        let _ = (async_std, async_std);
        debug::<spawner::AsyncStd>();
    }
}

/// Each function and method under its fixed name and signature.
#[test]
fn every_public_name_is_there() {
    let program = async {
        let answer: u8 = after::scope(async { 7 }).await;
        let scope: Scope<_> = Runner::global().scope(async {}).order(Order::Sequential);
        let held: Held<_> = scope.failed_if(|()| false).held();
        let ((), batch): ((), Batch) = held.await;
        let _: (usize, bool, Vec<&str>) = (batch.len(), batch.is_empty(), batch.names().collect());
        batch.release();
        let _: Option<Handle> = after::try_handle();
        let handle: Handle = after::handle();
        handle.defer(async {});
        let _: u8 = handle.sync_scope(|| 1);
        let attached: Attached<_> = handle.scope(async {});
        attached.await;
        handle.defer_blocking(|| ());
        let _: Runner = handle.runner();
        let mut open: OpenScope = after::open().order(Order::Sequential);
        let _: u8 = open.enter(|| 1);
        let entered: Entered<'_, _> = open.scope(async { 1 });
        let _: u8 = entered.await;
        let _: Handle = open.handle();
        let ready: () = open.ready().await;
        let _: () = ready;
        open.end(Outcome::Finished);
        let held: Batch = Runner::global().open().hold(Outcome::Failed);
        held.release();
        let builder: TaskBuilder = handle.task("name").key(String::from("key"));
        builder.defer_blocking(|| ());
        after::task("name").key("key").defer(async {});
        let tried: Result<(), TryDeferError<_>> = after::task("name").try_defer(async {});
        drop(tried);
        let tried: Result<(), TryDeferError<_>> = after::try_defer(async {});
        drop(tried.map_err(TryDeferError::into_inner));
        after::defer_blocking(|| Ok::<(), BoxError>(()));
        let _: bool = after::in_scope() || after::forget("key");
        let outcome: Option<Outcome> = after::outcome();
        let _: Option<bool> = outcome.map(Outcome::is_success);
        context::set(1_u8);
        let _: Result<(), u8> = context::try_set(2_u8);
        let _: (Option<u8>, Option<u8>) = (context::get(), context::with(|value: &u8| *value));
        after::stop();
        Runner::global().stop();
        let stopping: Stopping = after::stopping();
        let _: (Stopping, bool) = (stopping.clone(), stopping.is_stopping());
        stopping.await;
        let report: ShutdownReport = after::shutdown(Duration::ZERO).await;
        let _: (bool, &[Unfinished], &dyn Display) =
            (report.is_clean(), report.unfinished(), &report);
        for Unfinished {
            name,
            key,
            location,
            age,
            ..
        } in report.unfinished()
        {
            let _: Option<&str> = key.as_deref();
            let _: (&'static str, &'static Location<'static>, Duration) = (*name, *location, *age);
        }
        let runner = Runner::builder()
            .spawner(spawner::from_fn(drop))
            .order(Order::Concurrent)
            .build();
        let stats: Stats = runner.stats();
        let _: Vec<Unfinished> = runner.unfinished();
        let _: [u64; 9] = [
            stats.deferred,
            stats.completed,
            stats.failed,
            stats.panicked,
            stats.timed_out,
            stats.discarded,
            stats.shed,
            stats.lost,
            stats.pending,
        ];
        runner.drain().await;
        let _: ShutdownReport = runner.shutdown(Duration::ZERO).await;
        let installed: Result<(), InstallError> = Runner::new(spawner::detect()).install();
        drop(installed);
        answer
    };
    fn resolves_to<T>(_: &impl Future<Output = T>) {}
    resolves_to::<u8>(&program);
}

/// The names that production brings: conditions, limits, watching, the test kit.
#[test]
fn every_name_for_production_is_there() {
    struct Watches;
    impl Observer for Watches {
        fn deferred(&self, event: &TaskDeferred<'_>) {
            let _: &TaskInfo<'_> = &event.task;
            let _: Option<&str> = event.task.key;
        }
        fn started(&self, event: &TaskStarted<'_>) {
            let _: (&str, Duration) = (event.task.name, event.waited);
        }
        fn finished(&self, event: &TaskFinished<'_>) {
            let _: (&'static Location<'static>, Option<Outcome>, bool) =
                (event.task.location, event.task.outcome, event.task.blocking);
            let _: (Duration, Duration) = (event.ran, event.longest_poll);
            match event.end {
                TaskEnd::Failed(error) => drop(error.to_string()),
                TaskEnd::Panicked(payload) => drop(payload.is::<&str>()),
                TaskEnd::Completed | TaskEnd::TimedOut => {}
                TaskEnd::Discarded | TaskEnd::Shed | TaskEnd::Lost => {}
                _ => {}
            }
        }
    }
    let second = Duration::from_secs(1);
    let builder = Runner::builder()
        .task_timeout(second)
        .scope_timeout(second)
        .max_running(1)
        .max_waiting(1)
        .overflow(Overflow::Shed)
        .observer(Watches)
        .on_defer(|_, task: TaskFuture| {
            TaskFuture::new(async move {
                let output: TaskOutput = task.await;
                output
            })
        });
    #[cfg(feature = "tracing")]
    let builder = builder
        .on_defer(after::tracing::in_current_span)
        .on_defer(after::tracing::following_current_span);
    #[cfg(feature = "metrics")]
    let builder = builder.observer(after::metrics::Metrics::default());
    let runner = builder.build();
    debug::<TaskFuture>();
    debug::<TaskOutput>();
    debug::<spawner::Sleep>();
    send::<TaskFuture>();
    let _: spawner::Sleep = spawner::Sleep::new(async {});
    let _: [Order; 3] = [Order::Concurrent, Order::Sequential, Order::Parallel];
    let _: [Overflow; 2] = [Overflow::Backpressure, Overflow::Shed];
    let request = runner.scope(async {
        let never: fn(Outcome) -> bool = |_| false;
        for builder in [
            after::task("a").on_success(),
            after::task("b").on_failure(),
            after::task("c").when(never),
            after::task("d").timeout(second),
            after::task("e").spawned(),
        ] {
            builder.defer(async {});
        }
    });
    drop(request);
    let kit = async {
        let (_, recorder): ((), Recorder) = after::testing::capture(async {}).await;
        let _: (Vec<&'static str>, usize, bool, bool) = (
            recorder.names(),
            recorder.len(),
            recorder.is_empty(),
            recorder.contains("a"),
        );
        recorder.run().await;
        let ran: Result<Stats, Stuck> = recorder.run_within(second).await;
        let _: Option<usize> = ran.err().map(|stuck| stuck.unfinished().len());
        let _: Runner = Recorder::new().runner();
    };
    drop(kit);
    spawner::<Recorder>();
    clone::<Recorder>();
    debug::<Recorder>();
    error::<Stuck>();
    clone::<Stuck>();
}

/// For logs, labels and admin pages.
#[test]
fn outcomes_and_counts_are_displayed() {
    use after::Outcome;

    let all = [
        Outcome::Finished,
        Outcome::Failed,
        Outcome::Cancelled,
        Outcome::Panicked,
    ];
    let words = ["finished", "failed", "cancelled", "panicked"];
    assert_eq!(all.map(Outcome::as_str), words);
    assert_eq!(all.map(|outcome| outcome.to_string()), words);
    assert_eq!(format!("{:>10}|", Outcome::Failed), "    failed|");
    let runner = after::Runner::default();
    futures::executor::block_on(runner.scope(async {
        after::task("never").on_failure().defer(async {});
    }));
    assert_eq!(
        runner.stats().to_string(),
        "deferred 1, completed 0, failed 0, panicked 0, timed out 0, discarded 1, shed 0, lost 0, pending 0"
    );
    assert_ne!(
        runner.stats(),
        after::Runner::default().stats(),
        "each is one of its own"
    );
}
