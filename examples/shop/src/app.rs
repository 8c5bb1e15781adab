//! What the handlers share.

use std::{collections::HashSet, time::Duration};

use after::Runner;
use after_apalis::Jobs;
use lettre::{AsyncSmtpTransport, Tokio1Executor};
use moka::sync::Cache;
use reqwest::Url;
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::{
    config::Config, database::Database, feed::Feed, jobs, neighbours::Neighbours, patterns::Profile,
};

/// How long the shop waits for a neighbour.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct App {
    pub(crate) database: Database,
    /// The same file, for transactions with a job in them.
    pub(crate) pool: SqlitePool,
    pub(crate) jobs: Jobs,
    /// The jobs that an earlier process had left.
    pub(crate) left: HashSet<String>,
    pub(crate) mailer: AsyncSmtpTransport<Tokio1Executor>,
    pub(crate) http: reqwest::Client,
    pub(crate) cdn: Url,
    pub(crate) analytics: Url,
    pub(crate) webhook: Url,
    pub(crate) webhook_secret: String,
    /// What profiles look like, by their users' ids.
    pub(crate) profiles: Cache<i64, Profile>,
    pub(crate) runner: Runner,
    pub(crate) feed: Feed,
    /// Of the database, if it was given no place, and of what is exported.
    pub(crate) folder: TempDir,
}

impl App {
    pub(crate) async fn open(
        config: &Config,
        neighbours: &Neighbours,
        runner: Runner,
        feed: Feed,
    ) -> Result<App, after::BoxError> {
        let folder = tempfile::Builder::new().prefix("after-shop-").tempdir()?;
        let path = match &config.database {
            Some(path) => path.clone(),
            None => folder.path().join("shop.db"),
        };
        let database =
            Database::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await?;
        let jobs = Jobs::with_sqlite(pool.clone()).await?;
        let left = jobs::left(&pool).await?;

        let (host, port) = match &config.smtp {
            Some(url) => (
                url.host_str().unwrap_or_default().into(),
                url.port().unwrap_or(25),
            ),
            None => (neighbours.smtp.ip().to_string(), neighbours.smtp.port()),
        };
        // "Dangerous" is that it is not encrypted: fine on this machine.
        let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port)
            .timeout(Some(PATIENCE))
            .build();
        let neighbour = |path| Url::parse(&format!("http://{}{path}", neighbours.http));
        let url = |given: &Option<Url>, path| given.clone().map_or_else(|| neighbour(path), Ok);
        Ok(App {
            database,
            pool,
            jobs,
            left,
            mailer,
            // Straight to the neighbours, whatever proxy the environment names.
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .no_proxy()
                .build()?,
            cdn: url(&config.cdn, "/cdn")?,
            analytics: url(&config.analytics, "/analytics")?,
            webhook: url(&config.webhook, "/webhook")?,
            webhook_secret: config.webhook_secret.clone(),
            profiles: Cache::new(10_000),
            runner,
            feed,
            folder,
        })
    }
}
