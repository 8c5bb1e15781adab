//! HTTP: a layer whose requests end with their response bodies. For axum, hyper, tonic, whatever is a [tower] service.
//! Feature `tower`.
//!
//! A scope around a handler ends when the handler has made its response. For a streamed answer or a large one that is
//! long before the client has it. Under [`AfterLayer`] a request ends when the server has taken the last byte of the
//! body, or when nobody will:
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
//!     after::defer(async { println!("the client has its answer") });
//!     "hello"
//! }
//!
//! let app: Router = Router::new().route("/", get(handler)).layer(AfterLayer::new());
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
//! | compresses, encrypts, encodes (gRPC-Web) the body | the last byte out is the last byte | the hand-over comes when *our* last byte was taken, before theirs is |
//! | buffers the body | the same | the hand-over comes when it is in the buffer |
//! | opens a span (`TraceLayer`) | is current where tasks are deferred; see [`on_defer`](crate::RunnerBuilder::on_defer) | the same |
//! | times out | its answer, a 408 or an error, is a failure | drops our future: cancelled |
//! | catches panics | its answer, a 500, is a failure | a panic, as it was |
//! | limits, sheds, authenticates | may defer (an audit of who was refused) | what it refuses is no request of ours |
//! | runs what is inside on a task of its own (a `tower::buffer::Buffer`, some frameworks: dioxus, salvo) | **there is no scope on that task**, so `defer` panics there: [`provide_handle`](AfterLayer::provide_handle) | the same as without |
//! | retries | all attempts are one request | each attempt is a request of its own |
//!
//! **Two of these layers** make two scopes, each with its own context, one inside the other. What a handler defers is
//! collected by the inner one. The outer one gets what is deferred by middleware between them, and hands it over after
//! the inner one has.
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
//! Decided once, at the hand-over:
//!
//! | When | [`outcome`](crate::outcome()) |
//! |---|---|
//! | the service returns an error | `Failed` |
//! | its future is dropped before it has resolved: hyper does so when the client goes | `Cancelled` |
//! | `call`, the future, the body or `failed_if` panics | `Panicked`; the panic goes on |
//! | the body returns an error | `Failed` |
//! | the body is complete, the status is below 400 (or as [`failed_if`](AfterLayer::failed_if) says) | `Finished` |
//! | the body is complete, the status is 400 or above (or as `failed_if` says) | `Failed` |
//! | the body is complete, with fewer bytes than the `content-length` header has announced | `Failed`, whatever the status |
//! | the body is dropped before it is complete | `Cancelled`, whatever the status |
//!
//! A body is complete when it has returned `None`, has said [`is_end_stream`], has delivered trailers, or has delivered as
//! many bytes as the `content-length` header, or else the first exact [`size_hint`], has announced. The answers to HEAD and
//! to an accepted CONNECT, and those with a status of 204, 304 or 1xx are complete whatever was delivered. So a server may
//! stop to poll where it likes: hyper never polls a body of known length to its `None`.
//!
//! What ends before it has delivered what its `content-length` header has announced is broken for the client: servers break
//! off the connection or the stream. A wrong `size_hint` alone is not judged, because it tells the client nothing.
//!
//! It ends earlier for nobody: while a data frame is being returned nothing is handed over, not even for the last one.
//!
//! An **endless stream** (server-sent events) is dropped by the server when the client goes, so it always ends as
//! cancelled, and its tasks wait for that: [`RunAfter::Head`] is for those, best put by the handler into the extensions
//! of its response, where it goes over what the layer says. An **upgraded connection** (WebSocket) is no
//! part of the request, which ends with the 101.
//!
//! **gRPC** is HTTP 200 whatever happens: [`AfterLayer::grpc`] reads its own status. It comes after the
//! message, so bytes alone don't make the body complete. With gRPC-Web put the layer inside the one that translates,
//! where trailers are trailers.
//!
//! # Written
//!
//! That the server has taken the last byte does not mean that it has written it: one large frame is taken at once, and
//! sent as fast as the client reads. With [`RunAfter::Written`] the tasks start when, besides, the server has let go of
//! every data frame: each is given out as [`Bytes::from_owner`](bytes::Bytes::from_owner) of a guard. It can't see
//!
//! - what a server copies: hyper does on HTTP/1 when its I/O has no vectored writes; h2 does with frames below 256 bytes,
//!   and without vectored writes below 1,024;
//! - what TLS has encrypted, and not sent yet: rustls keeps 64 kB by default;
//! - what a layer outside ours copies (compression does);
//! - what the kernel has taken, and the network not yet.
//!
//! The request ends with its body, as with [`RunAfter::Body`]: the outcome and the conditions are decided there, what
//! is not to run is dropped, and the tasks are handed over, to start with the last byte. Time limits, and the line for
//! permits, begin with that byte. What a [`Handle`](crate::Handle) defers meanwhile starts with the rest.
//!
//! No code of yours runs where the server drops a frame: no task, no destructor, no condition, no observer, no spawner. A
//! frame that goes marks, and the last one wakes the executor. (Data of a type of your own, made with `Bytes::from_owner`,
//! has its destructor run there, as without this crate.) Servers drop frames under locks of their own (h2 has one for
//! all streams of a connection), so whatever ran there and wanted such a lock would stop the connection for ever.
//!
//! A frame that is kept for ever, in a cache say, keeps the tasks of its request waiting for ever.
//!
//! # What nobody can promise
//!
//! That the client has *read* its answer. "Out" means that the server took the last byte, or wrote it.
//!
//! # Limits
//!
//! On a Runner that [pushes back](crate::Overflow::Backpressure) a request that has deferred something waits for room for
//! its tasks before its head is given out. From there on how long it takes is up to the client. So others
//! wait for the room of each such response for 10 ms at the most, for half as long each time that this was in vain, and
//! then pass as if it was not kept: a client that reads slowly, or never, does not hold anybody else's response.
//!
//! When the body has ended the tasks have their room again, however long that took. Only a request that ends as cancelled
//! may have lost it: if what waits and what is kept for others is more than twice `max_waiting`, the room that was kept
//! first goes first. Its tasks, and what the body has deferred, can't wait: they are accepted up to twice
//! `max_waiting`, and shed beyond. So what waits is bounded by that and by the requests that the server has in progress,
//! those included whose response is not written.
//!
//! # Cost
//!
//! A request that defers nothing pays no allocation; on a Runner that was given, one reference count; and for each
//! question of the server to the body (`is_end_stream`, `size_hint`) a lock that nobody else has, because a body may be
//! `Sync`. The body grows by 104 bytes at the most, and the future by 104.
//!
//! # Without the layer
//!
//! It uses nothing but what is public in this crate: for frameworks that it does not fit, an integration of your own is
//! made of the same parts. They begin at [`OpenScope`](crate::OpenScope).
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
