//! That every task has run: no figure is worth anything without.

use std::{
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, server::Server, usage::Counts, variant::Variant, work::TASKS};

/// For tasks that are still to run when the last request was answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until all tasks of all requests have ended; an error if that never comes. `answered` is what the clients say,
/// and `open` how many requests may have been on their way when they went.
pub(crate) fn settled(
    server: &mut Server,
    variant: Variant,
    answered: u64,
    open: u64,
) -> Result<Counts, Failure> {
    let start = Instant::now();
    let mut before = None;
    loop {
        let counts = server.counts()?;
        let complaint = complaint(counts, variant, answered, open);
        // Twice the same: no request is on its way any more.
        let (requests, done) = (counts.requests, counts.done);
        if complaint.is_none() && before == Some((requests, done)) {
            return Ok(counts);
        }
        if start.elapsed() > PATIENCE {
            let complaint = complaint.unwrap_or("it is never at rest");
            return Err(format!("{variant}: {complaint}, {answered} answered: {counts:?}").into());
        }
        before = Some((requests, done));
        thread::sleep(Duration::from_millis(5));
    }
}

/// What does not add up.
fn complaint(counts: Counts, variant: Variant, answered: u64, open: u64) -> Option<&'static str> {
    let Counts {
        requests,
        done,
        deferred,
        completed,
        pending,
        ..
    } = counts;
    let deferrable = if variant.is_after() {
        TASKS * requests
    } else {
        0
    };
    if !(answered..=answered + open).contains(&requests) {
        return Some("the server has not had the requests that the clients have sent");
    }
    if !expected(variant, answered, requests).contains(&done) {
        return Some("tasks are missing");
    }
    if deferred != deferrable || completed != deferrable || pending != 0 {
        return Some("the account does not balance");
    }
    None
}

/// How many tasks have ended when all have.
fn expected(variant: Variant, answered: u64, requests: u64) -> RangeInclusive<u64> {
    match variant {
        Variant::Nothing => 0..=0,
        // A client that goes takes with it what its handler has not awaited.
        Variant::Awaited => TASKS * answered..=TASKS * requests,
        _ => TASKS * requests..=TASKS * requests,
    }
}
