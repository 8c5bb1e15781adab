//! Spawners: how one is found, and what the ones that come with the crate do.

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use after::{Batch, Runner, Spawner, spawner};
#[cfg(feature = "tokio")]
use common::Log;
use common::balanced;

/// The name of the thread that runs a task of a Runner with this spawner.
#[cfg(any(
    feature = "threads",
    feature = "smol",
    feature = "async-std",
    feature = "tokio"
))]
fn thread_of_a_task(runner: Runner) -> String {
    let name = Arc::new(Mutex::new(String::new()));
    let noted = name.clone();
    futures::executor::block_on(async {
        let name = noted;
        runner
            .scope(async {
                after::defer(async move {
                    *name.lock().unwrap() = std::thread::current().name().unwrap_or("").into();
                });
            })
            .await;
        runner.drain().await;
    });
    name.lock().unwrap().clone()
}

/// Threads of our own run batches where there is no runtime.
#[cfg(feature = "threads")]
#[test]
fn threads_run_batches_on_a_pool_of_their_own() {
    let name = thread_of_a_task(Runner::new(spawner::Threads::default()));
    assert_eq!(name, "after-worker");
}

/// Sentence 10: where no runtime is current, smol, async-std or Threads, the first that is enabled.
#[cfg(any(feature = "threads", feature = "smol", feature = "async-std"))]
#[test]
fn detect_without_a_runtime_takes_the_first_that_is_enabled() {
    let name = thread_of_a_task(Runner::builder().build());
    let expected = if cfg!(feature = "smol") {
        "smol-1"
    } else if cfg!(feature = "async-std") {
        "async-std/runtime"
    } else {
        "after-worker"
    };
    assert_eq!(name, expected);
    assert_eq!(thread_of_a_task(Runner::new(spawner::detect())), expected);
}

/// Sentence 10: tokio if a runtime is current.
#[cfg(feature = "tokio")]
#[test]
fn detect_takes_the_current_tokio_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tokio-of-the-test")
        .build()
        .unwrap();
    let inside = runtime.enter();
    assert_eq!(
        thread_of_a_task(Runner::builder().build()),
        "tokio-of-the-test"
    );
    assert_eq!(
        thread_of_a_task(Runner::new(spawner::detect())),
        "tokio-of-the-test"
    );
    let current = spawner::Tokio::current();
    drop(inside);
    assert_eq!(thread_of_a_task(Runner::new(current)), "tokio-of-the-test");
    let handle = runtime.handle().clone();
    assert_eq!(
        thread_of_a_task(Runner::new(spawner::Tokio::from(handle))),
        "tokio-of-the-test"
    );
}

/// Sentence 10: async-std inside one of its tasks, also when smol is enabled.
#[cfg(feature = "async-std")]
#[test]
fn detect_takes_async_std_inside_its_tasks() {
    let name = async_std::task::block_on(async {
        async_std::task::spawn_blocking(|| ()).await;
        let runner = Runner::builder().build();
        let name = Arc::new(Mutex::new(String::new()));
        let inner = name.clone();
        runner
            .scope(async move {
                after::defer(async move {
                    assert!(async_std::task::try_current().is_some());
                    *inner.lock().unwrap() = "seen".into();
                });
            })
            .await;
        runner.drain().await;
        name
    });
    assert_eq!(*name.lock().unwrap(), "seen");
}

/// Bad input: outside a runtime `Tokio::current` panics at the caller's line and says what to do.
#[cfg(feature = "tokio")]
#[test]
fn tokio_current_outside_a_runtime_says_what_to_do() {
    static LINE: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Others of this program may panic meanwhile.
        let message = info.payload().downcast_ref::<&str>();
        if message.is_some_and(|message| message.contains("Tokio::current")) {
            LINE.store(info.location().unwrap().line() as usize, SeqCst);
        }
        before(info);
    }));
    let line = line!() + 1;
    let call = || drop(spawner::Tokio::current());
    let payload = std::panic::catch_unwind(call).unwrap_err();
    let message = payload.downcast_ref::<&str>().unwrap();
    assert!(
        message.contains("#[tokio::main]") && message.contains("Tokio::from"),
        "{message}"
    );
    assert_eq!(LINE.load(SeqCst), line as usize);
    let _ = std::panic::take_hook();
    assert!(spawner::Tokio::try_current().is_none());
}

/// Sentences 10 and 26: where no runtime is current and nothing is enabled that would do without, tasks are lost, and a line
/// says what to do. Once: the losses say the rest.
#[cfg(not(any(feature = "threads", feature = "smol", feature = "async-std")))]
#[test]
fn without_a_runtime_and_without_threads_tasks_are_lost_with_a_word() {
    const NAME: &str = "without_a_runtime_and_without_threads_tasks_are_lost_with_a_word";
    if common::is_child(NAME) {
        for runner in [
            Runner::builder().build(),
            Runner::builder().build(),
            Runner::new(spawner::detect()),
        ] {
            futures::executor::block_on(async {
                let request = runner.scope(async {
                    after::task("mail").defer(async {});
                    after::defer_blocking(|| ());
                });
                request.await;
                runner.drain().await;
            });
            assert_eq!(balanced(&runner).lost, 2);
        }
        return;
    }
    let output = common::standard_error_of(NAME);
    let said = "after: no runtime is current and the feature `threads` is off, so deferred tasks are lost: end requests \
                inside the runtime, install a `Runner` on a spawner, or turn the feature on\n";
    assert_eq!(output.matches(said).count(), 1, "{output}");
    assert!(output.contains("2 tasks lost"), "{output}");
    assert!(output.contains("`mail` (tests/spawners.rs:"), "{output}");
}

/// A spawner without a blocking pool of its own gets threads: of a pool, or, without the feature, one for each closure.
#[test]
fn the_default_of_spawn_blocking_is_a_thread_that_may_block() {
    let runner = Runner::new(spawner::from_fn(|batch| {
        std::thread::spawn(|| futures::executor::block_on(batch));
    }));
    let names = Arc::new(Mutex::new(Vec::new()));
    let barrier = Arc::new(std::sync::Barrier::new(2));
    futures::executor::block_on(async {
        let request = runner.scope(async {
            for _ in 0..2 {
                let (names, barrier) = (names.clone(), barrier.clone());
                after::defer_blocking(move || {
                    // Each blocks until the other is there: they are on threads of their own.
                    barrier.wait();
                    let thread = std::thread::current();
                    names.lock().unwrap().push(thread.name().map(String::from));
                });
            }
            after::defer_blocking(|| panic!("a closure's"));
        });
        request.await;
        runner.drain().await;
    });
    let stats = balanced(&runner);
    assert_eq!((stats.completed, stats.panicked), (2, 1));
    if cfg!(not(feature = "threads")) {
        let own = Some("after-blocking".to_string());
        assert_eq!(*names.lock().unwrap(), [own.clone(), own]);
    }
}

/// Pointers to spawners are spawners, blocking work included.
#[test]
fn pointers_to_spawners_are_spawners() {
    #[derive(Default)]
    struct Counts {
        batches: AtomicUsize,
        blocking: AtomicUsize,
    }
    impl Spawner for Counts {
        fn spawn(&self, batch: Batch) {
            self.batches.fetch_add(1, SeqCst);
            std::thread::spawn(|| futures::executor::block_on(batch));
        }
        fn spawn_blocking(&self, work: spawner::BlockingWork) {
            self.blocking.fetch_add(1, SeqCst);
            work.run();
        }
    }
    let shared = Arc::new(Counts::default());
    let leaked: &'static Counts = Box::leak(Box::default());
    let boxed: Box<dyn Spawner> = Box::new(shared.clone());
    for runner in [
        Runner::new(shared.clone()),
        Runner::new(boxed),
        Runner::new(leaked),
    ] {
        futures::executor::block_on(async {
            runner.scope(async { after::defer_blocking(|| ()) }).await;
            runner.drain().await;
        });
        assert_eq!(balanced(&runner).completed, 1);
    }
    assert_eq!(
        (shared.batches.load(SeqCst), shared.blocking.load(SeqCst)),
        (2, 2)
    );
    assert_eq!(
        (leaked.batches.load(SeqCst), leaked.blocking.load(SeqCst)),
        (1, 1)
    );
}

/// One Runner serves several runtimes: each scope goes to the one that is current.
#[cfg(feature = "tokio")]
#[test]
fn one_runner_serves_several_runtimes() {
    let runner = Runner::builder().build();
    let log = Log::new();
    for name in ["first", "second"] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .build()
            .unwrap();
        runtime.block_on(async {
            let log = log.clone();
            let task = async move { log.add(std::thread::current().name().unwrap_or("")) };
            runner.scope(async { after::defer(task) }).await;
            runner.drain().await;
        });
    }
    log.assert(&["first", "second"]);
}

/// Two Runners have two accounts.
#[test]
fn each_runner_has_its_own_account() {
    let (one, _batches) = common::keeping();
    let (two, _batches) = common::keeping();
    common::now_or_never(one.scope(async { after::defer(async {}) }));
    assert_eq!((one.stats().deferred, two.stats().deferred), (1, 0));
    assert_eq!(one.clone().stats(), one.stats());
    common::now_or_never(two.drain());
}
