//! Sentence 10: a runtime that has gone is not remembered. What it refuses goes to the next that would be found, and is lost
//! only when nothing takes it.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use after::{Batch, Handle, Order, Runner, Scope, spawner::Tokio};
use tokio::runtime::{Builder, Runtime};

use crate::common::{self, balanced, now_or_never, poll_once};

const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
enum Flavour {
    CurrentThread,
    MultiThread,
}

const FLAVOURS: [Flavour; 2] = [Flavour::CurrentThread, Flavour::MultiThread];

impl Flavour {
    fn build(self) -> Runtime {
        match self {
            Flavour::CurrentThread => Builder::new_current_thread().enable_all().build(),
            Flavour::MultiThread => Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build(),
        }
        .unwrap()
    }
}

fn each(test: impl Fn(Flavour, Flavour)) {
    for first in FLAVOURS {
        for second in FLAVOURS {
            test(first, second);
        }
    }
}

/// How many tasks ran inside a runtime of tokio, and how many elsewhere.
#[derive(Clone, Default)]
struct Places(Arc<[AtomicUsize; 2]>);

impl Places {
    fn note(&self) {
        let inside = tokio::runtime::Handle::try_current().is_ok();
        self.0[usize::from(!inside)].fetch_add(1, SeqCst);
    }

    fn defer(&self) {
        let places = self.clone();
        after::defer(async move { places.note() });
    }

    #[track_caller]
    fn assert(&self, inside: usize, elsewhere: usize) {
        let seen = [self.0[0].load(SeqCst), self.0[1].load(SeqCst)];
        assert_eq!(seen, [inside, elsewhere], "inside tokio, elsewhere");
    }
}

/// Everything has ended, and nothing is lost.
#[track_caller]
fn all_ran(runner: &Runner) {
    let stats = balanced(runner);
    assert_eq!(
        (stats.completed, stats.lost),
        (stats.deferred, 0),
        "{stats:?}"
    );
}

type Request = Pin<Box<Scope<Pin<Box<dyn Future<Output = ()> + Send>>>>>;

/// A request that has begun inside `runtime`, and waits.
fn begun(
    runner: &Runner,
    runtime: &Runtime,
    request: impl Future<Output = ()> + Send + 'static,
) -> Request {
    let request: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async {
        request.await;
        pending().await
    });
    let mut scope = Box::pin(runner.scope(request));
    let _inside = runtime.enter();
    assert!(poll_once(scope.as_mut()).is_pending());
    scope
}

/// As in a suite whose tests have a runtime each, some of them none: the bare `block_on` lost its tasks.
#[test]
fn runtimes_in_turn_serve_one_runner() {
    each(|first, second| {
        let runner = Runner::builder().build();
        let places = Places::default();
        let request = async || {
            runner.scope(async { places.defer() }).await;
            runner.drain().await;
        };
        for round in 1..3 {
            first.build().block_on(request());
            second.build().block_on(request());
            futures::executor::block_on(request());
            places.assert(2 * round, round);
        }
        all_ran(&runner);
    });
}

/// A request that began under a runtime that has gone is handed over to the one under which it ends; whatever its order,
/// and with a handle.
#[test]
fn a_request_that_began_under_a_runtime_that_has_gone_ends_under_another() {
    each(|first, second| {
        for (order, with_handle) in [
            (Order::Concurrent, false),
            (Order::Concurrent, true),
            (Order::Sequential, false),
            (Order::Parallel, false),
            (Order::Parallel, true),
        ] {
            let runner = Runner::builder().order(order).scope_timeout(HOUR).build();
            let places = Places::default();
            let old = first.build();
            let request = begun(&runner, &old, {
                let places = places.clone();
                async move {
                    if with_handle {
                        drop(after::handle());
                    }
                    places.defer();
                    places.defer();
                    let apart = places.clone();
                    after::task("apart").spawned().defer(async move {
                        apart.defer();
                        after::handle().defer(async move { apart.note() });
                    });
                    after::task("limited").timeout(HOUR).defer(async {
                        common::yields(1).await;
                    });
                    after::defer_blocking(|| ());
                }
            });
            drop(old);
            second.build().block_on(async {
                drop(request);
                runner.drain().await;
            });
            places.assert(4, 0);
            all_ran(&runner);
        }
    });
}

/// The first `defer` is in a destructor, on a thread where no runtime is, when the one that is remembered has gone. The
/// next that is seen is remembered in its place.
#[test]
fn the_next_runtime_is_remembered() {
    struct DefersOnDrop(Places);
    impl Drop for DefersOnDrop {
        fn drop(&mut self) {
            self.0.defer();
        }
    }
    each(|first, second| {
        let runner = Runner::builder().build();
        let places = Places::default();
        let on_a_foreign_thread = || {
            let guard = DefersOnDrop(places.clone());
            let mut request = Box::pin(runner.scope(async move {
                let _guard = guard;
                pending::<()>().await;
            }));
            assert!(poll_once(request.as_mut()).is_pending());
            std::thread::spawn(move || drop(request)).join().unwrap();
        };
        let old = first.build();
        old.block_on(async { runner.scope(async { places.defer() }).await });
        old.block_on(runner.drain());
        on_a_foreign_thread();
        old.block_on(runner.drain());
        places.assert(2, 0);
        drop(old);
        on_a_foreign_thread();
        futures::executor::block_on(runner.drain());
        places.assert(2, 1);
        let new = second.build();
        new.block_on(async { runner.scope(async { places.defer() }).await });
        on_a_foreign_thread();
        new.block_on(runner.drain());
        places.assert(4, 1);
        all_ran(&runner);
    });
}

/// A task of the runtime holds a request; both go when the runtime is dropped, inside its drop. The same with a request
/// that has a nested one, and with destructors that defer.
#[test]
fn a_runtime_that_is_being_dropped_hands_over_elsewhere() {
    struct DefersOnDrop(Places);
    impl Drop for DefersOnDrop {
        fn drop(&mut self) {
            self.0.defer();
        }
    }
    for flavour in FLAVOURS {
        let runner = Runner::builder().build();
        let places = Places::default();
        let runtime = flavour.build();
        let (tell, told) = tokio::sync::oneshot::channel();
        let request = runner.scope({
            let (runner, places) = (runner.clone(), places.clone());
            async move {
                places.defer();
                let _guard = DefersOnDrop(places.clone());
                let nested = runner.scope(async {
                    places.defer();
                    tell.send(()).unwrap();
                    pending::<()>().await;
                });
                nested.await;
            }
        });
        runtime.spawn(request);
        runtime.block_on(told).unwrap();
        drop(runtime);
        futures::executor::block_on(runner.drain());
        assert_eq!(balanced(&runner).deferred, 3);
        all_ran(&runner);
    }
}

/// Late work goes on too, under another runtime or where there is none.
#[test]
fn late_work_goes_to_the_next_runtime() {
    each(|first, second| {
        let runner = Runner::builder().build();
        let places = Places::default();
        let handle: Handle = first
            .build()
            .block_on(async { runner.scope(async { after::handle() }).await });
        let defer = || {
            let places = places.clone();
            handle.defer(async move { places.note() });
        };
        defer();
        futures::executor::block_on(runner.drain());
        places.assert(0, 1);
        second.build().block_on(async {
            defer();
            runner.drain().await;
        });
        places.assert(1, 1);
        all_ran(&runner);
    });
}

fn held(runner: &Runner, runtime: &Runtime, places: &Places) -> Batch {
    let places = places.clone();
    let _inside = runtime.enter();
    let request = runner.scope(async move {
        drop(after::handle());
        places.defer();
        let closure = places.clone();
        after::defer_blocking(move || {
            // Elsewhere is the pool of a crate.
            closure.note();
        });
        after::task("limited").timeout(HOUR).defer(async move {
            common::yields(3).await;
            places.note();
        });
    });
    now_or_never(request.held()).1
}

/// A held batch is released, or awaited, when its runtime has gone: closures and time limits go where its tasks run.
#[test]
fn a_held_batch_outlives_its_runtime() {
    each(|first, second| {
        for scope_timeout in [false, true] {
            let builder = Runner::builder();
            let runner = match scope_timeout {
                true => builder.scope_timeout(HOUR),
                false => builder,
            }
            .build();
            let places = Places::default();
            let hold = || held(&runner, &first.build(), &places);
            let batch = hold();
            second.build().block_on(async {
                batch.release();
                runner.drain().await;
            });
            places.assert(3, 0);
            let batch = hold();
            second.build().block_on(batch);
            places.assert(6, 0);
            futures::executor::block_on(hold());
            places.assert(6, 3);
            hold().release();
            futures::executor::block_on(runner.drain());
            places.assert(6, 6);
            all_ran(&runner);
        }
    });
}

/// Time limits go by the clock of the runtime that runs the tasks, also when another has gone: here it is paused.
#[test]
fn time_limits_go_by_the_clock_of_the_next_runtime() {
    for flavour in FLAVOURS {
        for of_scope in [false, true] {
            let builder = Runner::builder();
            let runner = match of_scope {
                true => builder.scope_timeout(HOUR),
                false => builder.task_timeout(HOUR),
            }
            .build();
            let stuck = || async { after::defer(pending::<()>()) };
            let old = flavour.build();
            let began_before = begun(&runner, &old, stuck());
            let began_with_handle = begun(&runner, &old, async {
                drop(after::handle());
                after::task("apart").spawned().defer(pending::<()>());
            });
            let batch = {
                let _inside = old.enter();
                now_or_never(runner.scope(stuck()).held()).1
            };
            old.block_on(runner.scope(stuck()));
            drop(old);
            Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap()
                .block_on(async {
                    drop((began_before, began_with_handle));
                    batch.await;
                    runner.scope(stuck()).await;
                    runner.drain().await;
                });
            let stats = balanced(&runner);
            // That which the runtime had taken was lost with it.
            assert_eq!(
                (stats.timed_out, stats.lost),
                (4, 1),
                "{flavour:?} {of_scope}"
            );
        }
    }
}

/// That a runtime without a timer was there says nothing of the next.
#[test]
fn a_timer_that_was_missing_is_looked_for_in_the_next_runtime() {
    let runner = Runner::builder()
        .task_timeout(Duration::from_millis(1))
        .build();
    let stuck = || async {
        runner.scope(async { after::defer(pending::<()>()) }).await;
        runner.drain().await;
    };
    Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(stuck());
    let waited = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            let began = tokio::time::Instant::now();
            stuck().await;
            began.elapsed()
        });
    // By the paused clock, not beside it.
    assert!(waited >= Duration::from_millis(1));
    assert_eq!(balanced(&runner).timed_out, 2);
}

/// A Runner with a spawner of its own loses what that drops, as the contract says.
#[test]
fn a_spawner_of_its_own_loses_what_it_drops() {
    for flavour in FLAVOURS {
        let runtime = flavour.build();
        let runner = Runner::new(Tokio::from(runtime.handle().clone()));
        drop(runtime);
        flavour.build().block_on(async {
            runner.scope(async { after::defer(async {}) }).await;
            runner.drain().await;
        });
        assert_eq!(balanced(&runner).lost, 1);
    }
}
