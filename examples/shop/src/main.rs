//! `cargo run -p shop`: see the README.
//!
//! | Exit code | |
//! |---|---|
//! | 0 | stopped by SIGTERM or SIGINT, and nothing was lost |
//! | 1 | it could not start, or the server failed |
//! | 2 | tasks were unfinished at the limit; the report names them |
//! | 3 | a second signal: nothing was waited for any longer |

use std::{process::ExitCode, time::Duration};

use after::BoxError;
use shop::{Config, Feed, Shop};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let feed = Feed::default();
    shop::log::start(feed.clone());
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(feed));
    // With a limit: a runtime that is dropped waits for closures that are stuck. Unfinished tasks are dropped here, and
    // with them the shop's temporary files.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(feed: Feed) -> Result<ExitCode, BoxError> {
    let config = Config::from_env()?;
    // From here on a signal no longer ends the process by itself.
    let mut signals = Signals::new()?;
    let shop = Shop::start(&config, feed).await?;
    println!(
        "The shop is open: http://{}\nStop it with Ctrl-C.",
        shop.address
    );

    signals.next().await;
    let runner = shop.runner.clone();
    tokio::select! {
        report = shop.stop(config.shutdown_limit) => match report?.is_clean() {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(ExitCode::from(2)),
        },
        () = signals.next() => {
            tracing::warn!("{}", runner.shutdown(Duration::ZERO).await);
            Ok(ExitCode::from(3))
        }
    }
}

/// The signals that ask a service to stop. One that comes while nobody waits is kept.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        let interrupt = tokio::signal::windows::ctrl_c()?;
        Ok(Signals { interrupt })
    }

    async fn next(&mut self) {
        self.interrupt.recv().await;
    }
}
