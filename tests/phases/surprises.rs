//! What follows from the rules and surprises all the same: each stands in the documentation.

use std::task::Poll;

use futures::FutureExt as _;

use crate::common::{self, keeping, now_or_never, poll_once};

/// A future that two requests poll in turn belongs to whichever polls it: what it defers, and which context it sees.
#[test]
fn a_shared_future_belongs_to_whichever_request_polls_it() {
    let (first, first_batches) = keeping();
    let (second, second_batches) = keeping();
    let shared = async {
        let mut seen = vec![after::context::get::<&str>()];
        after::task("before").defer(async {});
        common::yields(1).await;
        seen.push(after::context::get::<&str>());
        after::task("after").defer(async {});
        seen
    }
    .shared();
    let of = |name| {
        let shared = shared.clone();
        async move {
            after::context::set(name);
            shared.await
        }
    };
    let mut first = Box::pin(first.scope(of("first")));
    assert!(poll_once(first.as_mut()).is_pending());
    let seen = now_or_never(second.scope(of("second")));
    assert_eq!(seen, [Some("first"), Some("second")]);
    assert!(second_batches.take_one().names().eq(["after"]));
    assert_eq!(poll_once(first.as_mut()), Poll::Ready(seen));
    assert!(first_batches.take_one().names().eq(["before"]));
}

/// The way out: a future with a scope of its own, or one that a handle has brought into one request's, stays there.
#[test]
fn a_shared_future_may_have_a_scope_of_its_own() {
    let (first, first_batches) = keeping();
    let (second, second_batches) = keeping();
    let (own, own_batches) = keeping();
    let defers = || async {
        common::yields(1).await;
        after::task("of the shared future").defer(async {});
    };
    let of_its_own = own.scope(defers()).shared();
    let mut first = Box::pin(first.scope({
        let of_its_own = of_its_own.clone();
        async move {
            let of_the_first = after::handle().scope(defers()).shared();
            futures::join!(of_its_own, of_the_first);
        }
    }));
    assert!(poll_once(first.as_mut()).is_pending());
    now_or_never(second.scope(of_its_own));
    assert!(own_batches.take_one().names().eq(["of the shared future"]));
    assert_eq!(second_batches.len(), 0);
    assert!(poll_once(first.as_mut()).is_ready());
    assert!(
        first_batches
            .take_one()
            .names()
            .eq(["of the shared future"])
    );
}

#[cfg(feature = "tokio")]
mod a_task_that_asks_its_own_server {
    use std::time::Duration;

    use after::{Overflow, Runner};
    use tokio::time::Instant;

    use crate::common::{Log, balanced};

    /// One task runs and one waits.
    fn small() -> Runner {
        let builder = Runner::builder().max_running(1).max_waiting(1);
        builder.overflow(Overflow::Backpressure).build()
    }

    /// A server as a task sees it that asks over a socket: on a task of its own, with a scope of its own.
    async fn ask(server: Runner) -> &'static str {
        let request = server.scope(async {
            after::task("of the server").defer(async {});
            "answer"
        });
        tokio::spawn(request).await.unwrap()
    }

    /// A request on `caller` whose first task asks `server`, and whose second fills the line.
    async fn request(caller: &Runner, server: &Runner, log: &Log) {
        let (server, log) = (server.clone(), log.clone());
        let request = caller.scope(async {
            after::task("asks")
                .timeout(Duration::from_secs(10))
                .defer(async move { log.add(ask(server).await) });
            after::task("fills the line").defer(async {});
        });
        request.await;
    }

    /// Under backpressure the answer waits for room, which only the end of the task that waits for it makes. Its time limit
    /// is what ends it.
    #[tokio::test(start_paused = true)]
    async fn waits_for_room_that_only_its_own_end_makes() {
        let (runner, log, begun) = (small(), Log::new(), Instant::now());
        request(&runner, &runner, &log).await;
        runner.drain().await;
        let stats = balanced(&runner);
        assert_eq!((stats.timed_out, stats.completed), (1, 2));
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        log.assert(&[]);
    }

    /// The way out: a Runner of its own for what asks.
    #[tokio::test(start_paused = true)]
    async fn is_answered_if_its_runner_is_another() {
        let (runner, caller, log, begun) = (small(), small(), Log::new(), Instant::now());
        request(&caller, &runner, &log).await;
        caller.drain().await;
        runner.drain().await;
        log.assert(&["answer"]);
        assert_eq!(balanced(&caller).completed + balanced(&runner).completed, 3);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

/// With the layer a request is over when its body is: read, or dropped.
#[cfg(feature = "tower")]
mod a_recorder_behind_the_layer {
    use std::convert::Infallible;

    use after::{
        testing::Recorder,
        tower::{AfterBody, AfterLayer},
    };
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use tower::{ServiceBuilder, ServiceExt};

    use crate::common::balanced;

    async fn response(recorder: &Recorder) -> Response<AfterBody<String>> {
        let service = ServiceBuilder::new()
            .layer(AfterLayer::with_runner(recorder.runner()))
            .service_fn(|_: Request<()>| async {
                after::task("audit").defer(async {});
                after::task("receipt").on_success().defer(async {});
                Ok::<_, Infallible>(Response::new(String::from("hello")))
            });
        service.oneshot(Request::new(())).await.unwrap()
    }

    /// Nothing is handed over while the test holds the response.
    #[test]
    fn has_no_names_while_the_test_holds_the_response() {
        futures::executor::block_on(async {
            let recorder = Recorder::new();
            let response = response(&recorder).await;
            assert!(recorder.is_empty());
            assert!(balanced(&recorder.runner()).pending > 0);
            assert_eq!(response.collect().await.unwrap().to_bytes(), "hello");
            assert_eq!(recorder.names(), ["audit", "receipt"]);
            recorder.run().await;
        });
    }

    /// A body that nobody has read is cancelled, so an `on_success` task is discarded.
    #[test]
    fn has_no_on_success_task_of_a_body_that_was_dropped_unread() {
        futures::executor::block_on(async {
            let recorder = Recorder::new();
            drop(response(&recorder).await);
            assert_eq!(recorder.names(), ["audit"]);
            assert_eq!(balanced(&recorder.runner()).discarded, 1);
            recorder.run().await;
        });
    }
}
