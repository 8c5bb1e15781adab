//! One of the frameworks, on port 8080, until SIGTERM.

use std::{env, io, process, time::Duration};

use after::tower::AfterLayer;
use frameworks_example::{async_graphql, dioxus, jsonrpsee, leptos, loco, warp};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// For the server's last requests, and again for the tasks that they leave behind.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> io::Result<()> {
    let framework = env::args().nth(1);
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    let layer = AfterLayer::new();
    let server = async {
        match framework.as_deref() {
            Some("async-graphql") => async_graphql::serve(listener, layer, after::stopping()).await,
            Some("dioxus") => dioxus::serve(listener, layer, after::stopping()).await,
            Some("jsonrpsee") => jsonrpsee::serve(listener, layer, after::stopping()).await?,
            Some("leptos") => leptos::serve(listener, layer, after::stopping()).await,
            Some("loco") => loco::serve(listener, after::stopping()).await,
            Some("warp") => warp::serve(warp::routes(), listener, layer, after::stopping()).await,
            _ => println!("which one? async-graphql, dioxus, jsonrpsee, leptos, loco, warp"),
        }
        io::Result::Ok(())
    };
    let last_moment = async {
        terminate.recv().await;
        after::stop();
        tokio::time::sleep(LIMIT).await;
    };
    tokio::select! {
        ended = server => ended?,
        () = last_moment => println!("connections are still open"),
    }
    let report = after::shutdown(LIMIT).await;
    println!("{report}");
    process::exit(if report.is_clean() { 0 } else { 2 })
}
