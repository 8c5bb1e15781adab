//! No runtime at all: requests on threads of the program, and their tasks on a small pool of `after`.
//!
//! Run it with `cargo run --example bare_threads`; `--no-default-features --features threads` will do.

use std::{
    error::Error,
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

use after::{Runner, spawner};
use futures::executor::block_on;

fn main() -> Result<(), Box<dyn Error>> {
    // Without runtimes among the features this pool is used anyway. Said aloud, it is whatever is compiled in.
    Runner::new(spawner::Threads::default()).install()?;

    let (audit, audited) = mpsc::channel();
    thread::scope(|requests| {
        for number in 1..=3 {
            let audit = audit.clone();
            // A thread a request, as many a synchronous server has it.
            requests.spawn(move || block_on(after::scope(answer(number, audit))));
        }
    });

    // The threads of the pool don't keep the process alive, so the end of `main` waits for them.
    let report = block_on(after::shutdown(Duration::from_secs(5)));
    let mut audited: Vec<_> = audited.try_iter().collect();
    audited.sort();
    for (number, thread) in &audited {
        println!("request {number}: audited, on thread `{thread}`");
    }
    println!("{report}");

    assert!(audited.iter().all(|(_, thread)| thread == "after-worker"));
    assert_eq!(audited.len(), 3);
    assert_eq!((report.stats().completed, report.stats().pending), (3, 0));
    Ok(())
}

async fn answer(number: u32, audit: Sender<(u32, String)>) {
    after::task("audit").defer(async move {
        let thread = thread::current();
        audit.send((number, thread.name().unwrap_or("unnamed").to_owned()))
    });
    println!("request {number}: response sent");
}
