//! Handlers as users write them, tested with the kit as users would.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use after::{Runner, testing::Recorder, testing::capture};
use common::balanced;
use futures::executor::block_on;

#[derive(Clone)]
struct Actor(&'static str);

/// Deletes a user: an audit entry whatever comes of it, an alarm only when it is refused.
async fn delete_user(actor: &'static str, audited: Arc<AtomicUsize>) -> Result<(), &'static str> {
    after::context::set(Actor(actor));
    after::task("audit").defer(async move {
        let Actor(actor) = after::context::get().ok_or("nobody")?;
        audited.fetch_add(actor.len(), SeqCst);
        after::Ok(())
    });
    after::task("alarm").on_failure().defer(async {});
    after::task("goodbye mail").on_success().defer(async {});
    if actor == "admin" { Ok(()) } else { Err("403") }
}

/// N5; P5: a handler that refuses is audited all the same, and conditions are decided on what it answered.
#[test]
fn a_refused_request_is_audited_and_raises_the_alarm() {
    block_on(async {
        let audited = Arc::new(AtomicUsize::new(0));
        let recorder = Recorder::new();
        let runner = recorder.runner();
        let request = runner.scope(delete_user("mallory", audited.clone()));
        assert_eq!(request.failed_if(Result::is_err).await, Err("403"));
        assert_eq!(recorder.names(), ["audit", "alarm"]);
        recorder.run().await;
        assert_eq!(audited.load(SeqCst), "mallory".len());
        assert_eq!(balanced(&runner).discarded, 1);
    });
}

/// The same, granted.
#[test]
fn a_granted_request_is_audited_and_says_goodbye() {
    block_on(async {
        let audited = Arc::new(AtomicUsize::new(0));
        let (answer, recorder) = capture(delete_user("admin", audited.clone())).await;
        assert_eq!(answer, Ok(()));
        assert_eq!(recorder.names(), ["audit", "goodbye mail"]);
        recorder.run().await;
        assert_eq!(audited.load(SeqCst), "admin".len());
    });
}

/// P1: a profile that is saved three times in one request purges its cache once.
#[test]
fn a_purge_is_deduplicated_by_key() {
    block_on(async {
        let purges = Arc::new(AtomicUsize::new(0));
        let ((), recorder) = capture(async {
            for _ in 0..3 {
                let purges = purges.clone();
                after::task("purge").key("user:7").defer(async move {
                    purges.fetch_add(1, SeqCst);
                });
            }
        })
        .await;
        assert_eq!(recorder.names(), ["purge"]);
        recorder.run().await;
        assert_eq!(purges.load(SeqCst), 1);
    });
}

/// P2, N7: a mail that fails and one that panics don't keep the others from being sent.
#[test]
fn one_failing_mail_stops_no_other() {
    block_on(async {
        let sent = Arc::new(AtomicUsize::new(0));
        let ((), recorder) = capture(async {
            for follower in 0..5 {
                let sent = sent.clone();
                after::task("mail").defer(async move {
                    match follower {
                        1 => return Err("no such mailbox"),
                        3 => panic!("a bug in the template"),
                        _ => sent.fetch_add(1, SeqCst),
                    };
                    Ok(())
                });
            }
        })
        .await;
        let limit = std::time::Duration::from_secs(60);
        let stats = recorder.run_within(limit).await.unwrap();
        assert_eq!((stats.completed, stats.failed, stats.panicked), (3, 1, 1));
        assert_eq!(sent.load(SeqCst), 3);
    });
}

/// A service that opens its scopes itself is recorded through the recorder's Runner.
#[test]
fn a_service_with_a_runner_of_its_own_is_recorded() {
    struct Service {
        runner: Runner,
    }
    impl Service {
        async fn handle(&self, path: &'static str) -> &'static str {
            let handler = async {
                after::task("access log").defer(async move { assert!(path.starts_with('/')) });
                "200"
            };
            self.runner.scope(handler).await
        }
    }
    block_on(async {
        let recorder = Recorder::new();
        let service = Service {
            runner: recorder.runner(),
        };
        assert_eq!(service.handle("/").await, "200");
        assert_eq!(service.handle("/about").await, "200");
        assert_eq!(recorder.len(), 2);
        recorder.run().await;
        assert_eq!(balanced(&service.runner).completed, 2);
    });
}
