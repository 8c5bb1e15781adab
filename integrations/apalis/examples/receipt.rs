//! The program of the README, word for word: an order and the job that sends its receipt, in one transaction.
//!
//! Run it with `cargo run -p after-apalis --example receipt`, and stop it with Ctrl-C or SIGTERM. It makes a file `shop.db`.

use std::{error::Error, io, time::Duration};

use after_apalis::{Job, Jobs};
use serde::{Deserialize, Serialize};
use tokio::select;
use tokio::signal::{ctrl_c, unix::SignalKind, unix::signal};

#[derive(Serialize, Deserialize)]
struct Receipt {
    order: i64,
}

impl Job for Receipt {
    const NAME: &'static str = "receipt";
}

/// An `Err` is tried again later, up to 25 attempts. What was done may be done once more.
async fn send(receipt: Receipt) -> io::Result<()> {
    println!("the receipt of order {}", receipt.order);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let jobs = Jobs::connect("sqlite:shop.db").await?; // or postgres://.., redis://..
    let worker = jobs.worker().handle(send).start().await?;

    let mut tx = jobs.sqlite().expect("it is SQLite").begin().await?;
    let table = "CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY)";
    sqlx::query(table).execute(&mut *tx).await?;
    let insert = sqlx::query("INSERT INTO orders DEFAULT VALUES");
    let order = insert.execute(&mut *tx).await?.last_insert_rowid();
    jobs.enqueue(&mut *tx, Receipt { order }).await?;
    tx.commit().await?; // now the job runs; after a rollback it never was

    select! { _ = terminate.recv() => {} _ = ctrl_c() => {} }
    let limit = Duration::from_secs(10);
    println!("{}", after::shutdown(limit).await); // what requests have deferred
    println!("{}", worker.shutdown(limit).await); // the jobs that run
    Ok(())
}
