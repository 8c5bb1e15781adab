//! Nothing is hidden: apalis alone works on the same tables, in both directions.

mod common;

use std::time::Duration;

use apalis_core::{
    backend::{BackendConfig, TaskSink},
    error::BoxDynError,
    worker::{builder::WorkerBuilder, context::WorkerContext},
};
use common::{LONG, Receipt, eventually, within};
use tokio::sync::mpsc;

/// `backend` is apalis' own storage with the queue `receipt`.
macro_rules! both_ways {
    ($jobs:expr, $backend:expr) => {{
        let (jobs, backend) = ($jobs, $backend);
        // Ours to apalis.
        let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
        let (sender, mut handled) = mpsc::unbounded_channel();
        let raw = WorkerBuilder::new("apalis-alone")
            .backend(backend.clone())
            .build(move |receipt: Receipt, worker: WorkerContext| {
                sender.send(receipt.order).unwrap();
                async move {
                    worker.stop()?;
                    Ok::<_, BoxDynError>(())
                }
            });
        within("apalis' worker", raw.run()).await.unwrap();
        assert_eq!(handled.recv().await, Some(1));
        eventually("done", async || {
            jobs.counts::<Receipt>().await.unwrap().done == 1
        })
        .await;

        // apalis' to ours.
        let mut backend = backend;
        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs
            .worker()
            .poll(Duration::from_millis(20))
            .handle(move |receipt: Receipt| {
                sender.send(receipt.order).unwrap();
                async {}
            })
            .start()
            .await
            .unwrap();
        backend.push(Receipt { order: 2 }).await.unwrap();
        assert_eq!(within("the job", handled.recv()).await, Some(2));
        eventually("done", async || {
            jobs.counts::<Receipt>().await.unwrap().done == 2
        })
        .await;
        assert!(worker.shutdown(LONG).await.is_clean());
        let _ = backend.config();
    }};
}

#[tokio::test]
async fn apalis_alone_works_on_the_same_sqlite() {
    let database = common::sqlite().await;
    let jobs = database.jobs().await;
    let backend = apalis_sqlite::SqliteStorage::<Receipt>::new(jobs.sqlite().unwrap())
        .with_config(apalis_sqlite::Config::default().queue("receipt"));
    both_ways!(jobs, backend);
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn apalis_alone_works_on_the_same_postgres() {
    let database = common::postgres().await;
    let jobs = database.jobs().await;
    let backend = apalis_postgres::PostgresStorage::<Receipt>::new(jobs.postgres().unwrap())
        .with_config(apalis_postgres::Config::default().queue("receipt"));
    both_ways!(jobs, backend);
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn apalis_alone_works_on_the_same_redis() {
    let database = common::redis().await;
    let jobs = database.jobs().await;
    let backend = apalis_redis::RedisStorage::<Receipt>::new(jobs.redis().unwrap())
        .with_config(apalis_redis::Config::default().queue("receipt"));
    both_ways!(jobs, backend);
}
