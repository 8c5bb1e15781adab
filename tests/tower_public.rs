//! The layer is an integration like others: it uses the crate's public API alone.
//!
//! Its sources are compiled here once more, as a crate outside would have them: `crate::` is this test, whose root has what is
//! public in `after` and nothing else. Whatever of the inside the layer used, a path or a method, would not compile.
#![cfg(feature = "tower")]

mod common;

use std::{convert::Infallible, pin::pin, task::Poll};

// All that the layer's sources may find at the root of their crate.
#[allow(unused_imports)]
use after::*;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use self::common::{keeping, poll_once, polls_to_end};

#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../src/tower/mod.rs"]
mod tower;

/// Sentences 8, 22 and 22b: as such it works: a request ends with its body, and its tasks start with the last byte.
#[test]
fn the_layer_works_as_a_crate_outside() {
    let (runner, batches) = keeping();
    let layer = self::tower::AfterLayer::with_runner(runner.clone())
        .run_after(self::tower::RunAfter::Written);
    let mut service = layer.layer(::tower::service_fn(|_: Request<()>| async {
        after::defer(async { assert_eq!(after::outcome(), Some(Outcome::Finished)) });
        Result::<_, Infallible>::Ok(Response::new(Full::new(bytes::Bytes::from_static(b"data"))))
    }));
    let Poll::Ready(Result::Ok(response)) = poll_once(pin!(service.call(Request::new(())))) else {
        panic!("it answers at once");
    };
    let mut body = pin!(response.into_body());
    let next = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
    let Poll::Ready(Some(Result::Ok(frame))) = poll_once(pin!(next)) else {
        panic!("there is a frame");
    };
    body.set(self::tower::AfterBody::default());
    let mut batch = batches.take_one();
    for _ in 0..3 {
        assert!(poll_once(pin!(&mut batch)).is_pending());
    }
    drop(frame);
    polls_to_end(&mut batch, 3);
    assert_eq!(runner.stats().completed, 1);
}
