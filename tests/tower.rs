//! The layer, polled by hand: what its scope spans, and when and how its requests end.
//!
//! On real servers and sockets: `http`.
#![cfg(feature = "tower")]

mod common;
use after::tower::AfterLayer;
use http_body_util::{BodyExt, Full};
use tower::{ServiceBuilder, ServiceExt};

#[test]
fn smoke() {
    let (runner, batches) = common::keeping();
    let service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner.clone()))
        .service_fn(|_: http::Request<()>| async {
            after::defer(async {});
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(bytes::Bytes::from(
                "hello",
            ))))
        });
    let response = common::now_or_never(service.oneshot(http::Request::new(()))).unwrap();
    assert_eq!(batches.len(), 0);
    let mut body = response.into_body();
    let frame = common::now_or_never(body.frame()).unwrap().unwrap();
    assert_eq!(frame.data_ref().unwrap(), "hello");
    assert_eq!(batches.len(), 0);
    drop(body);
    assert_eq!(batches.len(), 1);
}
