//! What a task may want to know of the request, from before the handler.

use std::{fmt, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE},
};

/// Copy of a request's head from before the handler, for its tasks: see
/// [`AfterLayer::capture_request`](super::AfterLayer::capture_request).
///
/// Get it with [`context::get`](crate::context::get), in the handler or in its tasks. Cheap to clone. It has no body and
/// no extensions; and there is nothing to set, because the response is gone.
///
/// `Debug` shows no credentials: it hides the values of `authorization`, `proxy-authorization`, `cookie`, `set-cookie`,
/// of headers that are [marked sensitive](HeaderValue::set_sensitive), the query, and what stands before an `@` in the
/// URI. Headers of your own that hold a key are shown, unless they are so marked.
///
/// ```
/// use after::{context, tower::{AfterLayer, RequestHead}};
///
/// async fn handler() {
///     after::task("audit").defer(async {
///         if let Some(request) = context::get::<RequestHead>() {
///             let agent = request.headers().get("user-agent");
///             println!("{} {} by {agent:?}", request.method(), request.uri());
///             println!("session: {:?}", request.cookie("session").map(str::len));
///         }
///     });
/// }
/// # let _ = (AfterLayer::new().capture_request(), handler());
/// ```
#[derive(Clone)]
pub struct RequestHead {
    head: Arc<Head>,
}

struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

impl RequestHead {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        RequestHead {
            head: Arc::new(Head {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                headers: request.headers().clone(),
            }),
        }
    }

    /// The request's method: see [`RequestHead`].
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The request's URI, as the layer got it: a router above may have removed a prefix. See [`RequestHead`].
    pub fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// The HTTP version of the request: see [`RequestHead`].
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The request's headers: see [`RequestHead`].
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The value of the first cookie of this name, as it was sent: nothing is decoded, and quotes are kept.
    ///
    /// Names are compared exactly. A `cookie` header that is not UTF-8 is passed over.
    ///
    /// ```
    /// # fn task(request: after::tower::RequestHead) {
    /// // `cookie: theme=dark; session=abc`
    /// let session: Option<&str> = request.cookie("session");
    /// # drop(session);
    /// # }
    /// ```
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let headers = self.head.headers.get_all(COOKIE).iter();
        let pairs = headers
            .filter_map(|header| std::str::from_utf8(header.as_bytes()).ok())
            .flat_map(|header| header.split(';'));
        let mut cookies = pairs.filter_map(|pair| pair.split_once('='));
        let (_, value) = cookies.find(|(key, _)| key.trim() == name)?;
        Some(value.trim())
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.head.method)
            .field("uri", &PublicUri(&self.head.uri))
            .field("version", &self.head.version)
            .field("headers", &PublicHeaders(&self.head.headers))
            .finish()
    }
}

/// A URI without what may be a credential.
struct PublicUri<'a>(&'a Uri);

impl fmt::Debug for PublicUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.0;
        if let Some(scheme) = uri.scheme() {
            write!(f, "{scheme}://")?;
        }
        if let Some(authority) = uri.authority() {
            f.write_str(authority.host())?;
            if let Some(port) = authority.port() {
                write!(f, ":{port}")?;
            }
        }
        f.write_str(uri.path())?;
        match uri.query() {
            Some(_) => f.write_str("?.."),
            None => Ok(()),
        }
    }
}

/// Headers without the values of those that are credentials.
pub(super) struct PublicHeaders<'a>(pub(super) &'a HeaderMap);

impl fmt::Debug for PublicHeaders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .map(|(name, value)| (name, shown(name, value)));
        f.debug_map().entries(shown).finish()
    }
}

/// A value as `Debug` shows it. `HeaderValue`'s own hides those that are marked.
fn shown<'a>(name: &HeaderName, value: &'a HeaderValue) -> &'a dyn fmt::Debug {
    const SECRET: [HeaderName; 4] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE];
    match SECRET.contains(name) {
        true => &"hidden",
        false => value,
    }
}
