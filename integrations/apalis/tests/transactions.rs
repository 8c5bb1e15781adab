//! In your transaction: commit means that it will run, rollback that it won't.

mod common;

use std::time::Duration;

use after_apalis::{Enqueued, TaskBuilder};
use common::{LONG, Receipt, within};
use tokio::sync::mpsc;

const NEVER: Duration = Duration::from_secs(3600);

every_transaction! {
    /// The poll is an hour away. The first job was rolled back, so the second is the first that runs.
    a_commit_starts_the_job_and_a_rollback_leaves_nothing(database, jobs, pool) {
        let _ = &database;
        sqlx::query("CREATE TABLE orders (number BIGINT)").execute(&pool).await.unwrap();
        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs
            .worker()
            .poll(NEVER)
            .handle(move |receipt: Receipt| {
                sender.send(receipt.order).unwrap();
                async {}
            })
            .start()
            .await
            .unwrap();

        let mut tx = pool.begin().await.unwrap();
        sqlx::query("INSERT INTO orders VALUES (1)").execute(&mut *tx).await.unwrap();
        assert!(jobs.enqueue(&mut *tx, Receipt { order: 1 }).await.unwrap().is_new());
        tx.rollback().await.unwrap();

        let mut tx = pool.begin().await.unwrap();
        sqlx::query("INSERT INTO orders VALUES (2)").execute(&mut *tx).await.unwrap();
        assert!(jobs.enqueue(&mut *tx, Receipt { order: 2 }).await.unwrap().is_new());
        assert!(handled.try_recv().is_err());
        tx.commit().await.unwrap();

        assert_eq!(within("the job", handled.recv()).await, Some(2));
        assert!(worker.shutdown(LONG).await.is_clean());
        let counts = jobs.counts::<Receipt>().await.unwrap();
        assert_eq!((counts.done, counts.pending), (1, 0));
        let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&pool).await.unwrap();
        assert_eq!(orders, 1);
    }

    /// apalis' own insert aborts the transaction on Postgres.
    a_key_that_exists_leaves_the_transaction_as_it_was(database, jobs, pool) {
        let _ = &database;
        sqlx::query("CREATE TABLE orders (number BIGINT)").execute(&pool).await.unwrap();
        let once = || TaskBuilder::new(Receipt { order: 7 }).idempotency_key("order-7").build();
        for number in 1..=2i64 {
            let mut tx = pool.begin().await.unwrap();
            let enqueued = jobs.enqueue(&mut *tx, once()).await.unwrap();
            assert_eq!(matches!(enqueued, Enqueued::AlreadyThere), number == 2);
            // The transaction goes on.
            sqlx::query("INSERT INTO orders VALUES ($1)").bind(number).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
        }
        let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&pool).await.unwrap();
        assert_eq!(orders, 2);
        assert_eq!(jobs.counts::<Receipt>().await.unwrap().pending, 1);
    }

    /// What has not been committed holds no key.
    a_key_that_was_rolled_back_is_free(database, jobs, pool) {
        let _ = &database;
        let once = || TaskBuilder::new(Receipt { order: 7 }).idempotency_key("order-7").build();
        let mut tx = pool.begin().await.unwrap();
        assert!(jobs.enqueue(&mut *tx, once()).await.unwrap().is_new());
        tx.rollback().await.unwrap();
        assert!(jobs.push(once()).await.unwrap().is_new());
    }
}

/// With no pool of the other store at hand this is what a mistake in a set-up would look like.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_transaction_of_another_database_is_an_error() {
    let (sqlite, postgres) = (common::sqlite().await, common::postgres().await);
    let (sqlite, postgres) = (sqlite.jobs().await, postgres.jobs().await);
    let mut tx = postgres.postgres().unwrap().begin().await.unwrap();
    let error = sqlite
        .enqueue(&mut *tx, Receipt { order: 1 })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a job `receipt` of SQLite can't be enqueued in a transaction of Postgres"
    );
}
