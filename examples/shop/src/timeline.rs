//! When each request and each task began and ended, for the page.

use std::future::Future;

use after::{Observer, TaskDeferred, TaskEnd, TaskFinished, TaskStarted, context};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::feed::Feed;

/// The request that is being worked for: in its context, so that the observer finds it in each of its tasks.
#[derive(Clone)]
struct Watched {
    feed: Feed,
    id: u64,
}

/// Around a handler, inside the layer of `after`.
pub(crate) async fn watch(State(feed): State<Feed>, request: Request, next: Next) -> Response {
    let id = feed.request(request.uri().path());
    context::set(Watched {
        feed: feed.clone(),
        id,
    });
    let mut end = ResponseEnd {
        feed,
        id,
        status: None,
    };
    let mut response = next.run(request).await;
    end.status = Some(response.status());
    response
        .headers_mut()
        .insert("x-request", HeaderValue::from(id));
    // Goes with the body, and so before the layer hands the tasks over.
    response.map(|body| {
        Body::new(body.map_err(move |error| {
            let _held = &end;
            error
        }))
    })
}

/// Dropped when the last byte was taken, or when nobody is there to take it.
struct ResponseEnd {
    feed: Feed,
    id: u64,
    status: Option<StatusCode>,
}

impl Drop for ResponseEnd {
    fn drop(&mut self) {
        self.feed.answered(self.id, self.status);
    }
}

/// Sees all tasks of the Runner. It is told inside their scope, so it can tell whose they are.
pub(crate) struct Timeline;

impl Observer for Timeline {
    fn deferred(&self, event: &TaskDeferred<'_>) {
        if let Some(Watched { feed, id }) = context::get() {
            feed.task_deferred(id, event.task.name);
        }
    }

    fn started(&self, event: &TaskStarted<'_>) {
        if let Some(Watched { feed, id }) = context::get() {
            feed.task_started(id, event.task.name);
        }
    }

    fn finished(&self, event: &TaskFinished<'_>) {
        if let Some(Watched { feed, id }) = context::get() {
            feed.task_finished(id, event.task.name, event.ran, &event.end);
        }
    }
}

/// A step that the client waits for, shown like a task: for the handlers that do without `after`.
pub(crate) async fn inline<T, E>(
    name: &str,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let Some(Watched { feed, id }) = context::get() else {
        return step.await;
    };
    feed.task_deferred(id, name);
    feed.task_started(id, name);
    let began = Instant::now();
    let done = step.await;
    let end = match &done {
        Ok(_) => TaskEnd::Completed,
        Err(error) => TaskEnd::Failed(error),
    };
    feed.task_finished(id, name, began.elapsed(), &end);
    done
}
