//! The page's own files, and what a browser may do with all that comes from here.

use axum::{
    Router,
    http::{HeaderValue, header},
    response::Response,
    routing::{MethodRouter, get},
};

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(
            "/",
            file(
                "text/html; charset=utf-8",
                include_str!("../page/index.html"),
            ),
        )
        .route(
            "/style.css",
            file("text/css; charset=utf-8", include_str!("../page/style.css")),
        )
        .route("/page.js", file(SCRIPT, include_str!("../page/page.js")))
        .route("/chart.js", file(SCRIPT, include_str!("../page/chart.js")))
        .route(
            "/icon.svg",
            file("image/svg+xml", include_str!("../page/icon.svg")),
        )
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    content: &'static str,
) -> MethodRouter<S> {
    get(async move || ([(header::CONTENT_TYPE, kind)], content))
}

/// Nothing from elsewhere, no script or style but those files, no frame around it, and no guessing of types.
pub(crate) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
                  connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let cached = headers.contains_key(header::CACHE_CONTROL);
    if !cached {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
