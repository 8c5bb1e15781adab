//! The layer on a bare hyper service. Its tasks start when the response was written to the socket.
//!
//! `cargo run --example hyper` sends a request to itself, reads the response slowly, and ends. With `-- --serve` it serves the
//! routes of [`stuck`] until Ctrl-C or SIGTERM. It ends with code 0, or with 2 if deferred tasks were unfinished.

mod stuck;

use std::{
    convert::Infallible,
    env,
    error::Error,
    io::{self, Read},
    net::SocketAddr,
    pin::pin,
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use after::tower::{AfterLayer, RunAfter};
use axum::body::Body;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tower::{ServiceBuilder, service_fn, util::BoxCloneService};

/// More than the system's buffers between a server and its client hold.
const LENGTH: usize = 64 << 20;

/// How much the client has read.
type Progress = Arc<AtomicUsize>;

async fn download(_: Request<Incoming>, read: Progress) -> Response<Body> {
    after::task("written").defer(async move {
        let read = read.load(SeqCst);
        println!("written: {:?}", after::outcome());
        // A client that has read so little can't have been sent everything.
        if read < LENGTH / 4 {
            return Err(format!("the client has read no more than {read} bytes"));
        }
        Ok(())
    });
    Response::new(Body::from(vec![7; LENGTH]))
}

/// Serves until `stop`, and then for at most `limit`.
async fn serve(
    listener: TcpListener,
    service: BoxCloneService<Request<Incoming>, Response<Body>, Infallible>,
    stop: impl Future<Output = ()>,
    limit: Duration,
) {
    let layer = AfterLayer::new().run_after(RunAfter::Written);
    let service = ServiceBuilder::new().layer(layer).service(service);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok((socket, _)) = accepted else {
            // For example too many open files: that may pass.
            sleep(Duration::from_secs(1)).await;
            continue;
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
    drop(listener);
    // Ends streams that await `stopping`: the server waits for them here.
    after::stop();
    if timeout(limit, connections.shutdown()).await.is_err() {
        println!("connections are still open after {limit:?}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let limit = stuck::limit();

    let mut as_expected = true;
    if env::args().any(|argument| argument == "--serve") {
        let told_to_stop = told_to_stop()?;
        println!("Serving on http://{address}; stop it with Ctrl-C. In another terminal, try:\n");
        println!("  curl http://{address}/stuck/closure\n");
        let service = BoxCloneService::new(stuck::routes());
        serve(listener, service, told_to_stop, limit).await;
    } else {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let read = Progress::default();
        let progress = read.clone();
        let service = BoxCloneService::new(service_fn(move |request| {
            let answer = download(request, read.clone());
            async { Ok(answer.await) }
        }));
        let server = tokio::spawn(serve(listener, service, stopped, limit));
        let client = spawn_blocking(move || ask(address, &progress));
        let length = client.await??;
        println!("the client has read {length} bytes");
        drop(stop);
        server.await?;
        as_expected = length == LENGTH;
    }

    let report = after::shutdown(limit).await;
    println!("{report}");
    let stats = report.stats();
    let completed = report.is_clean() && stats.completed == stats.deferred;
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if completed && as_expected { 0 } else { 2 })
}

/// Resolves at Ctrl-C or SIGTERM. From the call on, these signals no longer end the process themselves.
#[cfg(unix)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(windows)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

/// Reads in small pieces, and counts them.
fn ask(address: SocketAddr, progress: &AtomicUsize) -> Result<usize, ureq::Error> {
    // No proxy, whatever the environment says, and a timeout.
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
