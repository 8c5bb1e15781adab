//! A database of its own for each test, on each store. Without the services the tests fail: they never pass unseen.
#![allow(dead_code, unreachable_pub, unused_imports)]

use std::{
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use after_apalis::{Job, Jobs};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

pub struct Database {
    pub url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Database {
    pub async fn jobs(&self) -> Jobs {
        Jobs::connect(&self.url).await.unwrap()
    }
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set. Start the services with `eval \"$(integrations/apalis/services.sh start)\"`, or run \
             all of this with `integrations/apalis/test.sh`"
        )
    })
}

pub async fn sqlite() -> Database {
    let folder = tempfile::tempdir().unwrap();
    Database {
        url: format!("sqlite:{}", folder.path().join("jobs.db").display()),
        _folder: Some(folder),
    }
}

#[cfg(feature = "postgres")]
pub async fn postgres() -> Database {
    use sqlx::{Connection, Executor};
    let server = service("AFTER_POSTGRES_URL");
    let name = format!(
        "test_{}_{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
    connection
        .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    let (host, _) = server.rsplit_once('/').unwrap();
    Database {
        url: format!("{host}/{name}"),
        _folder: None,
    }
}

#[cfg(feature = "redis")]
pub async fn redis() -> Database {
    let server = service("AFTER_REDIS_URL");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 256;
    let url = format!("{}/{number}", server.trim_end_matches('/'));
    let client = ::redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    ::redis::cmd("FLUSHDB")
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    Database { url, _folder: None }
}

/// One test on each store: `every_store! { name(database) { .. } }`.
#[macro_export]
macro_rules! every_store {
    ($($(#[doc = $doc:literal])* $name:ident($database:ident) $body:block)+) => {
        mod on_sqlite {
            #[allow(unused_imports)]
            use super::*;
            $($(#[doc = $doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                let $database = common::sqlite().await;
                super::$name($database).await
            })+
        }
        #[cfg(feature = "postgres")]
        mod on_postgres {
            #[allow(unused_imports)]
            use super::*;
            $($(#[doc = $doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                let $database = common::postgres().await;
                super::$name($database).await
            })+
        }
        #[cfg(feature = "redis")]
        mod on_redis {
            #[allow(unused_imports)]
            use super::*;
            $($(#[doc = $doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                let $database = common::redis().await;
                super::$name($database).await
            })+
        }
        $(async fn $name($database: common::Database) $body)+
    };
}

/// As `every_store!`, where there are transactions. `$jobs` is connected, and `$pool` is its pool.
#[macro_export]
macro_rules! every_transaction {
    ($($(#[doc = $doc:literal])* $name:ident($database:ident, $jobs:ident, $pool:ident) $body:block)+) => {
        mod in_sqlite {
            #[allow(unused_imports)]
            use super::*;
            $($(#[doc = $doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                let $database = common::sqlite().await;
                let $jobs = $database.jobs().await;
                let $pool = $jobs.sqlite().unwrap().clone();
                $body
            })+
        }
        #[cfg(feature = "postgres")]
        mod in_postgres {
            #[allow(unused_imports)]
            use super::*;
            $($(#[doc = $doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                let $database = common::postgres().await;
                let $jobs = $database.jobs().await;
                let $pool = $jobs.postgres().unwrap().clone();
                $body
            })+
        }
    };
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub order: i64,
}

impl Job for Receipt {
    const NAME: &'static str = "receipt";
}

/// Much longer than anything takes: what comes never is a failure, and not a hang.
pub const LONG: Duration = Duration::from_secs(60);

pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LONG, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
}

/// Asks again until it is so: for what only a store knows.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !so().await {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What is reported on this thread for as long as this lives: for tests on a runtime of one thread.
pub struct Reports {
    written: Written,
    _here: tracing::subscriber::DefaultGuard,
}

impl Reports {
    pub fn here() -> Reports {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        Reports {
            written,
            _here: tracing::subscriber::set_default(subscriber.finish()),
        }
    }

    pub fn have(&self, what: &str) -> bool {
        String::from_utf8_lossy(&self.written.0.lock().unwrap()).contains(what)
    }

    pub async fn until(&self, what: &str) {
        eventually(what, async || self.have(what)).await;
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
