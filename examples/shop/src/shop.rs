//! The running shop: started, and stopped without losing anything.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use after::{BoxError, Overflow, Runner, ShutdownReport};
use after_apalis::Worker;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    app::App,
    config::Config,
    feed::{Feed, Phase},
    jobs,
    neighbours::Neighbours,
    service,
    timeline::Timeline,
};

/// A shop that serves.
#[derive(Debug)]
pub struct Shop {
    /// Where.
    pub address: SocketAddr,
    /// With whom it deals, unless its [`Config`] names others.
    pub neighbours: Neighbours,
    /// On which everything is deferred.
    pub runner: Runner,
    /// Of its temporary files, and of its database unless that has a place. Goes with the shop.
    pub folder: PathBuf,
    feed: Feed,
    requests: TaskTracker,
    worker: Worker,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Shop {
    /// Starts the neighbours and the shop.
    pub async fn start(config: &Config, feed: Feed) -> Result<Shop, BoxError> {
        let neighbours = Neighbours::start(&config.webhook_secret, config.neighbour_delay).await?;
        // With a Runner of its own rather than the global one, there may be several shops in a process, as in the tests.
        let runner = Runner::builder()
            .task_timeout(Duration::from_secs(30))
            .scope_timeout(Duration::from_secs(120))
            // A burst of requests makes answers wait, rather than tasks pile up without a limit or get lost.
            .max_running(64)
            .max_waiting(1_000)
            .overflow(Overflow::Backpressure)
            .observer(Timeline)
            .build();
        let app = App::open(config, &neighbours, runner.clone(), feed.clone()).await?;
        let app = Arc::new(app);
        let folder = app.folder.path().to_owned();
        let requests = TaskTracker::new();
        let router = service::router(app.clone(), requests.clone());

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await;
        let listener = listener.map_err(|error| format!("port {}: {error}", config.port))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(listener, service).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(async { server.await });
        let worker = jobs::start(app).await?;
        Ok(Shop {
            address,
            neighbours,
            runner,
            folder,
            feed,
            requests,
            worker,
            stop,
            server,
        })
    }

    /// Stops it: for at most `limit` its requests are waited for, then for at most `limit` their tasks, then for at most
    /// `limit` the jobs that run. A job that is not done by then is not lost: the next start has it.
    pub async fn stop(self, limit: Duration) -> Result<ShutdownReport, BoxError> {
        // The listener closes, and connections that are idle. In this order: what a request defers can only be waited for
        // once it has deferred it.
        drop(self.stop);
        self.feed.enter(Phase::Stopping);
        self.requests.close();
        if timeout(limit, self.requests.wait()).await.is_err() {
            tracing::warn!("requests are still open after {limit:?}");
        }
        match &*self.feed.unfinished() {
            [] => tracing::info!("stopping: no task is waited for"),
            tasks => tracing::info!("stopping: waiting for {}", tasks.join(", ")),
        }
        let report = self.runner.shutdown(limit).await;
        tracing::info!("the worker stops: {}", self.worker.shutdown(limit).await);
        tell(&report);

        // Only now do the pages' streams end: they have shown all that. The server waits for them, and for responses that
        // are read slowly: one second must do.
        self.feed.enter(Phase::Stopped);
        if let Ok(ended) = timeout(Duration::from_secs(1), self.server).await {
            ended??;
        }
        if !report.is_clean() {
            return Ok(report);
        }
        // What has come in at the last moment, on a connection that was open, has had that second too.
        let report = self.runner.shutdown(Duration::ZERO).await;
        if !report.is_clean() {
            tell(&report);
        }
        Ok(report)
    }
}

fn tell(report: &ShutdownReport) {
    if report.is_clean() {
        tracing::info!("{report}");
    } else {
        tracing::error!("{report}");
    }
}
