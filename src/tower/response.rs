//! What a task may want to know of the response: its head.

use std::{fmt, sync::Arc};

use http::{HeaderMap, StatusCode, response::Parts};

use super::request::PublicHeaders;

/// Copy of a response's head, for its tasks: see
/// [`AfterLayer::capture_response`](super::AfterLayer::capture_response).
///
/// Get it with [`context::get`](crate::context::get), in a task or in the body. In the handler it is not there yet. Nor is
/// it where there was no response: the service has returned an error or panicked, or its future was dropped first. Cheap
/// to clone. It has no body and no extensions; and there is nothing to set, because the response is gone.
///
/// What is added further out is not in it: by layers around this one, and by the server, which may add `date` and
/// `content-length`. Of several layers that capture each has its own, and a task sees that of the layer whose scope has
/// collected it.
///
/// `Debug` shows no credentials: it hides what that of [`RequestHead`](super::RequestHead) does, `set-cookie` included.
///
/// ```
/// use after::{context, tower::{AfterLayer, ResponseHead}};
///
/// async fn handler() {
///     after::task("access log").defer(async {
///         match context::get::<ResponseHead>() {
///             Some(head) => println!("{}", head.status()),
///             None => println!("no response: {:?}", after::outcome()),
///         }
///     });
/// }
/// # let _ = (AfterLayer::new().capture_response(), handler());
/// ```
#[derive(Clone)]
pub struct ResponseHead {
    head: Arc<Head>,
}

struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

impl ResponseHead {
    pub(super) fn of(head: &Parts) -> Self {
        ResponseHead {
            head: Arc::new(Head {
                status: head.status,
                headers: head.headers.clone(),
            }),
        }
    }

    /// The response's status: see [`ResponseHead`].
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The response's headers: see [`ResponseHead`].
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.head.status)
            .field("headers", &PublicHeaders(&self.head.headers))
            .finish()
    }
}
