//! The layer on a bare hyper service, which hands over when its response was written to the socket.
//!
//! Run it with `cargo run --example hyper --features tower`. It asks itself over HTTP, slowly, and ends.

use std::{
    convert::Infallible,
    error::Error,
    io::Read,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use after::tower::{AfterLayer, RunAfter};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{net::TcpListener, sync::oneshot, task::spawn_blocking};
use tower::ServiceBuilder;

/// More than the system's buffers between a server and its client hold.
const LENGTH: usize = 64 << 20;

/// How much the client has read.
type Progress = Arc<AtomicUsize>;

async fn download(_: Request<Incoming>, read: Progress) -> Response<Full<Bytes>> {
    after::task("written").defer(async move {
        let read = read.load(SeqCst);
        println!("written: {:?}", after::outcome());
        // A client that has read so little can't have been sent everything.
        if read < LENGTH / 4 {
            return Err(format!("the client has read no more than {read} bytes"));
        }
        Ok(())
    });
    Response::new(Full::from(vec![7; LENGTH]))
}

async fn serve(
    listener: TcpListener,
    read: Progress,
    mut stop: oneshot::Receiver<()>,
) -> Result<(), std::io::Error> {
    let service = ServiceBuilder::new()
        .layer(AfterLayer::new().run_after(RunAfter::Written))
        .service_fn(move |request| {
            let answer = download(request, read.clone());
            async { Ok::<_, Infallible>(answer.await) }
        });
    let connections = GracefulShutdown::new();
    loop {
        let (socket, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = &mut stop => break,
        };
        let service = TowerToHyperService::new(service.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        let connection = connections.watch(connection);
        tokio::spawn(async {
            if let Err(error) = connection.await {
                eprintln!("a connection has ended early: {error}");
            }
        });
    }
    connections.shutdown().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let read = Progress::default();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, read.clone(), stopped));

    let client = spawn_blocking(move || ask(address, &read));
    let length = client.await??;
    println!("the client has read {length} bytes");

    drop(stop);
    server.await??;
    let report = after::shutdown(Duration::from_secs(5)).await;
    println!("{report}");
    if length != LENGTH || report.stats().completed != 1 {
        return Err("the download was not what it should be".into());
    }
    Ok(())
}

/// Reads in small pieces, and tells how far it is.
fn ask(address: SocketAddr, progress: &AtomicUsize) -> Result<usize, ureq::Error> {
    // Straight to the server, whatever proxy the environment names, and not for ever.
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(30)));
    let agent = ureq::Agent::new_with_config(config.build());
    let answer = agent.get(format!("http://{address}/")).call()?;
    let mut body = answer.into_body().into_reader();
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = body.read(&mut piece)?;
        if count == 0 {
            return Ok(progress.load(SeqCst));
        }
        progress.fetch_add(count, SeqCst);
    }
}
