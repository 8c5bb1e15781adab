//! `capture_request`: what tasks know of the request. Sentence 24, rows N11 and N12.

use std::convert::Infallible;

use after::{
    context,
    tower::{AfterLayer, RequestHead},
};
use http::{HeaderValue, Method, Request, Response, Version};
use tower::{Service, ServiceBuilder};

use crate::{
    common::{Log, keeping, now_or_never},
    script::{Script, run_one},
};

/// What the layer captures of a request.
fn captured(request: Request<()>) -> RequestHead {
    let mut captured = None;
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(keeping().0).capture_request())
        .service_fn(|_: Request<()>| {
            captured = context::get::<RequestHead>();
            async { Ok::<_, Infallible>(Response::new(Script::new())) }
        });
    drop(now_or_never(service.call(request)));
    drop(service);
    captured.unwrap()
}

/// Sentence 24, row N11: method, URI, version, headers and cookies, as they were before the handler.
#[test]
fn a_task_reads_the_request_as_it_was_before_the_handler() {
    let (runner, batches) = keeping();
    let log = Log::new();
    let noting = log.clone();
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(runner).capture_request())
        .service_fn(move |mut request: Request<()>| {
            request.headers_mut().clear();
            *request.uri_mut() = "/rewritten".parse().unwrap();
            let log = noting.clone();
            after::defer(async move {
                let head: RequestHead = context::get().unwrap();
                log.add(format!(
                    "{} {} {:?}",
                    head.method(),
                    head.uri(),
                    head.version()
                ));
                log.add(head.headers()["user-agent"].to_str().unwrap());
                log.add(head.cookie("session").unwrap());
            });
            async { Ok::<_, Infallible>(Response::new(Script::new().says_end())) }
        });
    let request = Request::builder()
        .method(Method::POST)
        .uri("/buy?item=7")
        .version(Version::HTTP_2)
        .header("user-agent", "test/1")
        .header("cookie", "theme=dark; session=abc")
        .body(())
        .unwrap();
    drop(now_or_never(service.call(request)));
    assert_eq!(
        run_one(&batches, &log),
        ["POST /buy?item=7 HTTP/2.0", "test/1", "abc"]
    );
}

/// Sentence 24: not taken when not asked for.
#[test]
fn without_capture_request_there_is_none() {
    let mut seen = None;
    let mut service = ServiceBuilder::new()
        .layer(AfterLayer::with_runner(keeping().0))
        .service_fn(|_: Request<()>| {
            seen = Some(context::get::<RequestHead>().is_none());
            async { Ok::<_, Infallible>(Response::new(Script::new())) }
        });
    drop(now_or_never(service.call(Request::new(()))));
    drop(service);
    assert_eq!(seen, Some(true));
}

/// Sentence 24: HTTP/2 may send a header for each cookie; names are exact, values are as sent.
#[test]
fn cookies_are_found_wherever_they_stand() {
    let head = captured(
        Request::builder()
            .header("cookie", " a=1;b = 2 ; quoted=\"x=y\"; empty=; flag")
            .header("cookie", "a=second; c=%20")
            .header("cookie", HeaderValue::from_bytes(b"bad=\xff").unwrap())
            .header("cookie", "last=1")
            .body(())
            .unwrap(),
    );
    let cookies = [
        "a", "b", "quoted", "empty", "flag", "c", "last", "A", "bad", "",
    ];
    let values = cookies.map(|name| head.cookie(name));
    assert_eq!(
        values,
        [
            Some("1"),
            Some("2"),
            Some("\"x=y\""),
            Some(""),
            None,
            Some("%20"),
            Some("1"),
            None,
            None,
            None
        ]
    );
}

/// Sentence 24: `Debug` hides credentials, wherever they stand.
#[test]
fn debug_hides_credentials() {
    let mut marked = HeaderValue::from_static("hunter2");
    marked.set_sensitive(true);
    let head = captured(
        Request::builder()
            .uri("https://user:hunter2@example.com:8443/path?token=hunter2")
            .header("authorization", "Bearer hunter2")
            .header("proxy-authorization", "Basic hunter2")
            .header("Cookie", "session=hunter2")
            .header("set-cookie", "session=hunter2")
            .header("x-api-key", marked)
            .header("accept", "text/html")
            .body(())
            .unwrap(),
    );
    let shown = format!("{head:?} {head:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    for part in [
        "GET",
        "https://example.com:8443/path?..",
        "HTTP/1.1",
        "accept",
        "text/html",
        "authorization",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

/// Sentence 24: cheap to clone: all clones are the same snapshot.
#[test]
fn clones_are_the_same_snapshot() {
    let head = captured(Request::new(()));
    assert!(std::ptr::eq(head.headers(), head.clone().headers()));
}
