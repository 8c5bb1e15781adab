//! Statistics of deferred tasks for Prometheus: an axum service with `after::metrics::Metrics` on `/metrics`, and a list of the
//! tasks that have not ended on `/admin/unfinished`, for a person.
//!
//! Run it with `cargo run -p prometheus-example`: it sends requests to itself, prints the metrics and ends. With `-- --serve` it
//! stays up until Ctrl-C.

use std::{env, error::Error, future::IntoFuture as _, net::SocketAddr, process, time::Duration};

use after::{Runner, metrics::Metrics};
use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{interval, sleep, timeout},
};

type AnyError = Box<dyn Error + Send + Sync>;

async fn order() -> &'static str {
    after::task("audit").defer(sleep(Duration::from_millis(5)));
    after::task("receipt").on_success().defer(async {});
    after::task("webhook").defer(async { Err::<(), _>("the receiver returns 503") });
    "ordered\n"
}

async fn upload() -> StatusCode {
    after::task("audit").defer(async {});
    // The request fails, so this is not run: it is discarded.
    after::task("receipt").on_success().defer(async {});
    after::task("scan")
        .timeout(Duration::from_millis(5))
        .defer(std::future::pending::<()>());
    after::task("thumbnail").defer(async { panic!("no such format") });
    StatusCode::UNSUPPORTED_MEDIA_TYPE
}

/// What a counter can't say: which tasks they are, and where they were deferred. Not for everybody: keep it inside.
async fn unfinished() -> String {
    let tasks = Runner::global().unfinished();
    let mut text = format!("{} unfinished\n", tasks.len());
    for task in tasks {
        let key = task.key.unwrap_or("-".into());
        text += &format!("{:?} {} {key} {}\n", task.age, task.name, task.location);
    }
    text
}

/// Around each handler, without the layer: the request ends when its response is made, or when its client disconnects.
async fn scope(request: Request, next: Next) -> Response {
    after::scope(next.run(request))
        .failed_if(|response| !response.status().is_success())
        .await
}

fn app(prometheus: PrometheusHandle) -> Router {
    Router::new()
        .route("/order", get(order))
        .route("/upload", get(upload))
        .layer(middleware::from_fn(scope))
        .route("/metrics", get(async move || prometheus.render()))
        .route("/admin/unfinished", get(unfinished))
}

/// The recorder of the whole process. The exporter's own HTTP listener is not needed: the service has one.
fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        // Without buckets the exporter makes summaries, which can't be added up over the instances of a service.
        .set_buckets_for_metric(
            Matcher::Suffix("_seconds".into()),
            &[0.001, 0.01, 0.1, 1.0, 10.0],
        )?
        .install_recorder()
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    // In this order: `Metrics` describes itself to the recorder that is there when it is made.
    let prometheus = install_recorder()?;
    Runner::builder()
        .observer(Metrics::default())
        .build()
        .install()?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = app(prometheus.clone());
    let server = axum::serve(listener, app).with_graceful_shutdown(after::stopping());
    let server = tokio::spawn(server.into_future());

    if env::args().any(|argument| argument == "--serve") {
        // The exporter keeps each measurement of a histogram until it is rendered, or until this.
        tokio::spawn(async move {
            let mut upkeep = interval(Duration::from_secs(5));
            loop {
                upkeep.tick().await;
                prometheus.run_upkeep();
            }
        });
        println!("Serving on http://{address}; stop it with Ctrl-C. In another terminal, try:\n");
        for path in ["order", "upload", "metrics", "admin/unfinished"] {
            println!("  curl http://{address}/{path}");
        }
        tokio::signal::ctrl_c().await?;
    } else {
        ask(address).await?;
    }

    // Ends the server too. A client that holds its connection does not hold the process.
    after::stop();
    if let Ok(ended) = timeout(Duration::from_secs(5), server).await {
        ended??;
    }
    let report = after::shutdown(Duration::from_secs(5)).await;
    println!("\n{report}");
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if report.is_clean() { 0 } else { 2 })
}

/// Sends all requests, and checks the metrics.
async fn ask(address: SocketAddr) -> Result<(), AnyError> {
    for _ in 0..3 {
        assert_eq!(fetch(address, "order").await?.0, 200);
    }
    for _ in 0..2 {
        assert_eq!(fetch(address, "upload").await?.0, 415);
    }
    // A task is named as long as it runs.
    let (end, ended) = oneshot::channel::<()>();
    after::scope(async {
        let ended = async { drop(ended.await) };
        after::task("export").key("customer:7").defer(ended);
    })
    .await;
    let (status, tasks) = fetch(address, "admin/unfinished").await?;
    assert_eq!(status, 200);
    println!("{tasks}");
    assert!(tasks.contains(" export customer:7 "), "{tasks}");
    drop(end);

    // Prometheus would come by now and then. Here everything is to be over when it does.
    Runner::global().drain().await;
    let (status, metrics) = fetch(address, "metrics").await?;
    assert_eq!(status, 200);
    let mut lines: Vec<_> = metrics
        .lines()
        .filter(|line| line.contains("after_"))
        .collect();
    // By metric, its description first.
    lines.sort_by_key(|line| {
        let comment = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        let name = comment.unwrap_or(line).split(['{', ' ']).next();
        (name, comment.is_none(), *line)
    });
    for line in lines.iter().filter(|line| !line.contains("_bucket{")) {
        println!("{line}");
    }

    for expected in [
        r#"after_tasks_deferred_total{task="audit"} 5"#,
        r#"after_tasks_deferred_total{task="export"} 1"#,
        r#"after_tasks_deferred_total{task="receipt"} 5"#,
        r#"after_tasks_deferred_total{task="scan"} 2"#,
        r#"after_tasks_deferred_total{task="thumbnail"} 2"#,
        r#"after_tasks_deferred_total{task="webhook"} 3"#,
        r#"after_tasks_finished_total{task="audit",end="completed"} 5"#,
        r#"after_tasks_finished_total{task="export",end="completed"} 1"#,
        r#"after_tasks_finished_total{task="receipt",end="completed"} 3"#,
        r#"after_tasks_finished_total{task="receipt",end="discarded"} 2"#,
        r#"after_tasks_finished_total{task="scan",end="timed_out"} 2"#,
        r#"after_tasks_finished_total{task="thumbnail",end="panicked"} 2"#,
        r#"after_tasks_finished_total{task="webhook",end="failed"} 3"#,
        "after_tasks_pending 0",
        r#"after_task_waiting_seconds_count{task="audit"} 5"#,
        r#"after_task_running_seconds_count{task="scan"} 2"#,
    ] {
        assert!(lines.contains(&expected), "missing: {expected}");
    }
    // And nothing else has ended.
    let ends = lines
        .iter()
        .filter(|line| line.starts_with("after_tasks_finished_total"));
    assert_eq!(ends.count(), 7);
    Ok(())
}

/// The status and the text of a response. Not blocking the runtime, on which the server runs as well.
async fn fetch(address: SocketAddr, path: &'static str) -> Result<(u16, String), AnyError> {
    let answer = tokio::task::spawn_blocking(move || {
        // No proxy, whatever the environment says, and a timeout.
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)));
        let agent = ureq::Agent::new_with_config(config.build());
        let mut answer = agent.get(format!("http://{address}/{path}")).call()?;
        let text = answer.body_mut().read_to_string()?;
        Ok::<_, ureq::Error>((answer.status().as_u16(), text))
    });
    Ok(answer.await??)
}
