//! An axum service on tokio. With connections of its own rather than `axum::serve`, so that they can be ended before the
//! last report: nobody is to be answered after that.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use after::{Runner, tower::AfterLayer};
use axum::{
    Router,
    extract::{Path as Asked, State},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    AnyError,
    serve::{self, Patience, Service},
};

#[tokio::main(worker_threads = 2)]
pub(crate) async fn serve(log: &Path, limit: Duration) -> Result<(), AnyError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let service = Service::new(log, |time| Box::pin(sleep(time)))?;
    let app = Router::new()
        .route("/work/{id}/{milliseconds}", get(work))
        .layer(AfterLayer::new())
        .with_state(service);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("listening on {}", listener.local_addr()?);

    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => break,
        };
        let builder = auto::Builder::new(TokioExecutor::new());
        let app = TowerToHyperService::new(app.clone());
        let connection = builder
            .serve_connection(TokioIo::new(stream), app)
            .into_owned();
        let connection = graceful.watch(connection);
        // How a connection ends is its client's business.
        connections.spawn(async move { drop(connection.await) });
        while connections.try_join_next().is_some() {}
    }

    println!("stopping");
    drop(listener);
    let mut patience = tokio::select! {
        _ = timeout(limit, graceful.shutdown()) => Patience::Kept,
        _ = terminate.recv() => Patience::Lost,
    };
    // Those that are left.
    connections.shutdown().await;
    let runner = Runner::global();
    let report = match patience {
        Patience::Lost => runner.shutdown(Duration::ZERO).await,
        Patience::Kept => tokio::select! {
            report = runner.shutdown(limit) => report,
            _ = terminate.recv() => {
                patience = Patience::Lost;
                runner.shutdown(Duration::ZERO).await
            }
        },
    };
    serve::end(&report, patience)
}

async fn work(
    State(service): State<Arc<Service>>,
    Asked((id, milliseconds)): Asked<(u64, u64)>,
) -> String {
    service.work(id, milliseconds).await
}
