//! A gRPC server of tonic, and its client: a call that succeeds, one that fails, and a stream that the client gives up.
//!
//! Run it with `cargo run -p tonic-example`. It calls itself over a socket, and ends.

use std::{error::Error, process, time::Duration};

use after::{Outcome, Runner};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tonic::{Code, transport::Endpoint};
use tonic_example::{Record, Recorded, serve};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::{HealthReporter, HealthService},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let runner = Runner::global();
    let health = HealthService::from_health_reporter(HealthReporter::new());
    let (sender, mut records) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let service = Recorded::new(health, sender);
    let server = tokio::spawn(serve(listener, runner, service, stopped));

    let channel = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = channel.timeout(Duration::from_secs(10)).connect().await?;
    let mut client = HealthClient::new(channel);

    // The server as a whole is healthy: the call ends with trailers that say so.
    client.check(of("")).await?;
    expect(records.recv().await, "check", "", Outcome::Finished)?;

    // Nobody knows of such a service. It is HTTP 200 all the same.
    match client.check(of("billing")).await {
        Err(status) if status.code() == Code::NotFound => {}
        other => return Err(format!("expected NOT_FOUND: {other:?}").into()),
    }
    expect(records.recv().await, "check", "billing", Outcome::Failed)?;

    // A stream of changes has no end. The client takes the first one and goes.
    let mut changes = client.watch(of("")).await?.into_inner();
    changes.message().await?;
    drop(changes);
    expect(records.recv().await, "watch", "", Outcome::Cancelled)?;

    drop(client);
    // At a signal: what ends at `stopping`, and the server, which waits for its calls and their streams. For so long.
    after::stop();
    drop(stop);
    if let Ok(ended) = timeout(Duration::from_secs(5), server).await {
        ended??;
    }
    let report = after::shutdown(Duration::from_secs(5)).await;
    println!("{report}");
    let completed = report.is_clean() && report.stats().completed == 3;
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if completed { 0 } else { 2 })
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

fn expect(
    record: Option<Record>,
    method: &'static str,
    service: &str,
    outcome: Outcome,
) -> Result<(), Box<dyn Error>> {
    let expected = Record {
        method,
        service: service.into(),
        outcome: Some(outcome),
    };
    if record.as_ref() != Some(&expected) {
        return Err(format!("{record:?} instead of {expected:?}").into());
    }
    println!("{method} of {service:?}: {outcome:?}");
    Ok(())
}
