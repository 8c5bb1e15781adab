//! Work after the request for a service that still runs on async-std, which is discontinued (RUSTSEC-2025-0052).
//!
//! Run it with `cargo run --example async_std --features async-std`.

use std::time::Duration;

use async_std::{channel::unbounded, task};

fn main() {
    task::block_on(async {
        let (done, all_done) = unbounded();
        // Inside a task of async-std its executor is found automatically, whatever other runtime is compiled in.
        let request = after::scope(async move {
            let audit = done.clone();
            after::task("audit").defer(async move {
                // Where this can be asked, one is inside a task of async-std's.
                audit.send(("audit", task::try_current().is_some())).await?;
                after::Ok(())
            });
            let thumbnail = done.clone();
            after::task("thumbnail").defer_blocking(move || {
                // On a thread that async-std keeps for what blocks: no task is current here.
                thumbnail.send_blocking(("thumbnail", task::try_current().is_some()))
            });
            // Deferred is not spawned: however often the request waits, nothing has begun.
            task::yield_now().await;
            done.is_empty()
        });
        let nothing_begun = task::spawn(request).await;
        println!("the request has ended, and no task had started before: {nothing_begun}");

        let report = after::shutdown(Duration::from_secs(5)).await;
        let mut ended = Vec::new();
        while let Ok((name, in_task)) = all_done.try_recv() {
            let place = if in_task {
                "in a task"
            } else {
                "on a blocking thread"
            };
            println!("{name} has run, {place} of async-std");
            ended.push((name, in_task));
        }
        println!("{report}");

        ended.sort();
        assert!(nothing_begun);
        assert_eq!(ended, [("audit", true), ("thumbnail", false)]);
        assert_eq!((report.stats().completed, report.stats().pending), (2, 0));
    });
}
