//! What the shop answers: JSON for programs and for the page's script, HTML for a browser that asks by itself.

use axum::{
    Json,
    body::to_bytes,
    extract::{Request, multipart::MultipartError},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE, VARY},
    },
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;

use crate::database::DatabaseError;

/// A sentence for a person, and for programs the number of what was made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reply {
    #[serde(skip)]
    status: StatusCode,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
}

impl Reply {
    pub(crate) fn done(message: impl Into<String>) -> Reply {
        Reply::with(StatusCode::OK, message)
    }

    pub(crate) fn created(id: i64, message: impl Into<String>) -> Reply {
        let mut reply = Reply::with(StatusCode::CREATED, message);
        reply.id = Some(id);
        reply
    }

    fn with(status: StatusCode, message: impl Into<String>) -> Reply {
        Reply {
            status,
            message: message.into(),
            id: None,
        }
    }

    fn page(&self) -> Html<String> {
        let title = match self.status.canonical_reason() {
            Some(reason) if self.status.as_u16() >= 400 => reason,
            _ => "Done",
        };
        page(title, html! { p { (self.message) } })
    }
}

/// As JSON. What asks for HTML gets that from [`negotiate`].
impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody is signed in.
    Unauthorized,
    /// Somebody is, who may not do this.
    Forbidden(&'static str),
    NotFound(String),
    /// It asks for something that makes no sense, and this is what.
    Unprocessable(&'static str),
    UnsupportedPicture,
    /// An upload that is too large, or was broken off.
    Upload(MultipartError),
    /// Not the client's fault. The cause is for the log alone.
    Internal(after::BoxError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Refusal::Unauthorized => (StatusCode::UNAUTHORIZED, "Sign in first.".into()),
            Refusal::Forbidden(why) => (StatusCode::FORBIDDEN, why.into()),
            Refusal::NotFound(what) => (StatusCode::NOT_FOUND, format!("There is no {what}.")),
            Refusal::Unprocessable(why) => (StatusCode::UNPROCESSABLE_ENTITY, why.into()),
            Refusal::UnsupportedPicture => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "A picture has to be a PNG or a JPEG.".into(),
            ),
            Refusal::Upload(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                (error.status(), "An upload may have 4 MB at most.".into())
            }
            Refusal::Upload(error) => (error.status(), error.body_text()),
            Refusal::Internal(cause) => {
                tracing::error!("a request has failed: {cause}");
                let message = "This went wrong on our side. Please try again.".into();
                (StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        };
        Reply::with(status, message).into_response()
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        Refusal::Internal(error.into())
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Refusal::Internal(error.into())
    }
}

impl From<after_apalis::Error> for Refusal {
    fn from(error: after_apalis::Error) -> Self {
        Refusal::Internal(error.into())
    }
}

/// Around all routes: errors of the framework (no such route, a form that can't be read, too large a body) look like our
/// own, and what asks for HTML gets it.
pub(crate) async fn negotiate(request: Request, next: Next) -> Response {
    let wants_html = wants_html(request.headers());
    let mut response = next.run(request).await;
    let reply = match response.extensions_mut().remove::<Reply>() {
        Some(reply) => reply,
        None if is_plain_error(&response) => {
            let (head, body) = response.into_parts();
            // Written by the framework: a sentence at most.
            let text = to_bytes(body, 4096).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let reason = head.status.canonical_reason().unwrap_or("Refused");
            let message = match text.trim() {
                "" => format!("{reason}."),
                text => format!("{reason}: {text}"),
            };
            let reply = Reply::with(head.status, message);
            response = reply.clone().into_response();
            // `allow`, say.
            for (name, value) in &head.headers {
                if !response.headers().contains_key(name) && name.as_str() != "content-length" {
                    response.headers_mut().insert(name, value.clone());
                }
            }
            reply
        }
        None => return response,
    };
    if wants_html {
        let (mut head, _json) = response.into_parts();
        head.headers.remove(CONTENT_TYPE);
        head.headers.remove("content-length");
        response = (head, reply.page()).into_response();
    }
    response.headers_mut().insert(
        VARY,
        ACCEPT.as_str().parse().expect("a header's name is a value"),
    );
    response
}

fn is_plain_error(response: &Response) -> bool {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE);
    let plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    (status.is_client_error() || status.is_server_error()) && plain
}

pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(ACCEPT).iter();
    accept
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// A page around `content`. Maud escapes each value in it.
pub(crate) fn page(title: &str, content: Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – shop" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                main class="plain" {
                    h1 { (title) }
                    (content)
                    p { a href="/" { "To the shop" } }
                }
            }
        }
    };
    Html(page.into_string())
}
