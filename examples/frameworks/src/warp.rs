//! warp 0.4: its routes are a tower service, once they are `boxed`. (Without that, what they reply with is not general
//! enough for the layer.) hyper serves it.

use std::{future::Future, pin::pin};

use after::tower::AfterLayer;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::net::TcpListener;
use tower::Layer as _;
use warp::{Filter, Reply, filters::BoxedFilter};

/// The routes of the example.
pub fn routes() -> BoxedFilter<(impl Reply,)> {
    warp::path!("hello" / String)
        .map(|name: String| {
            after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
            format!("hello {name}\n")
        })
        .boxed()
}

/// Serves routes, the layer outermost, until `stopping` resolves; the requests in progress are completed.
pub async fn serve<R: Reply + 'static>(
    routes: BoxedFilter<(R,)>,
    listener: TcpListener,
    layer: AfterLayer,
    stopping: impl Future<Output = ()>,
) {
    let service = layer.layer(warp::service(routes));
    let connections = GracefulShutdown::new();
    let mut stopping = pin!(stopping);
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(_) => continue,
            },
            () = &mut stopping => break,
        };
        let service = TowerToHyperService::new(service.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        tokio::spawn(connections.watch(connection));
    }
    drop(listener);
    connections.shutdown().await;
}
