//! A hyper service on smol.

use std::{convert::Infallible, net::Ipv4Addr, path::Path, pin::pin, time::Duration};

use after::{Runner, tower::AfterLayer};
use async_signal::{Signal, Signals};
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{Either, join_all, select},
};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{server::graceful::GracefulShutdown, service::TowerToHyperService};
use smol::{Task, Timer, net::TcpListener};
use smol_hyper::rt::FuturesIo;
use tower::{Layer as _, service_fn};

use crate::{
    AnyError,
    serve::{self, Patience, Service},
};

pub(crate) fn serve(log: &Path, limit: Duration) -> Result<(), AnyError> {
    smol::block_on(run(log, limit))
}

async fn run(log: &Path, limit: Duration) -> Result<(), AnyError> {
    let mut terminate = Signals::new([Signal::Term])?;
    let service = Service::new(log, |time| {
        Box::pin(async move {
            Timer::after(time).await;
        })
    })?;
    let app = AfterLayer::new().layer(service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        async move {
            Ok::<_, Infallible>(match serve::asked(request.uri().path()) {
                Some((id, milliseconds)) => {
                    let text = service.work(id, milliseconds).await;
                    Response::new(Full::new(Bytes::from(text)))
                }
                None => {
                    let mut response = Response::new(Full::default());
                    *response.status_mut() = StatusCode::NOT_FOUND;
                    response
                }
            })
        }
    }));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("listening on {}", listener.local_addr()?);

    let graceful = GracefulShutdown::new();
    let mut connections: Vec<Task<()>> = Vec::new();
    loop {
        let accepted = match select(pin!(listener.accept()), terminate.next()).await {
            Either::Left((accepted, _)) => accepted?,
            Either::Right(_) => break,
        };
        let app = TowerToHyperService::new(app.clone());
        let connection = http1::Builder::new().serve_connection(FuturesIo::new(accepted.0), app);
        let connection = graceful.watch(connection);
        // How a connection ends is its client's business.
        connections.push(smol::spawn(async move { drop(connection.await) }));
        connections.retain(|connection| !connection.is_finished());
    }

    println!("stopping");
    drop(listener);
    let closed = async {
        select(pin!(graceful.shutdown()), Timer::after(limit)).await;
    };
    let mut patience = match select(pin!(closed), terminate.next()).await {
        Either::Left(_) => Patience::Kept,
        Either::Right(_) => Patience::Lost,
    };
    // Those that are left.
    join_all(connections.into_iter().map(Task::cancel)).await;
    let runner = Runner::global();
    let report = match patience {
        Patience::Lost => runner.shutdown(Duration::ZERO).await,
        Patience::Kept => match select(pin!(runner.shutdown(limit)), terminate.next()).await {
            Either::Left((report, _)) => report,
            Either::Right(_) => {
                patience = Patience::Lost;
                runner.shutdown(Duration::ZERO).await
            }
        },
    };
    serve::end(&report, patience)
}
