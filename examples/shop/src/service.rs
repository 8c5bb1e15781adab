//! Which route leads where, and through what.

use std::sync::Arc;

use after::tower::AfterLayer;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::Uri,
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use tokio_util::task::TaskTracker;

use crate::{
    admin,
    app::App,
    assets, cross_site, events,
    patterns::{audit, cleanup, newsletter, profile, purchase, search, thumbnail, webhook},
    reply::{self, Refusal},
    sessions, timeline,
};

/// `requests` is told of each that is in progress.
pub(crate) fn router(app: Arc<App>, requests: TaskTracker) -> Router {
    let layer = AfterLayer::with_runner(app.runner.clone()).capture_request();

    let patterns = Router::new()
        .route("/purchase", post(purchase::purchase))
        .route("/without/purchase", post(purchase::without))
        .route("/users/delete", post(audit::delete_user))
        .route("/without/users/delete", post(audit::without))
        .route("/posts", post(newsletter::publish))
        .route("/without/posts", post(newsletter::without))
        .route("/profile", post(profile::update))
        .route("/without/profile", post(profile::without))
        .route("/shipments", post(webhook::ship))
        .route("/without/shipments", post(webhook::without))
        .route("/products", post(search::add))
        .route("/without/products", post(search::without))
        .route("/orders.csv", get(cleanup::export))
        .route("/without/orders.csv", get(cleanup::without))
        .merge(
            Router::new()
                .route("/pictures", post(thumbnail::upload))
                .route("/without/pictures", post(thumbnail::without))
                .layer(DefaultBodyLimit::max(thumbnail::MAX_BYTES)),
        )
        .route_layer(middleware::from_fn_with_state(
            app.feed.clone(),
            timeline::watch,
        ));

    let routes = patterns
        .route("/login", post(sessions::login))
        .route("/logout", post(sessions::logout))
        .route("/visitor", get(sessions::visitor))
        .route("/posts/{id}", get(newsletter::read))
        .route("/profiles/{id}", get(profile::read))
        .route("/thumbnails/{id}", get(thumbnail::read))
        .route("/search", get(search::search))
        .route("/admin/unfinished", get(admin::unfinished))
        .merge(assets::routes())
        .fallback(nothing)
        // The last one is the outermost.
        .layer(DefaultBodyLimit::max(64 * 1024))
        .layer(middleware::from_fn(cross_site::refuse_cross_site))
        .layer(middleware::from_fn(reply::negotiate))
        .layer(layer.clone())
        .layer(middleware::from_fn_with_state(requests, track));

    // A stream without an end: not tracked, because a stop would wait for it.
    let endless = Router::new()
        .route("/events", get(events::events))
        .layer(layer);

    routes
        .merge(endless)
        .layer(middleware::map_response(assets::harden))
        .with_state(app)
}

async fn nothing(uri: Uri) -> Refusal {
    Refusal::NotFound(format!("page {}", uri.path()))
}

async fn track(State(requests): State<TaskTracker>, request: Request, next: Next) -> Response {
    requests.track_future(next.run(request)).await
}
