//! A worker that kills its own process in its first job, for tests of what becomes of that job.
//!
//!   cargo run -p after-apalis --example crash -- sqlite:jobs.db

use std::time::Duration;

use after_apalis::{Job, Jobs};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Receipt {
    order: i64,
}

impl Job for Receipt {
    const NAME: &'static str = "receipt";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the URL of a store")?;
    let jobs = Jobs::connect(&url).await?;
    let worker = jobs
        .worker()
        .heartbeat(Duration::from_secs(1), 2)
        .handle(|receipt: Receipt| async move {
            println!("order {}", receipt.order);
            // As SIGKILL does: nothing is said to the store, nothing is dropped.
            std::process::abort();
            #[allow(unreachable_code)]
            Ok::<_, std::io::Error>(())
        })
        .start()
        .await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    println!("{}", worker.shutdown(Duration::from_secs(1)).await);
    Ok(())
}
