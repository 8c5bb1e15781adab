//! Against requests that another site makes a visitor's browser send (CSRF).
//!
//! Browsers say where a request comes from, in headers that no script can set: `Sec-Fetch-Site`, or `Origin` if they are
//! old. What has neither is no browser, and has no visitor's cookies. No token in any form is needed, and none can be
//! forgotten: this looks at every request that may change something, signing in included. The session's cookie is
//! `SameSite` besides.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::reply::Refusal;

pub(crate) async fn refuse_cross_site(request: Request, next: Next) -> Response {
    let safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if safe || is_own(request.headers()) {
        next.run(request).await
    } else {
        Refusal::Forbidden("This request came from another site.").into_response()
    }
}

fn is_own(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        // `none`: the visitor's own doing, a bookmark say. `same-site` is another service of the same domain.
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    // `null`, from a sandboxed frame say, has no host.
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}
