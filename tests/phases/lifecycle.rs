//! The end of a request's life: what a shutdown waits for, when the values of a request go, and what code keeps that goes on
//! after its request.

use std::{
    future::pending,
    pin::{Pin, pin},
    sync::{Arc, Mutex, Weak, mpsc},
    time::Duration,
};

use after::{Handle, Order, Outcome, Runner, ShutdownReport, context};
use futures::FutureExt as _;

use crate::common::{
    self, DefersOnDrop, Log, balanced, keeping, now_or_never, poll_once, polls_to_end, yields,
};

/// Far away: no test waits for it.
const FAR: Duration = Duration::from_secs(3_600);

/// A shutdown that was woken by a moment with nothing pending, and polled after `meanwhile`: what it waits for is what
/// `meanwhile` has left; `finish` ends that.
fn woken_late<T>(runner: &Runner, meanwhile: impl FnOnce() -> T, finish: impl FnOnce(T)) {
    let ((), mut first) = now_or_never(runner.scope(async { after::defer(async {}) }).held());
    let mut shutdown = pin!(runner.shutdown(FAR));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    polls_to_end(&mut first, 3);
    let left = meanwhile();
    assert!(
        poll_once(shutdown.as_mut()).is_pending(),
        "{:?}",
        runner.stats()
    );
    finish(left);
    let report = now_or_never(shutdown);
    assert!(report.is_clean(), "{report}");
    balanced(runner);
}

/// Sentence 20: a shutdown is clean, or it has waited until its limit. Here a handle defers between the moment with nothing
/// pending and the poll that hears of it: the report said "1 unfinished after 3600s".
#[test]
fn a_shutdown_waits_for_what_a_handle_defers_before_it_is_polled() {
    let (runner, batches) = keeping();
    let handle = now_or_never(runner.scope(async { after::handle() }));
    woken_late(
        &runner,
        || handle.defer(async {}),
        |()| assert_eq!(polls_to_end(&mut batches.take_one(), 3), 2),
    );
}

/// Sentence 20: the same with a request in progress, which has deferred something and ends later.
#[test]
fn a_shutdown_waits_for_a_request_that_began_before_it_is_polled() {
    let (runner, batches) = keeping();
    woken_late(
        &runner,
        || {
            let mut request = Box::pin(runner.scope(async {
                // A scope in a scope is a request of its own.
                after::defer(async {});
                std::future::pending::<()>().await;
            }));
            assert!(poll_once(request.as_mut()).is_pending());
            request
        },
        |request| {
            drop(request);
            polls_to_end(&mut batches.take_one(), 3);
        },
    );
}

/// Sentence 20: the same with a held batch, and with one that is released.
#[test]
fn a_shutdown_waits_for_a_batch_that_was_held_before_it_is_polled() {
    let (runner, batches) = keeping();
    let hold = || now_or_never(runner.scope(async { after::defer(async {}) }).held()).1;
    woken_late(&runner, hold, |mut batch| {
        polls_to_end(&mut batch, 3);
    });
    let release = || hold().release();
    woken_late(&runner, release, |()| {
        polls_to_end(&mut batches.take_one(), 3);
    });
}

/// Sentence 20: the same with a nested scope, whose own request is not pending by itself.
#[test]
fn a_shutdown_waits_for_a_nested_scope_that_began_before_it_is_polled() {
    let (runner, batches) = keeping();
    woken_late(
        &runner,
        || {
            now_or_never(runner.scope(async {
                runner.scope(async { after::defer(async {}) }).await;
            }));
        },
        |()| {
            polls_to_end(&mut batches.take_one(), 3);
        },
    );
}

/// Sentence 20: any number of such moments, for any number of shutdowns; one with a limit of zero reports at once.
#[test]
fn several_shutdowns_wait_through_several_moments() {
    let (runner, batches) = keeping();
    let handle = now_or_never(runner.scope(async { after::handle() }));
    handle.defer(async {});
    let mut shutdowns: Vec<Pin<Box<dyn Future<Output = ShutdownReport>>>> = Vec::new();
    for limit in [FAR, FAR, Duration::MAX] {
        shutdowns.push(Box::pin(runner.shutdown(limit)));
    }
    for _ in 0..3 {
        for shutdown in &mut shutdowns {
            assert!(poll_once(shutdown.as_mut()).is_pending());
        }
        polls_to_end(&mut batches.take_one(), 3);
        handle.defer(async {});
        let report = now_or_never(runner.shutdown(Duration::ZERO));
        assert_eq!(report.stats().pending, 1);
    }
    for shutdown in &mut shutdowns {
        assert!(poll_once(shutdown.as_mut()).is_pending());
    }
    polls_to_end(&mut batches.take_one(), 3);
    for shutdown in shutdowns {
        assert!(now_or_never(shutdown).is_clean());
    }
}

/// What a request keeps for its code, with a way to defer: it leads back to itself.
struct Services {
    after: Handle,
    _value: Arc<()>,
}

/// Sets a value that holds a handle of its own request; tells when it is gone.
fn set_services() -> (Handle, Weak<()>) {
    let value = Arc::new(());
    let gone = Arc::downgrade(&value);
    context::set(Services {
        after: after::handle(),
        _value: value,
    });
    (after::handle(), gone)
}

/// A task that needs the services.
fn uses_services() {
    after::defer(async {
        yields(2).await;
        context::with(|services: &Services| services.after.defer(async {})).unwrap();
    });
}

#[track_caller]
fn is_gone(handle: &Handle, gone: &Weak<()>) {
    assert_eq!(gone.strong_count(), 0, "the values are still there");
    handle.sync_scope(|| assert!(context::with(|_: &Services| ()).is_none()));
}

every_runtime! {
    /// Sentence 18: the context goes when the request and its tasks are over, before `drain` returns, whoever still has a
    /// handle. A value that held one was kept for ever.
    async fn values_with_a_handle_go_with_the_last_task(runner) {
        let request = || async {
            uses_services();
            set_services()
        };
        let (handle, gone) = runner.scope(request()).await;
        runner.drain().await;
        is_gone(&handle, &gone);

        let (handle, gone) = runner.scope(request()).order(Order::Parallel).await;
        runner.drain().await;
        is_gone(&handle, &gone);

        let (handle, gone) = runner
            .scope(async {
                after::task("apart").spawned().defer(async {
                    assert!(context::with(|_: &Services| ()).is_some());
                });
                set_services()
            })
            .await;
        runner.drain().await;
        is_gone(&handle, &gone);

        let (handle, gone) = runner
            .scope(async {
                after::defer_blocking(|| {
                    context::with(|services: &Services| services.after.defer(async {})).unwrap();
                });
                set_services()
            })
            .await;
        runner.drain().await;
        is_gone(&handle, &gone);
        let stats = balanced(&runner);
        assert_eq!(stats.completed, stats.deferred);
    }

    /// Sentence 18: the same where nothing is left to run: nothing was deferred, or all was discarded or lost; and with
    /// whatever end.
    async fn values_with_a_handle_go_where_nothing_runs(runner) {
        let (handle, gone) = runner.scope(async { set_services() }).await;
        is_gone(&handle, &gone);

        let (handle, gone) = runner
            .scope(async {
                after::task("no").on_failure().defer(async {});
                set_services()
            })
            .await;
        is_gone(&handle, &gone);

        let ((handle, gone), batch) = runner
            .scope(async {
                uses_services();
                set_services()
            })
            .held()
            .await;
        drop(batch);
        is_gone(&handle, &gone);

        let ((handle, gone), batch) = runner
            .scope(async {
                after::task("apart").spawned().defer(async {});
                set_services()
            })
            .held()
            .await;
        batch.await;
        is_gone(&handle, &gone);

        // Cancelled, and panicked.
        for panics in [false, true] {
            let kept = Arc::new(Mutex::new(None));
            let mut request = Box::pin(runner.scope({
                let kept = kept.clone();
                async move {
                    *kept.lock().unwrap() = Some(set_services());
                    assert!(!panics, "told to");
                    pending::<()>().await;
                }
            }));
            let polled = std::panic::AssertUnwindSafe(&mut request).catch_unwind().now_or_never();
            assert_eq!(polled.is_some(), panics);
            drop(request);
            let (handle, gone) = kept.lock().unwrap().take().unwrap();
            is_gone(&handle, &gone);
        }
    }

    /// Sentence 15: late work runs, on the account, with the outcome of its request and without its values.
    async fn late_work_sees_the_outcome_and_no_values(runner) {
        let (handle, gone) = runner.scope(async { set_services() }).await;
        let log = Log::new();
        let entry = log.clone();
        handle.defer(async move {
            let values = context::with(|_: &Services| ()).is_some();
            entry.add(format!("{:?} {values}", after::outcome()));
        });
        runner.drain().await;
        log.assert(&["Some(Finished) false"]);
        is_gone(&handle, &gone);
    }

    /// No call panics because a client went: code that goes on after its request sets values of its own. The tasks of the
    /// request don't see them, those that this code defers do.
    async fn code_that_goes_on_after_its_request_has_values_of_its_own(runner) {
        let log = Log::new();
        let (go_on, gate) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel::<()>();
        let mut request = Box::pin(runner.scope({
            let log = log.clone();
            async move {
                context::set(7_u32);
                let detached = after::handle().scope(async move {
                    context::set("of the request");
                    tell.send(()).unwrap();
                    gate.recv().unwrap();
                    assert_eq!(after::outcome(), Some(Outcome::Cancelled));
                    assert_eq!(context::get(), Some(7_u32));
                    assert_eq!(context::get(), Some("of the request"));
                    context::set(8_u32);
                    assert_eq!(context::get(), Some(8_u32));
                    assert_eq!(context::try_set(9_u32), Ok(()));
                    after::defer(async move {
                        log.add(format!("{:?} {:?}", context::get::<u32>(), context::get::<&str>()));
                        assert_eq!(context::try_set(10_u32), Err(10));
                    });
                });
                let thread = std::thread::spawn(|| futures::executor::block_on(detached));
                told.recv().unwrap();
                after::defer(async move {
                    go_on.send(()).unwrap();
                    thread.join().unwrap();
                    assert_eq!(context::get(), Some(7_u32));
                    assert_eq!(context::try_set(10_u32), Err(10));
                });
                pending::<()>().await;
            }
        }));
        assert!(poll_once(request.as_mut()).is_pending());
        drop(request);
        runner.drain().await;
        log.assert(&["Some(9) Some(\"of the request\")"]);
        let stats = balanced(&runner);
        assert_eq!((stats.deferred, stats.completed), (2, 2));
    }
}

type Code = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request that detaches `code` and goes on, until its client goes. What is given back is the code, to be polled on as
/// by a task of its own; it was polled once while the request ran, or never.
fn client_goes<F>(runner: &Runner, polled_before: bool, code: F) -> Code
where
    F: Future<Output = ()> + Send + 'static,
{
    let place = Arc::new(Mutex::new(None::<Code>));
    let mut request = Box::pin(runner.scope({
        let place = place.clone();
        async move {
            context::set("when it was attached");
            *place.lock().unwrap() = Some(Box::pin(after::handle().scope(code)));
            yields(1).await;
            context::set(1_u8);
            pending::<()>().await;
        }
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    let mut code = place.lock().unwrap().take().unwrap();
    if polled_before {
        assert!(poll_once(code.as_mut()).is_pending());
    }
    assert!(poll_once(request.as_mut()).is_pending());
    drop(request);
    code
}

/// The values stay what they were at the end of the request for code that goes on, although the request had no tasks and
/// nobody else has them; and for what it brings along in turn. They go with the code.
#[test]
fn code_that_goes_on_keeps_the_values_of_its_request() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let gone = Arc::new(Mutex::new(None));
    let mut code = client_goes(&runner, true, {
        let (log, gone) = (log.clone(), gone.clone());
        async move {
            let early = after::handle();
            yields(1).await;
            assert_eq!(after::outcome(), Some(Outcome::Cancelled));
            let both = || (context::get::<&str>(), context::get::<u8>());
            let seen = (Some("when it was attached"), Some(1));
            assert_eq!(both(), seen);
            for handle in [early.clone(), after::handle()] {
                assert_eq!(handle.sync_scope(both), seen);
                assert_eq!(handle.scope(async { both() }).await, seen);
                let mut spawned = Box::pin(handle.scope(async move {
                    yields(1).await;
                    both()
                }));
                // As on a thread of its own.
                let spawned = std::thread::spawn(move || {
                    assert!(poll_once(spawned.as_mut()).is_pending());
                    now_or_never(spawned)
                });
                assert_eq!(spawned.join().unwrap(), seen);
            }
            *gone.lock().unwrap() = Some(set_services());
            uses_services();
            context::set(2_u8);
            after::handle()
                .scope(async move {
                    // Of the code that has brought it along, which has not ended.
                    context::set(3_u8);
                })
                .await;
            assert_eq!(context::get(), Some(3_u8));
            after::task("late").defer(async move { log.add(format!("{:?}", both())) });
            yields(1).await;
            assert_eq!(context::get(), Some(3_u8));
        }
    });
    assert!(poll_once(code.as_mut()).is_pending());
    let (handle, weak) = gone.lock().unwrap().take().unwrap();
    assert!(weak.upgrade().is_some());
    assert!(poll_once(code.as_mut()).is_ready());
    batches.drive(10);
    log.assert(&["(Some(\"when it was attached\"), Some(3))"]);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.completed), (3, 3));
    // Also while the future itself is kept.
    is_gone(&handle, &weak);
    drop(code);
}

/// Code that was not polled before the end of its request has the values from when it was attached.
#[test]
fn code_that_begins_after_its_request_has_the_values_from_when_it_was_attached() {
    let (runner, batches) = keeping();
    let code = client_goes(&runner, false, async {
        assert_eq!(context::get(), Some("when it was attached"));
        context::set(2_u8);
        after::defer(async { assert_eq!(context::get(), Some(2_u8)) });
    });
    now_or_never(code);
    polls_to_end(&mut batches.take_one(), 3);
    // And so have the destructors of what never runs.
    struct Looks(mpsc::Sender<Option<&'static str>>);
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.send(context::get()).unwrap();
        }
    }
    let (tell, told) = mpsc::channel();
    let looks = Looks(tell);
    drop(client_goes(&runner, false, async move { drop(looks) }));
    assert_eq!(told.recv().unwrap(), Some("when it was attached"));
    assert_eq!(balanced(&runner).completed, 1);
}

/// Which values what it defers sees does not hang on whether the request's tasks still run: with values of its own it is a
/// batch of its own, without it joins them.
#[test]
fn values_of_its_own_go_with_a_batch_of_their_own() {
    let (runner, batches) = keeping();
    let place = Arc::new(Mutex::new(None::<Code>));
    let log = Log::new();
    let mut request = Box::pin(runner.scope({
        let (place, log) = (place.clone(), log.clone());
        async move {
            context::set(1_u8);
            let note = move |log: &Log| {
                let log = log.clone();
                after::defer(async move { log.add(format!("{:?}", context::get::<u8>())) });
            };
            *place.lock().unwrap() = Some(Box::pin(after::handle().scope(async move {
                yields(1).await;
                note(&log);
                assert!(!after::forget("nothing"));
                context::set(2_u8);
                note(&log);
                context::set(3_u8);
                note(&log);
            })));
            after::defer(async { assert_eq!(context::get(), Some(1_u8)) });
            pending::<()>().await;
        }
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    let mut code = place.lock().unwrap().take().unwrap();
    assert!(poll_once(code.as_mut()).is_pending());
    drop(request);
    now_or_never(code);
    assert_eq!(batches.len(), 3);
    batches.drive(3);
    let mut entries = log.entries();
    entries.sort();
    assert_eq!(entries, ["Some(1)", "Some(2)", "Some(3)"]);
    assert_eq!(balanced(&runner).completed, 4);
}

/// Sentence 16: a closure on the blocking pool is a task, and can't change the values, in whatever order things end.
#[test]
fn a_deferred_closure_cannot_set_values() {
    let runner = Runner::builder().build();
    let (tell, told) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let ((), mut batch) = now_or_never(
        runner
            .scope(async move {
                context::set(1_u8);
                after::defer_blocking(move || {
                    tell.send((context::get::<u8>(), context::try_set(2_u8)))
                        .unwrap();
                    gate.recv().unwrap();
                    // Its batch is lost.
                    tell.send((context::get::<u8>(), context::try_set(2_u8)))
                        .unwrap();
                    let handle = after::handle();
                    tell.send((handle.sync_scope(context::get), context::try_set(2_u8)))
                        .unwrap();
                });
            })
            .held(),
    );
    for _ in 0..2 {
        assert!(poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(told.recv().unwrap(), (Some(1), Err(2)));
    drop(batch);
    go_on.send(()).unwrap();
    assert_eq!(told.recv().unwrap(), (Some(1), Err(2)));
    assert_eq!(told.recv().unwrap(), (Some(1), Err(2)));
    assert_eq!(balanced(&runner).lost, 1);
}

/// A value that holds a future which a handle has brought along, polled by the request or not, goes with the request.
#[test]
fn values_with_an_attached_future_go_with_the_request() {
    type Place = Arc<Mutex<Option<Code>>>;
    struct Memo {
        _place: Place,
        _value: Arc<()>,
    }
    for polled in [false, true] {
        for set_first in [false, true] {
            let (runner, _) = keeping();
            let mut weak = Weak::new();
            let mut request = Box::pin(runner.scope(async {
                let value = Arc::new(());
                weak = Arc::downgrade(&value);
                let place = Place::default();
                if set_first && polled {
                    context::set(Memo {
                        _place: place.clone(),
                        _value: value.clone(),
                    });
                }
                let mut future: Code = Box::pin(after::handle().scope(pending()));
                if polled {
                    assert!(poll_once(future.as_mut()).is_pending());
                }
                *place.lock().unwrap() = Some(future);
                if !(set_first && polled) {
                    context::set(Memo {
                        _place: place,
                        _value: value,
                    });
                }
                pending::<()>().await;
            }));
            assert!(poll_once(request.as_mut()).is_pending());
            drop(request);
            assert_eq!(
                weak.strong_count(),
                0,
                "polled {polled}, set first {set_first}"
            );
        }
    }
}

/// The destructors of values may defer, as those of a batch without a handle: in the scope that is current where the
/// request ends, if there is one. They run when nothing is locked.
#[test]
fn destructors_of_values_are_in_no_scope() {
    let (runner, batches) = keeping();
    let log = Log::new();
    for with_handle in [false, true] {
        for with_task in [false, true] {
            now_or_never(runner.scope(async {
                context::set(DefersOnDrop {
                    log: log.clone(),
                    entry: "never",
                });
                if with_handle {
                    drop(after::handle());
                }
                if with_task {
                    after::defer(async {});
                }
            }));
            if with_task {
                polls_to_end(&mut batches.take_one(), 3);
            }
        }
    }
    log.assert(&["outside"; 4]);
}

#[cfg(feature = "tower")]
mod responses {
    use std::convert::Infallible;

    use ::tower::{Layer as _, Service as _, service_fn};
    use after::tower::{AfterLayer, RequestHead, RunAfter};
    use bytes::Bytes;
    use http_body::{Body as _, Frame};
    use http_body_util::{Full, StreamBody};

    use super::*;

    const EVERY: [RunAfter; 3] = [RunAfter::Head, RunAfter::Body, RunAfter::Written];

    fn layer(runner: &Runner, run_after: RunAfter) -> AfterLayer {
        AfterLayer::with_runner(runner.clone())
            .run_after(run_after)
            .capture_request()
    }

    fn request() -> http::Request<()> {
        http::Request::get("/orders").body(()).unwrap()
    }

    /// A handler that detaches its work (`tokio::spawn(handle.scope(..))`) goes on when its client has gone, and may set,
    /// read and defer as before.
    #[test]
    fn a_detached_handler_goes_on_when_its_client_has_gone() {
        for run_after in EVERY {
            let (runner, batches) = keeping();
            let log = Log::new();
            let place = Arc::new(Mutex::new(None::<Code>));
            let handler = service_fn({
                let (place, log) = (place.clone(), log.clone());
                move |_: http::Request<()>| {
                    let (place, log) = (place.clone(), log.clone());
                    async move {
                        *place.lock().unwrap() =
                            Some(Box::pin(after::handle().scope(async move {
                                context::set(1_u8);
                                yields(1).await;
                                context::set(2_u16);
                                after::defer(async move {
                                    let head = context::get::<RequestHead>().unwrap();
                                    let seen = (context::get::<u8>(), context::get::<u16>());
                                    log.add(format!("{} {seen:?}", head.uri()));
                                });
                                assert_eq!(after::outcome(), Some(Outcome::Cancelled));
                            })));
                        pending::<Result<http::Response<Full<Bytes>>, Infallible>>().await
                    }
                }
            });
            let mut service = layer(&runner, run_after).layer(handler);
            let mut answer = Box::pin(service.call(request()));
            assert!(poll_once(answer.as_mut()).is_pending());
            let mut code = place.lock().unwrap().take().unwrap();
            assert!(poll_once(code.as_mut()).is_pending());
            drop(answer);
            assert!(poll_once(code.as_mut()).is_ready());
            polls_to_end(&mut batches.take_one(), 3);
            log.assert(&["/orders (Some(1), Some(2))"]);
            assert_eq!(balanced(&runner).completed, 1);
        }
    }

    /// Whenever a response's tasks are handed over: the values of the request go with them, whoever has a handle.
    #[test]
    fn values_with_a_handle_go_with_the_response() {
        for run_after in EVERY {
            for tasks in 0..2 {
                let (runner, batches) = keeping();
                let place = Arc::new(Mutex::new(None));
                let handler = service_fn({
                    let place = place.clone();
                    move |_: http::Request<()>| {
                        *place.lock().unwrap() = Some(set_services());
                        for _ in 0..tasks {
                            uses_services();
                        }
                        let body = Full::new(Bytes::from_static(b"answer"));
                        std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
                    }
                });
                let mut service = layer(&runner, run_after).layer(handler);
                let response = now_or_never(service.call(request())).unwrap();
                let mut body = Box::pin(response.into_body());
                let frame = now_or_never(std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)));
                drop(body);
                drop(frame);
                batches.drive(10);
                let (handle, gone) = place.lock().unwrap().take().unwrap();
                is_gone(&handle, &gone);
                assert_eq!(balanced(&runner).completed, 2 * tasks);
            }
        }
    }

    /// Sentence 16: with `RunAfter::Head` a body goes on after the end of its request: it has the values of the request,
    /// frozen, whether the request had deferred something before the head or not, also when all of that is over.
    #[test]
    fn a_body_that_goes_on_after_the_head_keeps_the_values() {
        for before_head in [false, true] {
            let (runner, batches) = keeping();
            let log = Log::new();
            let entry = log.clone();
            let handler = service_fn(move |_: http::Request<()>| {
                context::set(1_u8);
                if before_head {
                    after::defer(async { assert_eq!(context::get::<u16>(), None) });
                } else {
                    drop(after::handle());
                }
                let log = entry.clone();
                let frames = futures::stream::once(async move {
                    assert_eq!(context::get(), Some(1_u8));
                    assert_eq!(context::try_set(2_u16), Err(2));
                    after::defer(async move {
                        log.add(format!("{:?}", context::get::<u8>()));
                    });
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"event")))
                });
                std::future::ready(Ok::<_, Infallible>(http::Response::new(StreamBody::new(
                    frames,
                ))))
            });
            let mut service = layer(&runner, RunAfter::Head).layer(handler);
            let response = now_or_never(service.call(request())).unwrap();
            batches.drive(3);
            let mut body = Box::pin(response.into_body());
            let frame = now_or_never(std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)));
            assert!(frame.is_some());
            drop(body);
            batches.drive(3);
            log.assert(&["Some(1)"]);
            balanced(&runner);
        }
    }
}

/// Sentence 15: a task that is taken back by its key at the last moment of a batch leaves it able to end.
#[test]
fn a_batch_ends_although_its_last_task_was_taken_back() {
    let (runner, batches) = common::keeping();
    let handle = common::now_or_never(runner.scope(async {
        after::defer(async {});
        after::handle()
    }));
    let mut batch = batches.take_one();
    handle.task("joins").key("k").defer(async {});
    assert!(handle.sync_scope(|| after::forget("k")));
    common::polls_to_end(&mut batch, 10);
    handle.defer(async {});
    common::polls_to_end(&mut batches.take_one(), 10);
    let stats = common::balanced(&runner);
    assert_eq!((stats.completed, stats.discarded, stats.pending), (2, 1, 0));
}

/// Whoever waits for the account finds the values of a request gone, also when its last tasks are not to run.
#[test]
fn values_are_gone_when_the_last_task_is_discarded() {
    for nested in [false, true] {
        let (runner, batches) = common::keeping();
        let value = std::sync::Arc::new(());
        let gone = std::sync::Arc::downgrade(&value);
        let mut drain = Box::pin({
            let runner = runner.clone();
            async move { runner.drain().await }
        });
        common::now_or_never(runner.scope(async {
            after::context::set(value);
            if nested {
                after::defer(async { after::task("never").on_failure().defer(async {}) });
            } else {
                after::task("never").on_failure().defer(async {});
            }
            assert!(common::poll_once(drain.as_mut()).is_pending());
        }));
        for mut batch in batches.take_all() {
            for _ in 0..10 {
                let ended = common::poll_once(std::pin::Pin::new(&mut batch)).is_ready();
                if common::poll_once(drain.as_mut()).is_ready() {
                    assert!(gone.upgrade().is_none(), "nested: {nested}");
                    break;
                }
                assert!(!ended);
            }
        }
        assert!(gone.upgrade().is_none(), "nested: {nested}");
    }
}

/// Sentence 18: the request's values go with the last of its tasks, whichever batch that is in. What comes by a handle
/// meanwhile sees them, also when all of the request's tasks are batches of their own.
#[test]
fn late_work_sees_the_values_while_a_spawned_task_of_the_request_runs() {
    let (runner, batches) = keeping();
    let log = Log::default();
    let handle = now_or_never(runner.scope(async {
        context::set(String::from("set"));
        after::task("spawned").spawned().defer(yields(1));
        after::handle()
    }));
    let mut spawned = batches.take_one();
    for moment in ["meanwhile", "afterwards"] {
        let log = log.clone();
        handle.defer(async move {
            log.add(format!("{moment}: {:?}", context::get::<String>()));
        });
        polls_to_end(&mut batches.take_one(), 3);
        if moment == "meanwhile" {
            polls_to_end(&mut spawned, 3);
        }
    }
    log.assert(&["meanwhile: Some(\"set\")", "afterwards: None"]);
    balanced(&runner);
}

/// Sentences 8, 15 and 20: the destructor of a task that is discarded at the hand-over may take the first handle of its request.
/// What comes by it, at once or later, runs.
#[test]
fn a_discarded_task_may_take_the_first_handle() {
    for at_once in [true, false] {
        let (runner, batches) = keeping();
        let log = Log::new();
        let kept: Arc<Mutex<Option<Handle>>> = Arc::default();
        let defer = {
            let log = log.clone();
            move |handle: &Handle| {
                let log = log.clone();
                handle.defer(async move { log.add("ran") });
            }
        };
        let on_drop = {
            let (kept, defer) = (kept.clone(), defer.clone());
            OnDrop(Some(move || {
                let handle = after::try_handle().unwrap();
                if at_once {
                    defer(&handle);
                }
                *kept.lock().unwrap() = Some(handle);
            }))
        };
        now_or_never(runner.scope(async {
            after::task("discarded")
                .on_failure()
                .defer(async move { drop(on_drop) });
        }));
        let handle = kept.lock().unwrap().take().unwrap();
        if !at_once {
            assert_eq!(runner.stats().pending, 0, "nothing is left of it");
            defer(&handle);
        }
        polls_to_end(&mut batches.take_one(), 3);
        log.assert(&["ran"]);
        assert_eq!(balanced(&runner).pending, 0);
        assert!(now_or_never(runner.shutdown(Duration::ZERO)).is_clean());
    }
}

struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0.take().unwrap()();
    }
}

/// Sentence 18: whoever waits for the account finds the values of a request gone, also when all that it had deferred was taken
/// back by its key.
#[test]
fn values_are_gone_when_nothing_is_left_to_hand_over() {
    struct Sees(Weak<()>, Mutex<Option<bool>>);

    impl std::task::Wake for Sees {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(self.0.strong_count() == 0);
        }
    }

    let (runner, _batches) = keeping();
    let value = Arc::new(());
    let sees = Arc::new(Sees(Arc::downgrade(&value), Mutex::default()));
    let mut request = Box::pin(runner.scope(async move {
        context::set(value);
        after::task("mail").key("mail").defer(async {});
        yields(1).await;
        assert!(after::forget("mail"));
    }));
    assert!(poll_once(request.as_mut()).is_pending());
    let mut drain = pin!(runner.drain());
    let waker = std::task::Waker::from(sees.clone());
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(drain.as_mut().poll(&mut cx).is_pending());
    assert!(poll_once(request.as_mut()).is_ready());
    assert_eq!(
        *sees.1.lock().unwrap(),
        Some(true),
        "woken, with the values gone"
    );
}

/// Sentence 18, of a batch that waits for a guard or is awaited, and of which all goes its own way: whoever waits for the account
/// finds the values gone, though the batch has not been polled since.
#[test]
fn values_are_gone_when_the_last_spawned_task_has_ended_beside_its_batch() {
    for held in [false, true] {
        let (runner, batches) = keeping();
        let value = Arc::new(());
        let gone = Arc::downgrade(&value);
        let mut request = runner.open();
        request.enter(|| {
            context::set(value);
            after::task("apart").spawned().defer(async {});
        });
        let mut batch = match held {
            true => request.hold(Outcome::Finished),
            false => {
                let unwritten = request.start_guard();
                request.end(Outcome::Finished);
                drop(unwritten);
                batches.take_one()
            }
        };
        let _ = poll_once(Pin::new(&mut batch));
        polls_to_end(&mut batches.take_one(), 3);
        assert_eq!(runner.stats().pending, 0);
        assert!(gone.upgrade().is_none(), "held: {held}");
    }
}
