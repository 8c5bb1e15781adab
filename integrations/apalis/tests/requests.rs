//! A job is a request: scopes, outcomes, the account; and the end of a worker.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use after::Outcome;
use after_apalis::{Backoff, Running};
use common::{LONG, Receipt, eventually, within};
use tokio::sync::{Semaphore, mpsc};

const NEVER: Duration = Duration::from_secs(3600);

/// Some library, which knows nothing of jobs.
fn audit(seen: &mpsc::UnboundedSender<(Option<Outcome>, Option<usize>)>) {
    let seen = seen.clone();
    after::task("audit").defer(async move {
        let attempt = after::context::get::<Running>().map(|running| running.attempt);
        seen.send((after::outcome(), attempt)).unwrap();
    });
}

every_store! {
    /// The outcome is that of the job's result, and what conditions go by.
    what_a_job_defers_runs_after_it_with_its_outcome(database) {
        let jobs = database.jobs().await;
        let (seen, mut audits) = mpsc::unbounded_channel();
        let worker = jobs
            .worker()
            .backoff(Backoff::new(NEVER, NEVER))
            .concurrency(1)
            .handle(move |receipt: Receipt| {
                let seen = seen.clone();
                async move {
                    audit(&seen);
                    after::task("only on success").on_success().defer(async {});
                    match receipt.order {
                        1 => Ok(()),
                        2 => Err("no paper"),
                        _ => panic!("no printer"),
                    }
                }
            })
            .start()
            .await
            .unwrap();
        for (order, outcome) in [(1, Outcome::Finished), (2, Outcome::Failed), (3, Outcome::Panicked)] {
            let _ = jobs.push(Receipt { order }).await.unwrap();
            assert_eq!(within("the audit", audits.recv()).await, Some((Some(outcome), Some(1))));
        }
        let runner = worker.runner().clone();
        let report = worker.shutdown(LONG).await;
        assert!(report.is_clean(), "{report}");
        let stats = runner.stats();
        // Three jobs and three audits; one of three is for success only.
        assert_eq!((stats.deferred, stats.discarded, stats.pending), (9, 2, 0));
        assert_eq!((stats.completed, stats.failed, stats.panicked), (5, 1, 1));
    }

    /// On the blocking pool too.
    a_blocking_job_defers_as_well(database) {
        let jobs = database.jobs().await;
        let (seen, mut audits) = mpsc::unbounded_channel();
        let worker = jobs.worker().handle_blocking(move |_: Receipt| audit(&seen)).start().await.unwrap();
        let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
        assert_eq!(within("the audit", audits.recv()).await, Some((Some(Outcome::Finished), Some(1))));
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    /// An observer sees a job as it sees any task: its name, its end, its time.
    an_observer_sees_jobs_as_tasks(database) {
        #[derive(Clone, Default)]
        struct Ends(Arc<Mutex<Vec<String>>>);
        impl after::Observer for Ends {
            fn finished(&self, event: &after::TaskFinished<'_>) {
                self.0.lock().unwrap().push(event.task.name.to_string());
            }
        }
        let jobs = database.jobs().await;
        let ends = Ends::default();
        let worker = jobs
            .worker()
            .runner(after::Runner::builder().observer(ends.clone()).build())
            .handle(|_: Receipt| async {})
            .start()
            .await
            .unwrap();
        let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
        eventually("done", async || jobs.counts::<Receipt>().await.unwrap().done == 1).await;
        assert!(worker.shutdown(LONG).await.is_clean());
        assert_eq!(*ends.0.lock().unwrap(), ["receipt"]);
    }

    /// The enqueue is a task of the request: on its account, under its condition, and after it.
    a_job_deferred_is_enqueued_after_the_request(database) {
        let jobs = database.jobs().await;
        let runner = after::Runner::builder().build();
        let request = |order, result: Result<(), &'static str>| {
            let jobs = jobs.clone();
            runner.scope(async move {
                jobs.defer(Receipt { order });
                jobs.defer_as(after::task("only on success").on_success(), Receipt { order: 10 * order });
                assert_eq!(jobs.counts::<Receipt>().await.unwrap().pending, 0);
                result
            }).failed_if(Result::is_err)
        };
        assert!(request(1, Ok(())).await.is_ok());
        runner.drain().await;
        assert_eq!(jobs.counts::<Receipt>().await.unwrap().pending, 2);

        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs.worker().handle(move |receipt: Receipt| {
            sender.send(receipt.order).unwrap();
            async {}
        }).start().await.unwrap();
        let mut orders = vec![within("one", handled.recv()).await, within("two", handled.recv()).await];
        orders.sort();
        assert_eq!(orders, [Some(1), Some(10)]);
        eventually("done", async || jobs.counts::<Receipt>().await.unwrap().done == 2).await;
        assert!(request(2, Err("no such order")).await.is_err());
        runner.drain().await;
        assert_eq!(within("the one without a condition", handled.recv()).await, Some(2));
        assert_eq!(runner.stats().discarded, 1);
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    /// Heartbeats are an hour apart here, so that nothing but the gift itself can bring the job to the second worker; and
    /// it is no attempt.
    what_is_not_done_at_the_limit_is_named_and_given_back_at_once(database) {
        let jobs = database.jobs().await;
        let (sender, mut started) = mpsc::unbounded_channel();
        let stuck = {
            let sender = sender.clone();
            move |receipt: Receipt| {
                let attempt = after::context::get::<Running>().unwrap().attempt;
                sender.send((receipt.order, attempt)).unwrap();
                std::future::pending::<()>()
            }
        };
        let first = jobs.worker().heartbeat(NEVER, 3).poll(NEVER).handle(stuck).start().await.unwrap();
        let _ = jobs.push(Receipt { order: 7 }).await.unwrap();
        assert_eq!(within("the first start", started.recv()).await, Some((7, 1)));

        let other = database.jobs().await;
        let done = move |receipt: Receipt| {
            let attempt = after::context::get::<Running>().unwrap().attempt;
            sender.send((receipt.order, attempt)).unwrap();
            async {}
        };
        let second = other.worker().heartbeat(NEVER, 3).poll(NEVER).handle(done).start().await.unwrap();
        let report = first.shutdown(Duration::from_millis(50)).await;
        assert!(!report.is_clean());
        assert_eq!(report.given_back().len(), 1);
        assert_eq!(report.given_back()[0].name, "receipt");
        assert!(report.to_string().starts_with("1 job(s) given back: `receipt` "), "{report}");
        assert_eq!(within("the second start", started.recv()).await, Some((7, 1)));
        assert!(second.shutdown(LONG).await.is_clean());
        assert_eq!(jobs.counts::<Receipt>().await.unwrap().done, 1);
    }

    /// Nothing is fetched any more, and what runs ends; `stopping` tells it that it is time.
    a_stop_lets_running_jobs_end_and_fetches_no_more(database) {
        let jobs = database.jobs().await;
        let (sender, mut started) = mpsc::unbounded_channel();
        let ended = Arc::new(AtomicUsize::new(0));
        let handler = {
            let ended = ended.clone();
            move |receipt: Receipt| {
                sender.send(receipt.order).unwrap();
                let ended = ended.clone();
                async move {
                    after::stopping().await;
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let worker = jobs.worker().concurrency(2).handle(handler).start().await.unwrap();
        for order in 1..=3 {
            let _ = jobs.push(Receipt { order }).await.unwrap();
        }
        within("the first", started.recv()).await;
        within("the second", started.recv()).await;
        let report = within("the stop", worker.shutdown(NEVER)).await;
        assert!(report.is_clean(), "{report}");
        assert_eq!(ended.load(Ordering::Relaxed), 2);
        assert!(started.try_recv().is_err());
        let counts = jobs.counts::<Receipt>().await.unwrap();
        assert_eq!((counts.done, counts.pending, counts.running), (2, 1, 0));
    }

    /// What jobs have deferred is waited for too.
    a_stop_waits_for_what_jobs_deferred(database) {
        let jobs = database.jobs().await;
        let gate = Arc::new(Semaphore::new(0));
        let (sender, mut started) = mpsc::unbounded_channel();
        let worker = {
            let gate = gate.clone();
            jobs.worker().handle(move |_: Receipt| {
                let (gate, sender) = (gate.clone(), sender.clone());
                async move {
                    after::task("index").defer(async move {
                        sender.send(()).unwrap();
                        gate.acquire().await.unwrap().forget();
                    });
                }
            }).start().await.unwrap()
        };
        let _ = jobs.push(Receipt { order: 7 }).await.unwrap();
        within("the deferred task", started.recv()).await;
        let report = worker.shutdown(Duration::from_millis(50)).await;
        assert!(report.given_back().is_empty());
        assert_eq!(report.deferred().unfinished()[0].name, "index");
        gate.add_permits(1);
    }
}

/// There is no request to belong to.
#[tokio::test]
#[should_panic(expected = "outside")]
async fn defer_outside_a_scope_panics() {
    let database = common::sqlite().await;
    database.jobs().await.defer(Receipt { order: 1 });
}
