//! An axum service of one route, without `after` and with it: see `benches/binary/run.sh`. All else is the same: it ends
//! within a limit when it is told to.

use std::{process, time::Duration};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, signal::ctrl_c, time::sleep};

const LIMIT: Duration = Duration::from_secs(10);

async fn audit() {
    println!("audit");
}

async fn hello() -> &'static str {
    #[cfg(not(feature = "slim"))]
    tokio::spawn(audit());
    #[cfg(feature = "slim")]
    after::defer(audit());
    "hello\n"
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new().route("/", get(hello));
    #[cfg(feature = "slim")]
    let app = app.layer(after::tower::AfterLayer::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = ctrl_c().await;
        #[cfg(feature = "slim")]
        after::stop();
    });
    let last_moment = async {
        let _ = ctrl_c().await;
        sleep(LIMIT).await;
    };
    tokio::select! {
        ended = server.into_future() => ended?,
        () = last_moment => println!("connections are still open"),
    }
    #[cfg(feature = "slim")]
    println!("{}", after::shutdown(LIMIT).await);
    process::exit(0)
}
