//! How a request ends where a body's destructor does.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use actix_web::{
    App, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    test, web,
};
use after::{Outcome, testing::Recorder};
use after_actix::After;

/// A body without an end, whose destructor panics.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("the body's destructor");
    }
}

impl MessageBody for PanicsOnDrop {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<web::Bytes, Infallible>>> {
        Poll::Pending
    }
}

/// A panic of the body's destructor is caught and reported, because the body may be dropped while a panic unwinds; the request
/// has been cancelled, and its tasks run.
#[actix_web::test]
async fn a_body_whose_destructor_panics_ends_its_request() {
    let recorder = Recorder::new();
    let outcomes: Arc<Mutex<Vec<Option<Outcome>>>> = Arc::default();
    let notes = outcomes.clone();
    let handler = move || {
        let notes = notes.clone();
        after::defer(async move { notes.lock().unwrap().push(after::outcome()) });
        async { HttpResponse::Ok().body(BoxBody::new(PanicsOnDrop)) }
    };
    let app = App::new()
        .wrap(After::with_runner(recorder.runner()))
        .route("/", web::get().to(handler));
    let service = test::init_service(app).await;
    let response = test::call_service(&service, test::TestRequest::get().to_request()).await;
    assert!(recorder.is_empty(), "the body is here");
    drop(response);
    recorder.run().await;
    assert_eq!(*outcomes.lock().unwrap(), [Some(Outcome::Cancelled)]);
}
