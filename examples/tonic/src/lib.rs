//! A gRPC service that keeps a record of each call, written when the call has ended.
//!
//! gRPC always responds with HTTP 200. How a call has ended stands in `grpc-status`, in the trailers or, if
//! there is nothing else to send, in the head. [`AfterLayer::grpc`] makes the layer look there.

use after::{Outcome, Runner, tower::AfterLayer};
use tokio::{
    net::TcpListener,
    sync::{mpsc::UnboundedSender, oneshot},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, async_trait, transport::Server};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_server::{Health, HealthServer},
};

/// What is kept of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which method was called.
    pub method: &'static str,
    /// And for which service.
    pub service: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// A health service that keeps records.
#[derive(Debug)]
pub struct Recorded<H> {
    health: H,
    records: UnboundedSender<Record>,
}

impl<H> Recorded<H> {
    /// What `health` answers, with records for `records`.
    pub fn new(health: H, records: UnboundedSender<Record>) -> Self {
        Recorded { health, records }
    }

    fn record(&self, method: &'static str, request: &HealthCheckRequest) {
        let records = self.records.clone();
        let service = request.service.clone();
        after::task("record").defer(async move {
            records.send(Record {
                method,
                service,
                outcome: after::outcome(),
            })
        });
    }
}

#[async_trait]
impl<H: Health> Health for Recorded<H> {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.record("check", request.get_ref());
        self.health.check(request).await
    }

    type WatchStream = H::WatchStream;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<H::WatchStream>, Status> {
        self.record("watch", request.get_ref());
        self.health.watch(request).await
    }
}

/// Serves until `stop`, and lets the calls in progress end.
///
/// # Errors
///
/// If the server can't go on.
pub async fn serve(
    listener: TcpListener,
    runner: Runner,
    service: Recorded<impl Health>,
    stop: oneshot::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    let stopped = async {
        let _ = stop.await;
    };
    Server::builder()
        .layer(AfterLayer::with_runner(runner).grpc())
        .add_service(HealthServer::new(service))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
        .await
}
