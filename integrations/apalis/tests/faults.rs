//! Bad input, and stores that are away: a clear error, the job kept, nothing lost.

mod common;

use std::{sync::Arc, time::Duration};

use after_apalis::{Backoff, Job, Jobs, TaskBuilder};
use common::{LONG, Receipt, Reports, eventually, within};
use serde::{Deserialize, Serialize};
use sqlx::{Executor as _, sqlite::SqlitePoolOptions};
use tokio::sync::{Semaphore, mpsc};

/// The same job in an older version.
#[derive(Serialize, Deserialize)]
struct OldReceipt {
    number: i64,
}

impl Job for OldReceipt {
    const NAME: &'static str = "receipt";
}

/// A name that nobody handles at first.
#[derive(Serialize, Deserialize)]
struct Recipt {
    order: i64,
}

impl Job for Recipt {
    const NAME: &'static str = "recipt";
}

/// A handler that says that it has started, and then waits to be let go.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    started: mpsc::UnboundedSender<i64>,
}

impl Gate {
    fn new() -> (Gate, mpsc::UnboundedReceiver<i64>) {
        let (started, starts) = mpsc::unbounded_channel();
        let open = Arc::new(Semaphore::new(0));
        (Gate { open, started }, starts)
    }

    async fn handle(self, receipt: Receipt) {
        self.started.send(receipt.order).unwrap();
        self.open.acquire().await.unwrap().forget();
    }
}

every_store! {
    a_name_that_nobody_handles_is_told_and_its_job_kept(database) {
        let jobs = database.jobs().await;
        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs.worker().handle(|_: Receipt| async {}).start().await.unwrap();
        let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
        let _ = jobs.push(Recipt { order: 7 }).await.unwrap();
        let waiting = vec![("recipt".to_owned(), 1)];
        eventually("it is told", async || {
            jobs.without_handler(Duration::from_secs(1)).await.unwrap() == waiting
        }).await;
        assert!(worker.shutdown(LONG).await.is_clean());

        let worker = jobs.worker().handle(move |recipt: Recipt| {
            sender.send(recipt.order).unwrap();
            async {}
        }).start().await.unwrap();
        assert_eq!(within("the job", handled.recv()).await, Some(7));
        assert!(worker.shutdown(LONG).await.is_clean());
        assert_eq!(jobs.without_handler(Duration::ZERO).await.unwrap(), []);
    }

    /// It is tried as often as any other: a worker of another version may take it meanwhile. In the end the letter holds
    /// the payload, and a worker that knows it runs it.
    a_payload_of_an_older_version_is_kept(database) {
        let jobs = database.jobs().await;
        let worker = jobs
            .worker()
            .backoff(Backoff::new(Duration::ZERO, Duration::ZERO))
            .poll(Duration::from_millis(10))
            // As many as it would lose.
            .concurrency(2)
            .handle(|_: Receipt| async {})
            .start()
            .await
            .unwrap();
        let task = TaskBuilder::new(OldReceipt { number: 7 }).max_attempts(2).build();
        let _ = jobs.push(task).await.unwrap();
        // The worker and its slots go on.
        for order in 0..30 {
            let _ = jobs.push(Receipt { order }).await.unwrap();
        }
        eventually("it is dead", async || jobs.counts::<Receipt>().await.unwrap().dead == 1).await;
        eventually("others are done", async || jobs.counts::<Receipt>().await.unwrap().done == 30).await;
        assert!(worker.shutdown(LONG).await.is_clean());
        let dead = jobs.dead::<Receipt>(1).await.unwrap().remove(0);
        assert_eq!(dead.attempts, 2);
        assert!(
            dead.error.starts_with("the payload can't be read as this version's `receipt`: missing field `order`"),
            "{}",
            dead.error
        );

        assert!(jobs.retry::<Receipt>(&dead.id).await.unwrap());
        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs.worker().handle(move |old: OldReceipt| {
            sender.send(old.number).unwrap();
            async {}
        }).start().await.unwrap();
        assert_eq!(within("the job", handled.recv()).await, Some(7));
        assert!(worker.shutdown(LONG).await.is_clean());
    }
}

/// It says whom, without the password, and why.
#[tokio::test]
async fn a_store_that_is_not_there_is_a_clear_error() {
    let error = Jobs::connect("mysql://root:secret@localhost/shop")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no store for mysql://root@localhost/shop: it must begin with"),
        "{error}"
    );
    let error = Jobs::connect("sqlite:/nowhere/at/all/jobs.db")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("can't open sqlite:/nowhere/at/all/jobs.db: "),
        "{error}"
    );
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for (feature, url, told) in [
        (
            cfg!(feature = "postgres"),
            format!("postgres://shop:secret@127.0.0.1:{port}/shop"),
            format!("can't connect to postgres://shop@127.0.0.1:{port}/shop: "),
        ),
        (
            cfg!(feature = "redis"),
            format!("redis://:secret@127.0.0.1:{port}/"),
            format!("can't connect to redis://@127.0.0.1:{port}/: "),
        ),
    ] {
        if feature {
            let error = Jobs::connect(&url).await.unwrap_err().to_string();
            assert!(error.starts_with(&told), "{error}");
            assert!(error.contains("refused"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

/// The transaction's connection is cut. Neither the order nor the job is there, and the next transaction works.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_database_that_vanishes_in_a_transaction_leaves_neither_order_nor_job() {
    let jobs = common::postgres().await.jobs().await;
    let pool = jobs.postgres().unwrap().clone();
    sqlx::query("CREATE TABLE orders (number BIGINT)")
        .execute(&pool)
        .await
        .unwrap();
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO orders VALUES (1)")
        .execute(&mut *tx)
        .await
        .unwrap();
    let connection: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(connection)
        .execute(&pool)
        .await
        .unwrap();
    let error = jobs
        .enqueue(&mut *tx, Receipt { order: 1 })
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("Postgres: a job `receipt` can't be enqueued: "),
        "{error}"
    );
    drop(tx);

    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO orders VALUES (2)")
        .execute(&mut *tx)
        .await
        .unwrap();
    let _ = jobs.enqueue(&mut *tx, Receipt { order: 2 }).await.unwrap();
    tx.commit().await.unwrap();
    let orders: Vec<i64> = sqlx::query_scalar("SELECT number FROM orders")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(orders, [2]);
    assert_eq!(jobs.counts::<Receipt>().await.unwrap().pending, 1);
}

/// Ends all connections to a database, and says how many there were.
#[cfg(feature = "postgres")]
async fn cut_all(server: &mut sqlx::PgConnection, name: &str) -> i64 {
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
    let cut = sqlx::query_scalar(cut).bind(name).fetch_one(server).await;
    cut.unwrap()
}

/// All connections are cut while a job runs, and none is let in. Once it is back, the job's end is recorded, and the
/// next one runs.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_worker_waits_for_postgres_to_come_back() {
    use sqlx::Connection as _;
    let reports = Reports::here();
    let database = common::postgres().await;
    let jobs = database.jobs().await;
    let (gate, mut starts) = Gate::new();
    let open = gate.open.clone();
    let worker = jobs
        .worker()
        .heartbeat(Duration::from_secs(1), 60)
        .handle(move |receipt| gate.clone().handle(receipt))
        .start()
        .await
        .unwrap();
    let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
    assert_eq!(within("the job", starts.recv()).await, Some(1));

    let mut server = sqlx::PgConnection::connect(&std::env::var("AFTER_POSTGRES_URL").unwrap())
        .await
        .unwrap();
    let (_, name) = database.url.rsplit_once('/').unwrap();
    server
        .execute(sqlx::AssertSqlSafe(format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false"
        )))
        .await
        .unwrap();
    assert!(cut_all(&mut server, name).await > 0);
    assert!(jobs.push(Receipt { order: 2 }).await.is_err());
    open.add_permits(10);
    // It ends meanwhile, and can't say so.
    for report in [
        "results of `receipt`: Postgres: ",
        "heartbeats: Postgres: ",
        "worker of `receipt`: Postgres: ",
    ] {
        eventually(report, async || {
            // A connection that was being made when the others were cut is not among them.
            cut_all(&mut server, name).await;
            reports.have(report)
        })
        .await;
    }

    server
        .execute(sqlx::AssertSqlSafe(format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS true"
        )))
        .await
        .unwrap();
    eventually("its end is recorded", async || {
        jobs.counts::<Receipt>()
            .await
            .is_ok_and(|counts| counts.done == 1)
    })
    .await;
    let _ = jobs.push(Receipt { order: 3 }).await.unwrap();
    assert_eq!(within("the next", starts.recv()).await, Some(3));
    let report = worker.shutdown(LONG).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(jobs.counts::<Receipt>().await.unwrap().done, 2);
}

/// A server of its own, which is killed while a job runs, and started again on its file.
#[cfg(feature = "redis")]
#[tokio::test]
async fn a_worker_waits_for_redis_to_come_back() {
    let reports = Reports::here();
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let start = || {
        let mut server = std::process::Command::new("redis-server");
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        server.args(["--appendonly", "yes", "--save", "", "--dir"]);
        server
            .arg(folder.path())
            .stdout(std::process::Stdio::null());
        server
            .spawn()
            .expect("redis-server: see integrations/apalis/services.sh")
    };
    struct Server(std::process::Child);
    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut server = Server(start());
    let url = format!("redis://127.0.0.1:{port}/");
    let mut connected = None;
    eventually("redis answers", async || {
        connected = Jobs::connect(&url).await.ok();
        connected.is_some()
    })
    .await;
    let jobs = connected.unwrap();

    let (gate, mut starts) = Gate::new();
    let open = gate.open.clone();
    let worker = jobs
        .worker()
        .heartbeat(Duration::from_secs(1), 60)
        .handle(move |receipt| gate.clone().handle(receipt))
        .start()
        .await
        .unwrap();
    let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
    assert_eq!(within("the job", starts.recv()).await, Some(1));

    server.0.kill().unwrap();
    server.0.wait().unwrap();
    let error = jobs.push(Receipt { order: 2 }).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("Redis: a job can't be enqueued: "),
        "{error}"
    );
    open.add_permits(10);
    // It ends meanwhile, and can't say so.
    reports.until("results of `receipt`: Redis: ").await;
    reports.until("worker of `receipt`: Redis: ").await;

    server.0 = start();
    eventually("its end is recorded", async || {
        jobs.counts::<Receipt>()
            .await
            .is_ok_and(|counts| counts.done == 1)
    })
    .await;
    eventually("one is pushed", async || {
        jobs.push(Receipt { order: 3 }).await.is_ok()
    })
    .await;
    assert_eq!(within("the next", starts.recv()).await, Some(3));
    let report = worker.shutdown(LONG).await;
    assert!(report.is_clean(), "{report}");
}

/// Another process holds the file for longer than anybody waits.
#[tokio::test]
async fn a_worker_waits_for_a_locked_sqlite() {
    let reports = Reports::here();
    let database = common::sqlite().await;
    let jobs = database.jobs().await;
    let (gate, mut starts) = Gate::new();
    let open = gate.open.clone();
    let options = (*jobs.sqlite().unwrap().connect_options())
        .clone()
        .busy_timeout(Duration::from_millis(20));
    let impatient = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    let impatient = Jobs::with_sqlite(impatient).await.unwrap();
    let worker = impatient
        .worker()
        .concurrency(1)
        .handle(move |receipt| gate.clone().handle(receipt))
        .start()
        .await
        .unwrap();
    let _ = jobs.push(Receipt { order: 1 }).await.unwrap();
    assert_eq!(within("the job", starts.recv()).await, Some(1));
    // It has no slot yet.
    let _ = jobs.push(Receipt { order: 2 }).await.unwrap();

    let other = jobs.sqlite().unwrap();
    let holder = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = impatient.push(Receipt { order: 3 }).await.unwrap_err();
    assert!(error.to_string().contains("locked"), "{error}");
    open.add_permits(10);
    reports.until("results of `receipt`: SQLite: ").await;
    reports.until("worker of `receipt`: SQLite: ").await;
    let counts = jobs.counts::<Receipt>().await.unwrap();
    assert_eq!((counts.running, counts.pending), (1, 1));

    holder.rollback().await.unwrap();
    assert_eq!(within("the next", starts.recv()).await, Some(2));
    eventually("their ends are recorded", async || {
        jobs.counts::<Receipt>().await.unwrap().done == 2
    })
    .await;
    assert!(worker.shutdown(LONG).await.is_clean());
}

/// `max_page_count` is what a full disk looks like to SQLite. An order that can't have its job is not there; a job that
/// ends when there is no room for its error is kept until there is.
#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let reports = Reports::here();
    let database = common::sqlite().await;
    drop(database.jobs().await);
    // One connection: the limit is the connection's.
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect(&database.url)
        .await
        .unwrap();
    let jobs = Jobs::with_sqlite(pool.clone()).await.unwrap();
    pool.execute("CREATE TABLE orders (number BIGINT, text TEXT)")
        .await
        .unwrap();
    let full = async || {
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
            .fetch_one(&pool)
            .await
            .unwrap();
        pool.execute(sqlx::AssertSqlSafe(format!(
            "PRAGMA max_page_count = {pages}"
        )))
        .await
        .unwrap();
    };

    full().await;
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO orders VALUES (1, 'tea')")
        .execute(&mut *tx)
        .await
        .unwrap();
    #[derive(Serialize, Deserialize)]
    struct Large(String);
    impl Job for Large {
        const NAME: &'static str = "large";
    }
    let error = jobs
        .enqueue(&mut *tx, Large("x".repeat(100_000)))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("SQLite: a job `large` can't be enqueued: "),
        "{error}"
    );
    assert!(error.to_string().contains("full"), "{error}");
    drop(tx);
    let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(orders, 0);

    pool.execute("PRAGMA max_page_count = 1000000")
        .await
        .unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut starts) = mpsc::unbounded_channel();
    let handler = {
        let gate = gate.clone();
        move |receipt: Receipt| {
            let (gate, sender) = (gate.clone(), sender.clone());
            async move {
                sender.send(receipt.order).unwrap();
                gate.acquire().await.unwrap().forget();
                Err::<(), _>("x".repeat(100_000))
            }
        }
    };
    let worker = jobs.worker().handle(handler).start().await.unwrap();
    let task = TaskBuilder::new(Receipt { order: 2 })
        .max_attempts(1)
        .build();
    let _ = jobs.push(task).await.unwrap();
    assert_eq!(within("the job", starts.recv()).await, Some(2));
    full().await;
    gate.add_permits(1);
    reports.until("results of `receipt`: SQLite: ").await;
    assert_eq!(jobs.counts::<Receipt>().await.unwrap().running, 1);

    pool.execute("PRAGMA max_page_count = 1000000")
        .await
        .unwrap();
    eventually("its end is recorded", async || {
        jobs.counts::<Receipt>().await.unwrap().dead == 1
    })
    .await;
    assert_eq!(
        jobs.dead::<Receipt>(1).await.unwrap()[0].error.len(),
        100_000
    );
    assert!(worker.shutdown(LONG).await.is_clean());
}
