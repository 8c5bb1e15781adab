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

/// A push is a script of our own: what it stores is what apalis' own stores, now and for later.
#[cfg(feature = "redis")]
#[tokio::test]
async fn a_push_on_redis_stores_what_apalis_own_stores() {
    use std::collections::{BTreeMap, HashMap};

    use after_apalis::TaskBuilder;
    use apalis_core::task::{metadata::MetadataStore, task_id::TaskId};

    let database = common::redis().await;
    let jobs = database.jobs().await;
    let mut connection = jobs.redis().unwrap();
    let config = apalis_redis::Config::default()
        .queue("receipt")
        .idempotency_ttl(Some(Duration::from_secs(10 * 365 * 86400)));
    // In a hundred years, and now.
    for later in [Some(4_900_000_000), None] {
        let (mut stored, mut times) = (Vec::new(), Vec::<[u64; 2]>::new());
        for ours in [true, false] {
            let key = format!("{ours} {later:?}");
            let id = TaskId::from_ulid(ulid::Ulid::generate());
            let metadata = HashMap::from([("trace".to_owned(), "7".to_owned())]);
            let mut task = TaskBuilder::new(Receipt { order: 7 })
                .task_id(id.clone())
                .max_attempts(5)
                .idempotency_key(key.as_str())
                .with_metadata(MetadataStore::from_map(metadata));
            if let Some(at) = later {
                task = task.run_at_timestamp(at);
            }
            let task = task.build();
            if ours {
                assert!(jobs.push(task).await.unwrap().is_new());
            } else {
                let task = task.map_args(|receipt| serde_json::to_vec(&receipt).unwrap());
                apalis_redis::queries::push_tasks(&mut connection, &config, &[task])
                    .await
                    .unwrap();
            }

            let id = id.to_string();
            let mut pipe = redis::pipe();
            pipe.hgetall(format!("{}:{id}", config.job_meta_hash()))
                .hget(config.job_data_hash(), &id)
                .zscore(config.scheduled_jobs_set(), &id)
                .get(format!("{}:{key}", config.idempotency_key_set()))
                .ttl(format!("{}:{key}", config.idempotency_key_set()));
            type Stored = (BTreeMap<String, String>, String, u64, String, u64);
            let (mut meta, data, at, owner, ttl): Stored =
                pipe.query_async(&mut connection).await.unwrap();
            assert_eq!(
                meta.insert("idempotency_key".into(), String::new()),
                Some(key)
            );
            assert_eq!(owner, id);
            stored.push((meta, data));
            times.push([at, ttl]);
        }
        assert_eq!(stored[0], stored[1]);
        // Whole seconds, of two clocks: not the same one, but not a default or none.
        for (ours, apalis) in times[0].into_iter().zip(times[1]) {
            assert!(ours.abs_diff(apalis) < 100, "{times:?}");
        }
    }
}
