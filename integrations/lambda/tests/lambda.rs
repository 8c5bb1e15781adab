//! Functions as real processes, under an emulator of the platform that freezes them.
#![cfg(target_os = "linux")]

mod emulator;

use std::{convert::Infallible, sync::Mutex, time::Duration};

use after::Outcome;
use after_lambda::{AfterLambdaLayer, OutcomeLayer};
use axum::{
    body::{Body, Bytes},
    http::{Request, Response},
};
use emulator::{Function, Seen};
use futures_util::stream;
use http_body_util::BodyExt;
use lambda_runtime::{Context, Error, LambdaInvocation, service_fn};
use serde_json::json;
use tower_layer::Layer;
use tower_service::Service;

const LONG: Duration = Duration::from_secs(60);

fn mark(what: &str) -> Seen {
    Seen::Mark(what.to_owned())
}

fn response(invocation: u64, body: &str) -> Seen {
    Seen::Response(invocation, body.to_owned())
}

/// The promise: the client has its answer before the work has begun, and the process is frozen when it has ended.
#[tokio::test]
async fn deferred_work_is_between_the_response_and_the_freeze() {
    let mut function = Function::start("function", "buffered").await;
    for nth in 1..=2 {
        function.sees_nth(Seen::Next, nth as usize).await;
        assert!(function.is_frozen());
        let invocation = function.get("/after");
        let answered = function.sees(response(invocation, "the answer")).await;
        let begun = function.sees_nth(mark("wait: begun"), nth as usize).await;
        function.release();
        let ended = function.sees_nth(mark("ended"), nth as usize).await;
        let frozen = function.sees_nth(Seen::Next, nth as usize + 1).await;
        assert!(
            answered < begun && begun < ended && ended < frozen,
            "{:#?}",
            function.log()
        );
    }
}

/// The contrast: the same work by `tokio::spawn` is frozen where it is, and goes on with somebody else's invocation.
#[tokio::test]
async fn the_same_work_spawned_is_frozen_in_the_middle() {
    let mut function = Function::start("function", "buffered").await;
    function.sees(Seen::Next).await;
    let invocation = function.get("/spawn");
    function.sees(response(invocation, "the answer")).await;
    function.sees(mark("wait: begun")).await;
    // The work has begun and has not ended, and nobody has waited for it.
    function.sees_nth(Seen::Next, 2).await;
    function.release();
    assert!(function.is_frozen());
    let thawed = function.get("/other");
    let (mut frozen, step) = (3, mark("step 0"));
    function.sees_nth(Seen::Next, frozen).await;
    // Each invocation of others takes it a little further, or not.
    while frozen < 100 && !function.log().contains(&step) {
        function.get("/other");
        frozen += 1;
        function.sees_nth(Seen::Next, frozen).await;
    }
    let thawed = function.sees(Seen::Event(thawed)).await;
    let goes_on = function.sees(step).await;
    assert!(thawed < goes_on, "{:#?}", function.log());
}

/// What is unfinished shortly before the deadline is lost, and named while there is still time for it.
#[tokio::test]
async fn the_deadline_cuts_off_what_is_unfinished_and_names_it() {
    let mut function = Function::start("function", "buffered").await;
    function.sees(Seen::Next).await;
    let invocation = function.get_within("/endless", Duration::from_secs(2));
    function.sees(response(invocation, "the answer")).await;
    function.sees(mark("quick")).await;
    function.sees(mark("begun")).await;
    function.sees_nth(Seen::Next, 2).await;
    assert!(function.is_frozen());
    // Frozen: whatever it has written, it wrote before.
    function
        .logs("the deadline of invocation 1 cuts off 1 unfinished: `endless`")
        .await;
    function
        .logs("`endless` (integrations/lambda/examples/function.rs:")
        .await;
    assert!(
        !function.errors().contains("quick"),
        "{}",
        function.errors()
    );
}

async fn tells(kind: &str, path: &str, outcome: &str) -> Function {
    let mut function = Function::start("function", kind).await;
    function.sees(Seen::Next).await;
    match kind {
        "events" => function.invoke(json!({ "do": path }), LONG),
        _ => function.get(path),
    };
    function.sees(mark(&format!("audit: {outcome}"))).await;
    let sibling = match outcome {
        "Finished" => "receipt",
        _ => "alarm",
    };
    function.sees(mark(sibling)).await;
    function.sees_nth(Seen::Next, 2).await;
    let log = function.log();
    let marks: Vec<_> = log
        .iter()
        .filter(|seen| matches!(seen, Seen::Mark(_)))
        .collect();
    let of_the_body = marks
        .iter()
        .filter(|seen| ***seen == mark("from the body"))
        .count();
    assert_eq!(marks.len() - of_the_body, 2, "{log:#?}");
    let answered = |seen: &Seen| matches!(seen, Seen::Response(..) | Seen::Error(..));
    let place = log.iter().position(answered).expect("answered");
    let first = log
        .iter()
        .position(|seen| matches!(seen, Seen::Mark(_)))
        .expect("told");
    // A layer of the router's own does not know when the answer has been sent.
    assert!(place < first || kind == "layered", "{log:#?}");
    function
}

/// Conditions and outcomes are those of HTTP.
#[tokio::test]
async fn a_response_below_400_is_finished() {
    let function = tells("buffered", "/ok", "Finished").await;
    function.sees(response(1, "the answer")).await;
}

#[tokio::test]
async fn an_error_response_is_failed() {
    let function = tells("buffered", "/fail", "Failed").await;
    function.sees(response(1, "it went wrong")).await;
}

#[tokio::test]
async fn a_panic_is_panicked() {
    let function = tells("buffered", "/panic", "Panicked").await;
    let log = function.log();
    let told = |seen: &Seen| matches!(seen, Seen::Error(1, error) if error.contains("a handler that panics"));
    assert!(log.iter().any(told), "{log:#?}");
}

/// The body runs on a task of the runtime's own: it defers all the same, and the end of the request is its end.
#[tokio::test]
async fn a_streamed_response_ends_with_its_body() {
    let function = tells("streamed", "/stream", "Finished").await;
    let answered = function.sees(response(1, "one two three")).await;
    let from_the_body = function.sees(mark("from the body")).await;
    let frozen = function.sees_nth(Seen::Next, 2).await;
    assert!(
        answered < from_the_body && from_the_body < frozen,
        "{:#?}",
        function.log()
    );
}

#[tokio::test]
async fn a_stream_that_breaks_is_failed() {
    tells("streamed", "/broken", "Failed").await;
}

/// A router that is served elsewhere, too, has its own scopes. Where the platform freezes they are waited for.
#[tokio::test]
async fn tasks_of_scopes_inside_the_invocation_are_waited_for() {
    tells("layered", "/ok", "Finished").await;
    tells("layered", "/fail", "Failed").await;
    tells("layered", "/panic", "Panicked").await;
    tells("layered", "/stream", "Finished").await;
    let mut function = Function::start("function", "layered").await;
    function.sees(Seen::Next).await;
    function.get("/after");
    function.sees(response(1, "the answer")).await;
    function.release();
    let ended = function.sees(mark("ended")).await;
    let frozen = function.sees_nth(Seen::Next, 2).await;
    assert!(ended < frozen, "{:#?}", function.log());
}

/// They are not this crate's to drop: they are named and frozen.
#[tokio::test]
async fn the_deadline_names_what_a_scope_inside_has_left() {
    let mut function = Function::start("function", "layered").await;
    function.sees(Seen::Next).await;
    function.get_within("/endless", Duration::from_secs(2));
    function.sees(mark("begun")).await;
    function.sees_nth(Seen::Next, 2).await;
    assert!(function.is_frozen());
    let named =
        "at the deadline of invocation 1 `endless` (integrations/lambda/examples/function.rs:";
    function.logs(named).await;
}

/// The runtime drops a stream when the platform has broken off the response.
#[tokio::test]
async fn a_body_that_is_dropped_before_its_end_is_cancelled() {
    static TOLD: Mutex<Option<Outcome>> = Mutex::new(None);

    async fn handler(_: Request<()>) -> Result<Response<Body>, Infallible> {
        after::defer(async { *TOLD.lock().unwrap() = after::outcome() });
        let pieces = stream::repeat_with(|| Ok::<_, Infallible>("again "));
        Ok(Response::new(Body::from_stream(pieces)))
    }

    let runtime = service_fn(|_: LambdaInvocation| async {
        let mut app = OutcomeLayer::new().layer(service_fn(handler));
        let mut body = app.call(Request::new(())).await?.into_body();
        let piece = body.frame().await.expect("a piece")?;
        assert_eq!(piece.into_data().expect("data"), "again ");
        assert_eq!(*TOLD.lock().unwrap(), None);
        Ok::<_, Error>(())
    });
    let mut service = AfterLambdaLayer::new().layer(runtime);
    let mut context = Context::default();
    context.deadline = u64::MAX / 1_000_000;
    let (parts, body) = Response::new(Bytes::new()).into_parts();
    let invocation = LambdaInvocation {
        parts,
        body,
        context,
    };
    service.call(invocation).await.expect("sent");
    assert_eq!(*TOLD.lock().unwrap(), Some(Outcome::Cancelled));
}

/// The margin is taken off the time that is left.
#[tokio::test]
async fn a_margin_longer_than_the_time_limit_leaves_no_time() {
    let mut function = Function::start_with_margin("function", "buffered", LONG * 2).await;
    function.sees(Seen::Next).await;
    function.get("/endless");
    function.sees(response(1, "the answer")).await;
    function.sees_nth(Seen::Next, 2).await;
    let named = "the deadline of invocation 1 cuts off 2 unfinished: ";
    function.logs(named).await;
    let told = |seen: &Seen| matches!(seen, Seen::Mark(_));
    assert!(!function.log().iter().any(told), "{:#?}", function.log());
}

#[tokio::test]
async fn an_event_has_the_outcome_of_its_handler() {
    tells("events", "answer", "Finished").await;
    tells("events", "fail", "Failed").await;
    tells("events", "panic", "Panicked").await;
}

/// Under concurrent invocations each waits for its own tasks only.
#[tokio::test]
async fn an_invocation_does_not_wait_for_the_tasks_of_another() {
    let mut function = Function::start_concurrent("function", "concurrent", 2).await;
    function.sees_nth(Seen::Next, 2).await;
    let slow = function.get("/after");
    function.sees(response(slow, "the answer")).await;
    function.sees(mark("wait: begun")).await;
    for nth in 0..3 {
        let quick = function.get("/quick");
        function.sees(response(quick, "the answer")).await;
        function.sees_nth(mark("quick"), nth + 1).await;
        // By the one that is free: the other is not done.
        function.sees_nth(Seen::Next, nth + 3).await;
    }
    function.release();
    let ended = function.sees(mark("ended")).await;
    let free = function.sees_nth(Seen::Next, 6).await;
    assert!(ended < free, "{:#?}", function.log());
}

/// SIGTERM ends what waits for `stopping`, and the process when all is done.
#[tokio::test]
async fn sigterm_ends_with_a_shutdown() {
    let mut function = Function::start("function", "buffered").await;
    function.sees(Seen::Next).await;
    function.get("/until-stopped");
    function.sees(mark("begun")).await;
    function.terminate();
    function.sees(mark("stopped")).await;
    assert!(function.ends().await.success());
    function.says("nothing unfinished").await;
}

/// The program of the documentation.
#[tokio::test]
async fn the_example_runs_its_task_before_the_freeze_and_ends_at_sigterm() {
    let mut function = Function::start("order", "").await;
    function.sees(Seen::Next).await;
    function.get("/order");
    function.sees(response(1, "ordered")).await;
    function.sees_nth(Seen::Next, 2).await;
    assert!(function.is_frozen());
    function.says("the client has its answer").await;
    function.terminate();
    assert!(function.ends().await.success());
}

/// What the page of the documentation and the README show is the example, which the test above runs.
#[test]
fn the_program_of_the_documentation_is_the_example() {
    let example = include_str!("../examples/order.rs");
    let (_, program) = example.split_once("\n\n").expect("a header");
    let page = include_str!("../../../docs/serverless.md");
    assert!(page.contains(program), "{program}");
    let readme = include_str!("../README.md");
    assert!(readme.contains(program), "{program}");
}
