//! The program, stopped with signals.

use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::{
    program::{Collector, Program},
    support::{Events, client, read, soon},
};

fn url(program: &Program, path: &str) -> String {
    format!("{}{path}", program.address)
}

const ITEM: [(&str, &str); 1] = [("item", "tea")];

#[tokio::test]
async fn a_signal_waits_for_what_was_deferred_and_the_page_shows_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut collector = Collector::start().await;
        let program = Program::start(&[("ANALYTICS_URL", &collector.url)]).await;
        let client = client();
        // Two of them: an open page does not keep the service from stopping.
        let mut events = Events::watch(&client, url(&program, "/events")).await;
        let mut other = Events::watch(&client, url(&program, "/events")).await;
        let (status, _) = read(client.post(url(&program, "/purchase")).form(&ITEM)).await;
        assert_eq!(status, 201);
        collector.asked().await;

        program.signal(signal);
        let waiting = |events: &Events| {
            events
                .lines
                .iter()
                .any(|line| line == "INFO stopping: waiting for analytics")
        };
        events.until("what is waited for", waiting).await;
        assert_eq!(events.phase, "stopping");
        assert!(!events.is_over("/purchase"));
        collector.answer();
        events
            .until("the end", |events| events.phase == "stopped")
            .await;
        assert!(events.is_over("/purchase"));
        assert!(!soon("the end of the stream", events.next()).await);
        other
            .until("the end", |events| events.phase == "stopped")
            .await;

        let (code, output) = program.ended().await;
        assert_eq!(code, Some(0), "{output}");
        assert!(
            output.contains("stopping: waiting for analytics"),
            "{output}"
        );
        assert!(output.contains("nothing unfinished; "), "{output}");
        // And both pages' visits.
        assert!(output.contains("deferred 3, completed 3, "), "{output}");
    }
}

#[tokio::test]
async fn what_is_cut_off_is_named_and_the_exit_code_says_so() {
    let mut collector = Collector::start().await;
    let program =
        Program::start(&[("ANALYTICS_URL", &collector.url), ("SHUTDOWN_MS", "200")]).await;
    let client = client();
    let mut events = Events::watch(&client, url(&program, "/events")).await;
    read(client.post(url(&program, "/purchase")).form(&ITEM)).await;
    collector.asked().await;
    program.signal(Signal::SIGTERM);
    let named = |line: &String| line.starts_with("ERROR 1 unfinished after 200ms: `analytics` (");
    events
        .until("the report", |events| events.lines.iter().any(named))
        .await;
    events
        .until("the end", |events| events.phase == "stopped")
        .await;
    let (code, output) = program.ended().await;
    assert_eq!(code, Some(2), "{output}");
    assert!(
        output.contains("ERROR 1 unfinished after 200ms: `analytics` (examples/shop/src/"),
        "{output}"
    );
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut collector = Collector::start().await;
    let program = Program::start(&[("ANALYTICS_URL", &collector.url)]).await;
    let client = client();
    let mut events = Events::watch(&client, url(&program, "/events")).await;
    read(client.post(url(&program, "/purchase")).form(&ITEM)).await;
    collector.asked().await;
    program.signal(Signal::SIGTERM);
    events
        .until("the first signal", |events| events.phase == "stopping")
        .await;
    program.signal(Signal::SIGTERM);
    let (code, output) = program.ended().await;
    assert_eq!(code, Some(3), "{output}");
    assert!(
        output.contains("WARN 1 unfinished after 0ns: `analytics` ("),
        "{output}"
    );
}

#[tokio::test]
async fn a_request_in_progress_is_answered_first() {
    let mut collector = Collector::start().await;
    let program = Program::start(&[("ANALYTICS_URL", &collector.url)]).await;
    let client = client();
    let mut events = Events::watch(&client, url(&program, "/events")).await;
    let request = client.post(url(&program, "/without/purchase")).form(&ITEM);
    let answer = tokio::spawn(read(request));
    collector.asked().await;
    program.signal(Signal::SIGTERM);
    events
        .until("the signal", |events| events.phase == "stopping")
        .await;
    collector.answer();
    assert_eq!(answer.await.unwrap().0, 201);
    // Tasks are not looked at before: the request could have deferred some.
    let waits = |events: &Events| {
        events
            .lines
            .iter()
            .any(|line| line.starts_with("INFO stopping: "))
    };
    events.until("what is waited for", waits).await;
    let request = events.request("/without/purchase").unwrap();
    assert_eq!(request["tasks"][0]["end"], "completed");
    assert_eq!(program.ended().await.0, Some(0));
}

/// SIGTERM gives it back, and that is no attempt. SIGKILL leaves it as it is: it is taken over when heartbeats are missed.
#[tokio::test]
async fn a_delivery_survives_the_process_that_was_at_it() {
    for (signal, code, attempts) in [(Signal::SIGTERM, Some(0), 3), (Signal::SIGKILL, None, 4)] {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("shop.db").display());
        // Takes deliveries, and never answers.
        let mut receiver = Collector::start().await;
        let receiver_url = receiver.url.clone();
        let settings = [
            ("DATABASE_URL", &*database),
            ("WEBHOOK_URL", &receiver_url),
            ("SHUTDOWN_MS", "100"),
        ];
        let program = Program::start(&settings).await;
        let form = [("order", "1")];
        let shipment = client().post(url(&program, "/shipments")).form(&form);
        assert_eq!(read(shipment).await.0, 201);
        receiver.asked().await;
        program.signal(signal);
        let (ended, output) = program.ended().await;
        assert_eq!(ended, code, "{output}");
        let given_back = output.contains("the worker stops: 1 job(s) given back: `webhook` ");
        assert_eq!(given_back, signal == Signal::SIGTERM, "{output}");

        // With a receiver that is down twice.
        let program = Program::start(&settings[..1]).await;
        let mut events = Events::watch(&client(), url(&program, "/events")).await;
        let done = |events: &Events| events.jobs[0]["state"] == "Done";
        events.until("the delivery", done).await;
        let job = &events.jobs[0];
        assert_eq!(job["payload"], r#"{"shipment":1,"order":1}"#);
        assert_eq!(
            (&job["attempts"], &job["left"]),
            (&attempts.into(), &true.into())
        );
        let got = r#"the receiver of webhooks has got {"event":"shipped","order":1}: attempt 3"#;
        let got = |events: &Events| events.lines.iter().any(|line| line.contains(got));
        events.until("the receiver's word", got).await;
        program.signal(Signal::SIGTERM);
        assert_eq!(program.ended().await.0, Some(0));
    }
}

#[tokio::test]
async fn a_setting_that_makes_no_sense_is_said_at_once() {
    for (name, value, message) in [
        ("PORT", "many", "PORT has to be a number up to 65535"),
        (
            "SMTP_URL",
            "localhost",
            "SMTP_URL has to be a URL like smtp://127.0.0.1:2525",
        ),
        (
            "CDN_URL",
            "https://cdn.example",
            "CDN_URL has to be a URL like http://127.0.0.1:8080/path",
        ),
        (
            "SHUTDOWN_MS",
            "long",
            "SHUTDOWN_MS has to be a number of milliseconds",
        ),
        (
            "DATABASE_URL",
            "sqlite:/no/such/folder/shop.db",
            "/no/such/folder/shop.db: unable to open",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        let output = command
            .env("PORT", "0")
            .env(name, value)
            .kill_on_drop(true)
            .output();
        let output = soon("its end", output).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(message), "{said}");
    }
}
