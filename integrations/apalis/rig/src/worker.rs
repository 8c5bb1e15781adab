use std::{sync::Arc, time::Duration};

use after_apalis::{Backoff, Jobs, Running};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Error,
    job::{HEARTBEAT, MISSED, Receipt},
    ledger::Ledger,
};

pub(crate) async fn run(url: &str, ledger: &str) -> Result<(), Error> {
    let mut term = signal(SignalKind::terminate())?;
    let jobs = Jobs::connect(url).await?;
    let ledger = Arc::new(Ledger::open(ledger)?);
    let worker = jobs
        .worker()
        .heartbeat(HEARTBEAT, MISSED)
        .backoff(Backoff::new(
            Duration::from_millis(200),
            Duration::from_secs(1),
        ))
        .handle(move |receipt: Receipt| {
            let ledger = ledger.clone();
            async move {
                let running = after::context::get::<Running>().expect("in a job");
                tokio::time::sleep(Duration::from_millis(fastrand::u64(5..50))).await;
                if receipt.kills() {
                    std::process::abort();
                }
                if receipt.fails() || (receipt.fails_once() && running.attempt == 1) {
                    return Err("the printer is on fire");
                }
                ledger.write("done", receipt.order, "-");
                Ok(())
            }
        })
        .start()
        .await?;
    term.recv().await;
    worker.shutdown(Duration::from_secs(2)).await;
    Ok(())
}
