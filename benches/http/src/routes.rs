//! The service, once for each variant. All answer the same bytes.

use std::sync::atomic::Ordering::Relaxed;

use after::tower::AfterLayer;
use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::join;
use tokio::runtime::Handle;

use crate::{
    guarded::Guarded,
    variant::Variant,
    work::{REQUESTS, TASKS, Task},
};

pub(crate) fn routes(variant: Variant, task: Task) -> Router {
    let router = Router::new();
    match variant {
        Variant::Nothing => router.route("/", get(async || answer())),
        Variant::Awaited => router.route("/", get(move || awaited(task))),
        Variant::Spawn => router.route("/", get(move || spawn(task))),
        Variant::SpawnAfter => router.route("/", get(move || spawn_after(task))),
        Variant::JoinAfter => router.route("/", get(move || join_after(task))),
        Variant::Scope => {
            let router = router.route("/", get(move || defer(task)));
            router.layer(middleware::from_fn(scope))
        }
        Variant::Layer => {
            let router = router.route("/", get(move || defer(task)));
            router.layer(AfterLayer::new())
        }
    }
}

fn answer() -> &'static str {
    REQUESTS.fetch_add(1, Relaxed);
    "hello\n"
}

async fn awaited(task: Task) -> &'static str {
    let answer = answer();
    for _ in 0..TASKS {
        task.run().await;
    }
    answer
}

async fn spawn(task: Task) -> &'static str {
    for _ in 0..TASKS {
        tokio::spawn(task.run());
    }
    answer()
}

async fn spawn_after(task: Task) -> Response {
    guard(move |runtime| {
        runtime.spawn(async move {
            for _ in 0..TASKS {
                tokio::spawn(task.run());
            }
        });
    })
}

async fn join_after(task: Task) -> Response {
    guard(move |runtime| {
        runtime.spawn(async move { join!(task.run(), task.run(), task.run()) });
    })
}

fn guard(then: impl FnOnce(Handle) + Unpin + Send + 'static) -> Response {
    let response = answer().into_response();
    response.map(|body| Body::new(Guarded::new(body, then)))
}

async fn defer(task: Task) -> &'static str {
    for _ in 0..TASKS {
        after::defer(task.run());
    }
    answer()
}

/// As the README of `after` shows it.
async fn scope(request: Request, next: Next) -> Response {
    after::scope(next.run(request))
        .failed_if(|response| !response.status().is_success())
        .await
}
