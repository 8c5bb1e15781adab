//! HTTP layer for axum, hyper, tonic and other [tower] services: a request ends with its response body (feature `tower`).
//!
//! A scope around a handler ends when the handler has made its response. For a streamed or large response that is long
//! before the client has it. Under [`AfterLayer`] a request ends when the server has read the last byte of the body, or
//! drops the body:
//!
//! ```text
//!          call      the response's head     last frame   the body returns `None`
//!           |                 |                   |         | or is dropped
//! request   |====*============|.....*......*......|.........|
//!                defer(a)           chunks may defer, too   |
//! tasks                                                     |  . a ..
//! ```
//!
//! ```
//! use after::tower::AfterLayer;
//! use axum::{Router, routing::get};
//!
//! async fn handler() -> &'static str {
//!     after::defer(async { println!("the response is out") });
//!     "hello"
//! }
//!
//! let app: Router = Router::new()
//!     .route("/", get(handler))
//!     .layer(AfterLayer::new()); // last, so that it is outermost
//! # drop(app);
//! ```
//!
//! The scope is current in `Service::call` of what is directly below the layer, on the same task, in its future and in its
//! body, polled and dropped: middleware below and streams may defer, and so may their destructors. It is current, too,
//! where `failed_if` looks at the head, and where the body is asked for its `size_hint` and `is_end_stream`.
//!
//! It is not current in `poll_ready`, nor in what a layer below runs on a task of its own
//! ([`provide_handle`](AfterLayer::provide_handle) is for that), nor where the *extensions* of a response are dropped:
//! they go on to the server, and their destructors run outside the scope. What is to be cleaned up after the response
//! is put into its body, or deferred; [`try_defer`](crate::try_defer()) in a destructor of an extension gives the task
//! back.
//!
//! # Where it belongs
//!
//! Outermost, or nearly: with `Router::layer` and `ServiceBuilder` alike, so that the body that it sees is the one that
//! the server sees. In axum the layer that is added *last* is outermost; in a `ServiceBuilder`, the first.
//!
//! | A layer that | inside this one | outside this one |
//! |---|---|---|
//! | compresses, encrypts, encodes (gRPC-Web) the body | the last byte out is the last byte | the tasks start when *our* last byte was read, before theirs is |
//! | buffers the body | the same | the tasks start when it is in the buffer |
//! | opens a span (`TraceLayer`) | is current where tasks are deferred; see [`on_defer`](crate::RunnerBuilder::on_defer) | the same |
//! | times out | its response, a 408 or an error, is a failure | drops our future: cancelled |
//! | catches panics | its response, a 500, is a failure | a panic, as it was |
//! | limits, sheds, authenticates | may defer (an audit of who was refused) | what it refuses never gets here |
//! | runs what is inside on a task of its own (a `tower::buffer::Buffer`, some frameworks: dioxus, salvo) | **there is no scope on that task**, so `defer` panics there: [`provide_handle`](AfterLayer::provide_handle) | the same as without |
//! | retries | all attempts are one request | each attempt is a request of its own |
//!
//! **Two of these layers** make two scopes, each with its own context, one inside the other. What a handler defers is
//! collected by the inner one. The outer one gets what is deferred by middleware between them, and starts it after the
//! inner one.
//!
//! **Around a whole `Router`**, outside a layer that rewrites the URI before it is routed, say, the type of the body
//! does not fit `axum::serve`, which takes axum's own. Put it back outside the layer:
//!
//! ```no_run
//! use after::tower::AfterLayer;
//! use axum::{Router, ServiceExt, body::Body, extract::Request, routing::get};
//! use tower::ServiceBuilder;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! let router: Router = Router::new().route("/", get(|| async { "hello" }));
//! let app = ServiceBuilder::new()
//!     .map_response(|response: http::Response<_>| response.map(Body::new))
//!     .layer(AfterLayer::new())
//!     // .layer(what rewrites the URI)
//!     .service(router);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, ServiceExt::<Request>::into_make_service(app)).await
//! # }
//! ```
//!
//! `Router::layer` needs none of this: it boxes the body itself. hyper takes any body: `AfterLayer::new().layer(router)`
//! in a `TowerToHyperService`.
//!
//! # The outcome
//!
//! Decided once, when the request ends:
//!
//! | When | [`outcome`](crate::outcome()) |
//! |---|---|
//! | the service returns an error | `Failed` |
//! | its future is dropped before it has resolved: hyper does so when the client disconnects | `Cancelled` |
//! | `call`, the future, the body or `failed_if` panics | `Panicked`; the panic propagates |
//! | the body returns an error | `Failed` |
//! | the body is complete, the status is below 400 (or as [`failed_if`](AfterLayer::failed_if) says) | `Finished` |
//! | the body is complete, the status is 400 or above (or as `failed_if` says) | `Failed` |
//! | the body is complete, with fewer bytes than the `content-length` header has announced | `Failed`, whatever the status |
//! | the body is dropped before it is complete | `Cancelled`, whatever the status |
//!
//! A body is complete when it has returned `None`, has said [`is_end_stream`], has delivered trailers, or has delivered as
//! many bytes as the `content-length` header, or otherwise the first exact [`size_hint`], has announced. The responses to HEAD
//! and to an accepted CONNECT, and those with a status of 204, 304 or 1xx are complete whatever was delivered. So a server may
//! stop to poll where it likes: hyper never polls a body of known length to its `None`.
//!
//! What ends before it has delivered what its `content-length` header has announced is broken for the client: servers break
//! off the connection or the stream. A wrong `size_hint` alone is not judged, because it tells the client nothing.
//!
//! Tasks never start while a data frame is being returned, not even the last.
//!
//! An **endless stream** (server-sent events) is dropped by the server when the client disconnects, so it always ends
//! as cancelled, and its tasks wait for that: [`RunAfter::Head`] is for those, best put by the handler into the extensions
//! of its response, where it overrides the layer's setting. An **upgraded connection** (WebSocket) is no
//! part of the request, which ends with the 101.
//!
//! **gRPC** always returns HTTP 200: [`AfterLayer::grpc`] reads its own status. It comes after the
//! message, so bytes alone don't make the body complete. With gRPC-Web put the layer inside the one that translates,
//! where trailers are trailers.
//!
//! # Written
//!
//! A server reads the last byte of the body before it has written it: it takes one large frame at once, and sends it as
//! fast as the client reads. With [`RunAfter::Written`] the tasks start when the server has also released every data frame: each is given out as [`Bytes::from_owner`](bytes::Bytes::from_owner) of a guard. It can't see
//!
//! - what a server copies: hyper does on HTTP/1 when its I/O has no vectored writes; h2 does with frames below 256 bytes,
//!   and without vectored writes below 1,024;
//! - what TLS has encrypted, and not sent yet: rustls keeps 64 kB by default;
//! - what a layer outside ours copies (compression does);
//! - what the kernel has taken, and the network not yet.
//!
//! The request ends with its body, as with [`RunAfter::Body`]: the outcome and the conditions are decided there, what
//! is not to run is dropped, and the tasks go to the spawner, where they wait for the last byte. Timeouts, and the queue
//! for permits, begin with that byte. What a [`Handle`](crate::Handle) defers meanwhile starts with the rest.
//!
//! No code of yours runs where the server drops a frame: no task, no destructor, no condition, no observer, no spawner. A
//! frame that goes marks, and the last one wakes the executor. (Data of a type of your own, made with `Bytes::from_owner`,
//! has its destructor run there, as without this crate.) Servers drop frames under locks of their own (h2 has one for
//! all streams of a connection), so whatever ran there and wanted such a lock would stop the connection forever.
//!
//! A frame that is kept forever, in a cache say, keeps the tasks of its request waiting forever.
//!
//! # What cannot be known
//!
//! Whether the client has *read* its response. "Out" means that the server read the last byte of the body, or wrote it.
//!
//! # Limits
//!
//! On a Runner with [backpressure](crate::Overflow::Backpressure) a request that has deferred tasks waits until the queue
//! has capacity for them, before its head is given out. From there on the duration depends on the client. So others wait
//! for the capacity reserved for each such response for at most 10 ms, half as long each time that this was in vain, and
//! then pass as if it was not reserved: a client that reads slowly, or never, holds back nobody else's response.
//!
//! When the body has ended the tasks have their capacity again, however long that took. Only a request that ends as
//! cancelled may have lost it: if the queue and what is reserved for others exceed 2 × `max_waiting`, the oldest
//! reservation goes first. Its tasks, and what the body has deferred, have no response to hold back: they are queued up to
//! 2 × `max_waiting`, then dropped. So the queue is bounded by that and by the requests that the server has in progress,
//! also those whose response is not written.
//!
//! # Cost
//!
//! A request that defers nothing pays no allocation; on a Runner that was given, one reference count; and for each
//! question of the server to the body (`is_end_stream`, `size_hint`) an uncontended lock, because a body may be
//! `Sync`. The body grows by at most 104 bytes, and the future by at most 104.
//!
//! # Without the layer
//!
//! It uses only what is public in this crate. For frameworks that it does not fit, an integration of your own is made of
//! the same parts: start at [`OpenScope`](crate::OpenScope).
//!
//! [tower]: https://docs.rs/tower
//! [`is_end_stream`]: http_body::Body::is_end_stream
//! [`size_hint`]: http_body::Body::size_hint

mod body;
mod exchange;
mod future;
mod layer;
mod progress;
mod request;
mod response;
mod service;
mod written;

pub use self::{
    body::AfterBody,
    future::AfterFuture,
    layer::{AfterLayer, RunAfter},
    request::RequestHead,
    response::ResponseHead,
    service::AfterService,
};
