//! Requests that are not HTTP: what the request is there, and so where its scope belongs.
//!
//! | | One scope for | Its tasks run |
//! |---|---|---|
//! | a WebSocket | each message. The upgrade is a request of its own, which ends with the 101; a scope for the whole connection would keep all tasks until the client disconnects | when the reply to that message is sent |
//! | a consumer of messages | each message, its acknowledgement included, or each batch that is acknowledged as one | when the broker has its acknowledgement. What must not be lost with the process is done before that, and not deferred |
//! | a command | the command: `main` is one scope, and `shutdown` is awaited before it exits | when the result is printed |
//! | a loop, as cron runs things | each round. A scope around the loop never ends, and runs nothing | when the round ends |
//!
//! The rule: a scope is for what somebody waits for. It ends where the reply is sent, printed, acknowledged or stored.
//!
//! `cargo run --example not_http` does each of the four, and ends.

use std::{io, num::ParseIntError, process, sync::Mutex, time::Duration};

use after::{Outcome, Runner, tower::AfterLayer};
use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::Response,
    routing::get,
};
use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::interval,
};
use tokio_tungstenite::{client_async, tungstenite};

const LIMIT: Duration = Duration::from_secs(10);

/// What the tasks have done, for the end of this program to look at.
static DONE: Mutex<Vec<(&str, Option<Outcome>)>> = Mutex::new(Vec::new());

/// Defers a line of the log.
fn log(what: &'static str) {
    after::task(what).defer(async move {
        println!("  {what}: {:?}", after::outcome());
        DONE.lock().unwrap().push((what, after::outcome()));
    });
}

// ---- A WebSocket ----

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    log("somebody has connected"); // runs with the 101
    // The messages are requests of the same Runner: one set of statistics, one shutdown.
    let runner = after::handle().runner();
    upgrade.on_upgrade(move |socket| talk(socket, runner))
}

async fn talk(mut socket: WebSocket, runner: Runner) {
    let mut stopping = after::stopping();
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            // The server stops: no request is in progress between two messages.
            () = &mut stopping => break,
        };
        let Some(Ok(Message::Text(text))) = message else {
            break;
        };
        // The reply is in the scope, so that the tasks of the message run when it is sent.
        let request = async {
            let reply = reply(&text);
            socket.send(Message::text(reply)).await
        };
        if runner
            .scope(request)
            .failed_if(Result::is_err)
            .await
            .is_err()
        {
            break;
        }
    }
}

fn reply(text: &str) -> String {
    log("a message was answered");
    text.to_uppercase()
}

/// A client says two things, and goes.
async fn websocket() -> io::Result<()> {
    println!("a WebSocket:");
    let app = Router::new()
        .route("/", get(upgrade))
        .layer(AfterLayer::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async { axum::serve(listener, app).await });

    let socket = TcpStream::connect(address).await?;
    let (mut client, _) = client_async(format!("ws://{address}/"), socket)
        .await
        .map_err(io::Error::other)?;
    for (said, expected) in [("hello", "HELLO"), ("bye", "BYE")] {
        client
            .send(tungstenite::Message::text(said))
            .await
            .map_err(io::Error::other)?;
        let answer = client
            .next()
            .await
            .expect("an answer")
            .map_err(io::Error::other)?;
        assert_eq!(answer.into_text().unwrap().as_str(), expected);
    }
    drop(client);
    Runner::global().drain().await;
    server.abort();
    Ok(())
}

// ---- A consumer of messages ----

/// What a broker's client hands out: a message, and how it is acknowledged. Here the broker is a queue of this process.
struct Delivery {
    body: &'static str,
    ack: oneshot::Sender<()>,
}

async fn consume(mut deliveries: mpsc::Receiver<Delivery>) {
    while let Some(Delivery { body, ack }) = deliveries.recv().await {
        let request = async move {
            store(body)?;
            // Without it the broker delivers again.
            let _ = ack.send(());
            Ok::<_, ParseIntError>(())
        };
        // A failed message is not acknowledged, and its tasks see that it has failed.
        let _ = after::scope(request).failed_if(Result::is_err).await;
    }
}

fn store(body: &str) -> Result<(), ParseIntError> {
    log("a message was consumed");
    let amount: u32 = body.parse()?;
    println!("  stored {amount}");
    Ok(())
}

async fn consumer() {
    println!("a consumer:");
    let (deliver, deliveries) = mpsc::channel(8);
    let consumer = tokio::spawn(consume(deliveries));
    for (body, is_good) in [("7", true), ("seven", false)] {
        let (ack, acknowledged) = oneshot::channel();
        assert!(deliver.send(Delivery { body, ack }).await.is_ok());
        assert_eq!(acknowledged.await.is_ok(), is_good);
    }
    drop(deliver);
    consumer.await.unwrap();
    Runner::global().drain().await;
}

// ---- A command ----

async fn command(arguments: &[&str]) -> Result<(), ParseIntError> {
    log("the command was used");
    let sum: Result<u32, _> = arguments
        .iter()
        .map(|argument| argument.parse::<u32>())
        .sum();
    println!("  sum: {}", sum?);
    Ok(())
}

// ---- A loop, as cron runs things ----

async fn clean_up(round: u32) {
    log("a round is over");
    println!("  round {round}");
}

/// Until `stopping`; here for as many rounds.
async fn every_ten_milliseconds(rounds: u32) {
    let mut stopping = after::stopping();
    let mut ticks = interval(Duration::from_millis(10));
    for round in 1..=rounds {
        tokio::select! {
            _ = ticks.tick() => after::scope(clean_up(round)).await,
            () = &mut stopping => break,
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    websocket().await?;
    consumer().await;
    println!("a command:");
    let result = after::scope(command(&["1", "2", "39"]))
        .failed_if(Result::is_err)
        .await;
    assert!(result.is_ok());
    println!("a loop:");
    every_ten_milliseconds(3).await;

    // For all four alike: what is deferred is waited for before the process ends.
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    let finished = |what| (what, Some(Outcome::Finished));
    let mut done = DONE.lock().unwrap().clone();
    // In any order: those of different requests have none.
    done.sort_by_key(|done| format!("{done:?}"));
    let mut expected = vec![
        finished("somebody has connected"),
        finished("a message was answered"),
        finished("a message was answered"),
        finished("a message was consumed"),
        ("a message was consumed", Some(Outcome::Failed)),
        finished("the command was used"),
        finished("a round is over"),
        finished("a round is over"),
        finished("a round is over"),
    ];
    expected.sort_by_key(|done| format!("{done:?}"));
    assert_eq!(done, expected);
    process::exit(if report.is_clean() { 0 } else { 2 })
}
