use std::{sync::Arc, time::Duration};

use after::tower::AfterLayer;
use after_apalis::{Jobs, TaskBuilder};
use apalis_core::task::task_id::TaskId;
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Error, job::Receipt, ledger::Ledger};

struct Shop {
    /// `None`: deferred work alone.
    jobs: Option<Jobs>,
    ledger: Ledger,
}

pub(crate) async fn run(url: &str, ledger: &str, port: &str) -> Result<(), Error> {
    let shop = Arc::new(Shop {
        jobs: match url {
            "defer" => None,
            url => Some(Jobs::connect(url).await?),
        },
        ledger: Ledger::open(ledger)?,
    });
    let app = Router::new()
        .route("/orders/{number}", post(order))
        .with_state(shop)
        .layer(AfterLayer::new());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let mut term = signal(SignalKind::terminate())?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            term.recv().await;
        })
        .await?;
    after::shutdown(Duration::from_secs(3)).await;
    Ok(())
}

async fn order(State(shop): State<Arc<Shop>>, Path(order): Path<u64>) -> StatusCode {
    match take(&shop, Receipt { order }).await {
        Ok(status) => status,
        // The client doesn't care why: the store may be away.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn take(shop: &Arc<Shop>, receipt: Receipt) -> Result<StatusCode, Error> {
    let order = receipt.order;
    let id = TaskId::from_ulid(ulid::Ulid::generate());
    let text = id.to_string();
    shop.ledger.write("intends", order, &text);
    let Some(jobs) = &shop.jobs else {
        shop.ledger.write("committed", order, &text);
        let shop = shop.clone();
        after::task("receipt").defer(async move {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(5..50))).await;
            shop.ledger.write("done", order, "-");
        });
        return Ok(StatusCode::CREATED);
    };
    let task = TaskBuilder::new(receipt)
        .task_id(id)
        .max_attempts(receipt.max_attempts())
        .build();
    // The same three lines twice: a transaction's type is its database's.
    macro_rules! in_transaction {
        ($pool:expr) => {{
            let mut tx = $pool.begin().await?;
            sqlx::query("INSERT INTO orders (number) VALUES ($1)")
                .bind(order as i64)
                .execute(&mut *tx)
                .await?;
            let _ = jobs.enqueue(&mut *tx, task).await?;
            if receipt.rolls_back() {
                shop.ledger.write("rolls-back", order, &text);
                tx.rollback().await?;
                return Ok(StatusCode::CONFLICT);
            }
            tx.commit().await?;
        }};
    }
    if let Some(pool) = jobs.postgres() {
        in_transaction!(pool);
    } else if let Some(pool) = jobs.sqlite() {
        in_transaction!(pool);
    } else {
        // No transaction: before the response, so that who was told "created" has it.
        let _ = jobs.push(task).await?;
    }
    shop.ledger.write("committed", order, &text);
    Ok(StatusCode::CREATED)
}
