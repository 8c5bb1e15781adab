//! What is enqueued runs: the same code on all stores.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use after_apalis::{Backoff, Enqueued, Job, Running, TaskBuilder};
use common::{LONG, Receipt, eventually, within};
use tokio::sync::mpsc;

const NEVER: Duration = Duration::from_secs(3600);

every_store! {
    /// The poll is an hour away: it is the notification that wakes the worker.
    a_job_that_is_pushed_is_handled_at_once(database) {
        let jobs = database.jobs().await;
        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs
            .worker()
            .poll(NEVER)
            .handle(move |receipt: Receipt| {
                let sender = sender.clone();
                async move { sender.send(receipt.order).unwrap() }
            })
            .start()
            .await
            .unwrap();
        for order in 1..=3 {
            assert!(jobs.push(Receipt { order }).await.unwrap().is_new());
            assert_eq!(within("the job", handled.recv()).await, Some(order));
        }
        let report = worker.shutdown(LONG).await;
        assert!(report.is_clean(), "{report}");
        let counts = jobs.counts::<Receipt>().await.unwrap();
        assert_eq!((counts.pending, counts.running, counts.done, counts.dead), (0, 0, 3, 0));
    }

    /// 1,000 jobs, two workers in two connections: each runs once.
    each_job_goes_to_one_worker(database) {
        let jobs = database.jobs().await;
        let other = database.jobs().await;
        for order in 0..1000 {
            let _ = jobs.push(Receipt { order }).await.unwrap();
        }
        let runs = Arc::new((0..1000).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let handler = |runs: Arc<Vec<AtomicUsize>>| move |receipt: Receipt| {
            let runs = runs.clone();
            async move { runs[receipt.order as usize].fetch_add(1, Ordering::Relaxed); }
        };
        let first = jobs.worker().handle(handler(runs.clone())).start().await.unwrap();
        let second = other.worker().handle(handler(runs.clone())).start().await.unwrap();
        eventually("all done", async || jobs.counts::<Receipt>().await.unwrap().done == 1000).await;
        assert!(first.shutdown(LONG).await.is_clean());
        assert!(second.shutdown(LONG).await.is_clean());
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
    }

    a_key_that_exists_is_an_answer(database) {
        let jobs = database.jobs().await;
        let once = |order| TaskBuilder::new(Receipt { order }).idempotency_key("order-7").build();
        assert!(matches!(jobs.push(once(7)).await.unwrap(), Enqueued::New(_)));
        assert!(matches!(jobs.push(once(8)).await.unwrap(), Enqueued::AlreadyThere));
        assert!(jobs.push(Receipt { order: 9 }).await.unwrap().is_new());
        assert_eq!(jobs.counts::<Receipt>().await.unwrap().pending, 2);
    }

    /// Attempts are counted, spread by the backoff, and end in a letter that says why; a retry gives them all again.
    what_fails_for_good_is_a_dead_letter_with_its_error(database) {
        let jobs = database.jobs().await;
        let (sender, mut attempts) = mpsc::unbounded_channel();
        let worker = jobs
            .worker()
            .backoff(Backoff::new(Duration::ZERO, Duration::ZERO))
            .poll(Duration::from_millis(10))
            .handle(move |_: Receipt| {
                let running = after::context::get::<Running>().unwrap();
                sender.send((running.attempt, running.max_attempts)).unwrap();
                async move { Err::<(), _>(format!("the printer is on fire, time {}", running.attempt)) }
            })
            .start()
            .await
            .unwrap();
        let task = TaskBuilder::new(Receipt { order: 7 }).max_attempts(3).build();
        let _ = jobs.push(task).await.unwrap();
        for attempt in 1..=3 {
            assert_eq!(within("an attempt", attempts.recv()).await, Some((attempt, 3)));
        }
        eventually("it is dead", async || jobs.counts::<Receipt>().await.unwrap().dead == 1).await;
        let dead = jobs.dead::<Receipt>(10).await.unwrap();
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].attempts, 3);
        assert_eq!(dead[0].error, "the printer is on fire, time 3");

        assert!(!jobs.retry::<Receipt>("01ARZ3NDEKTSV4RRFFQ69G5FAV").await.unwrap());
        assert!(jobs.retry::<Receipt>(&dead[0].id).await.unwrap());
        assert_eq!(within("an attempt", attempts.recv()).await, Some((1, 3)));
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    /// With a backoff of an hour a failed job is not there to be fetched.
    a_failed_job_waits_for_its_backoff(database) {
        let jobs = database.jobs().await;
        let (sender, mut attempts) = mpsc::unbounded_channel();
        let handler = move |receipt: Receipt| {
            let sender = sender.clone();
            async move {
                sender.send(receipt.order).unwrap();
                if receipt.order == 1 { Err("not now") } else { Ok(()) }
            }
        };
        let worker = jobs
            .worker()
            .backoff(Backoff::new(NEVER, NEVER))
            .poll(Duration::from_millis(1))
            .handle(handler)
            .start()
            .await
            .unwrap();
        let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
        assert_eq!(within("an attempt", attempts.recv()).await, Some(1));
        // Had the first come again, it had come before all of these.
        for order in 2..50 {
            let _ = jobs.push(Receipt { order }).await.unwrap();
            assert_eq!(within("the next", attempts.recv()).await, Some(order));
        }
        eventually("the others are done", async || jobs.counts::<Receipt>().await.unwrap().done == 48).await;
        assert_eq!(jobs.counts::<Receipt>().await.unwrap().pending, 1);
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    /// apalis' own errors say more than "again".
    an_abort_ends_a_job_and_a_panic_does_not_end_the_worker(database) {
        let jobs = database.jobs().await;
        let worker = jobs
            .worker()
            .handle(|receipt: Receipt| async move {
                match receipt.order {
                    1 => Err(apalis_core::error::AbortError::new("no such order")),
                    2 => panic!("out of paper"),
                    _ => Ok(()),
                }
            })
            .start()
            .await
            .unwrap();
        for order in 1..=3 {
            let task = TaskBuilder::new(Receipt { order }).max_attempts(if order == 2 { 1 } else { 25 }).build();
            let _ = jobs.push(task).await.unwrap();
        }
        eventually("one is done", async || jobs.counts::<Receipt>().await.unwrap().done == 1).await;
        eventually("two are dead", async || jobs.counts::<Receipt>().await.unwrap().dead == 2).await;
        let mut errors: Vec<_> = jobs.dead::<Receipt>(10).await.unwrap().into_iter().map(|dead| dead.error).collect();
        errors.sort();
        assert!(errors[0].contains("no such order"), "{errors:?}");
        assert_eq!(errors[1], "panicked: out of paper");
        let stats = worker.runner().stats();
        assert_eq!((stats.completed, stats.failed, stats.panicked), (1, 1, 1));
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    /// Ten at once, and the eleventh waits in the store.
    no_more_are_fetched_than_may_run(database) {
        let jobs = database.jobs().await;
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (sender, mut started) = mpsc::unbounded_channel();
        let handler = {
            let gate = gate.clone();
            move |receipt: Receipt| {
                let (gate, sender) = (gate.clone(), sender.clone());
                async move {
                    sender.send(receipt.order).unwrap();
                    gate.acquire().await.unwrap().forget();
                }
            }
        };
        let worker = jobs.worker().concurrency(2).handle(handler).start().await.unwrap();
        for order in 0..5 {
            let _ = jobs.push(Receipt { order }).await.unwrap();
        }
        within("the first", started.recv()).await;
        within("the second", started.recv()).await;
        let counts = jobs.counts::<Receipt>().await.unwrap();
        assert_eq!((counts.running, counts.pending), (2, 3));
        gate.add_permits(1);
        within("the third", started.recv()).await;
        assert!(started.try_recv().is_err());
        gate.add_permits(10);
        eventually("all done", async || jobs.counts::<Receipt>().await.unwrap().done == 5).await;
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    what_is_done_is_removed_with_its_key(database) {
        let jobs = database.jobs().await;
        let once = || TaskBuilder::new(Receipt { order: 7 }).idempotency_key("order-7").build();
        let worker = jobs.worker().handle(|_: Receipt| async {}).start().await.unwrap();
        assert!(jobs.push(once()).await.unwrap().is_new());
        eventually("done", async || jobs.counts::<Receipt>().await.unwrap().done == 1).await;
        assert!(!jobs.push(once()).await.unwrap().is_new());
        assert_eq!(jobs.remove_done::<Receipt>(Duration::from_secs(1000)).await.unwrap(), 0);
        eventually("removed", async || jobs.remove_done::<Receipt>(Duration::ZERO).await.unwrap() == 1).await;
        assert!(jobs.push(once()).await.unwrap().is_new());
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    /// Its extractors, on all stores.
    an_apalis_handler_with_extractors_is_one_of_ours(database) {
        use apalis_core::task::{attempt::Attempt, task_fn::task_fn, task_id::TaskId};
        let jobs = database.jobs().await;
        let (sender, mut seen) = mpsc::unbounded_channel();
        let service = task_fn(move |receipt: Receipt, attempt: Attempt, id: TaskId| {
            sender.send((receipt.order, attempt.current(), id)).unwrap();
            async { Ok::<_, std::io::Error>("sent") }
        });
        let worker = jobs.worker().service::<Receipt, _>(service).start().await.unwrap();
        let Enqueued::New(id) = jobs.push(Receipt { order: 7 }).await.unwrap() else { panic!("new") };
        assert_eq!(within("the job", seen.recv()).await, Some((7, 1, id)));
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    two_names_are_two_queues(database) {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Resize { image: String }
        impl Job for Resize { const NAME: &'static str = "resize"; }

        let jobs = database.jobs().await;
        let (sender, mut handled) = mpsc::unbounded_channel();
        let other = sender.clone();
        let worker = jobs
            .worker()
            .handle(move |receipt: Receipt| {
                sender.send(receipt.order.to_string()).unwrap();
                async {}
            })
            .handle_blocking(move |resize: Resize| other.send(resize.image).unwrap())
            .start()
            .await
            .unwrap();
        let _ = jobs.push(Resize { image: "cat.jpg".into() }).await.unwrap();
        assert_eq!(within("one", handled.recv()).await.as_deref(), Some("cat.jpg"));
        let _ = jobs.push(Receipt { order: 7 }).await.unwrap();
        assert_eq!(within("other", handled.recv()).await.as_deref(), Some("7"));
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    no_two_workers_have_one_name(database) {
        let jobs = database.jobs().await;
        let first = jobs.worker().name("mailer").handle(|_: Receipt| async {}).start().await.unwrap();
        let second = jobs.worker().name("mailer").handle(|_: Receipt| async {}).start().await.unwrap();
        let third = jobs.worker().start().await.unwrap();
        assert_ne!(first.name(), second.name());
        assert!(first.name().starts_with("mailer-"));
        assert!(third.name().contains(&std::process::id().to_string()));
        for worker in [first, second, third] {
            assert!(worker.shutdown(LONG).await.is_clean());
        }
    }
}
