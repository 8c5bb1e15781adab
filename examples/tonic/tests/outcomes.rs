//! How gRPC calls end, on a real server and a real socket.

use std::{future::Future, pin::Pin, time::Duration};

use after::{Outcome, Runner, tower::RunAfter};
use tokio::{
    net::TcpListener,
    sync::{
        mpsc::{self, UnboundedReceiver},
        oneshot,
    },
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt, iter};
use tonic::{
    Code, Request, Response, Status, async_trait,
    transport::{Channel, Endpoint},
};
use tonic_example::{Record, Recorded, serve};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, HealthCheckResponse, health_client::HealthClient, health_server::Health,
    },
    server::{HealthReporter, HealthService},
};

struct Site {
    client: HealthClient<Channel>,
    records: UnboundedReceiver<Record>,
    runner: Runner,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Site {
    async fn new(health: impl Health) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let runner = Runner::builder().build();
        let (sender, records) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let service = Recorded::new(health, sender);
        let server = tokio::spawn(serve(listener, runner.clone(), service, stopped));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Site {
            client: HealthClient::new(channel.connect().await.unwrap()),
            records,
            runner,
            stop,
            server,
        }
    }

    async fn outcome(&mut self) -> Outcome {
        let record = self.records.recv().await.expect("a record");
        record.outcome.expect("the call is over")
    }

    /// Stops the server, and checks that so many calls have left a record.
    async fn stop(self, calls: u64) {
        drop(self.client);
        drop(self.stop);
        self.server.await.unwrap().unwrap();
        self.runner.drain().await;
        let stats = self.runner.stats();
        assert_eq!((stats.deferred, stats.completed), (calls, calls));
    }
}

/// Waits for events alone; a test that hangs fails.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let guarded = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.block_on(guarded).expect("the test hangs");
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

fn healthy() -> HealthService {
    HealthService::from_health_reporter(HealthReporter::new())
}

/// 22, 23: trailers with `grpc-status: 0`.
#[test]
fn a_call_that_succeeds_has_finished() {
    run(async {
        let mut site = Site::new(healthy()).await;
        site.client.check(of("")).await.unwrap();
        assert_eq!(site.outcome().await, Outcome::Finished);
        site.stop(1).await;
    });
}

/// 23: a call that fails before it has sent anything says so in its head, under HTTP 200.
#[test]
fn a_call_with_an_error_status_in_its_head_has_failed() {
    run(async {
        let mut site = Site::new(healthy()).await;
        let status = site.client.check(of("billing")).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(site.outcome().await, Outcome::Failed);
        site.stop(1).await;
    });
}

/// A stream that breaks off with an error after its first message.
struct Breaks;

#[async_trait]
impl Health for Breaks {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse::default()))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let message = Ok(HealthCheckResponse::default());
        let stream = iter([message, Err(Status::unavailable("gone"))]);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// 23: a stream that fails on its way says so in its trailers.
#[test]
fn a_stream_with_an_error_status_in_its_trailers_has_failed() {
    run(async {
        let mut site = Site::new(Breaks).await;
        let mut stream = site.client.watch(of("")).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        let status = stream.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(site.outcome().await, Outcome::Failed);
        site.stop(1).await;
    });
}

/// 22, 23: a stream that the server ends has finished.
#[test]
fn a_stream_that_ends_has_finished() {
    run(async {
        let mut reporter = HealthReporter::new();
        let status = ServingStatus::Serving;
        reporter.set_service_status("mail", status).await;
        let health = HealthService::from_health_reporter(reporter.clone());
        let mut site = Site::new(health).await;
        let mut stream = site.client.watch(of("mail")).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        reporter.clear_service_status("mail").await;
        assert!(stream.next().await.is_none());
        assert_eq!(site.outcome().await, Outcome::Finished);
        site.stop(1).await;
    });
}

/// 22, N3: a stream that its client gives up was cancelled; its connection goes on.
#[test]
fn a_stream_that_the_client_drops_is_cancelled() {
    run(async {
        let mut site = Site::new(healthy()).await;
        for _ in 0..3 {
            let mut stream = site.client.watch(of("")).await.unwrap().into_inner();
            stream.message().await.unwrap().unwrap();
            drop(stream);
            assert_eq!(site.outcome().await, Outcome::Cancelled);
        }
        site.stop(3).await;
    });
}

/// A stream that says in the extensions of its response that its tasks need not wait for its end.
struct Endless(HealthService);

#[async_trait]
impl Health for Endless {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.check(request).await
    }

    type WatchStream = <HealthService as Health>::WatchStream;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut response = self.0.watch(request).await?;
        response.extensions_mut().insert(RunAfter::Head);
        Ok(response)
    }
}

/// 22: what a response says of itself goes over the layer: tonic passes its extensions on.
#[test]
fn a_stream_may_run_its_tasks_at_its_head() {
    run(async {
        let mut site = Site::new(Endless(healthy())).await;
        let stream = site.client.watch(of("")).await.unwrap().into_inner();
        assert_eq!(site.outcome().await, Outcome::Finished);
        drop(stream);
        site.stop(1).await;
    });
}
