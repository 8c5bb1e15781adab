//! What a scope costs that defers nothing, and a poll of one that is pending: beside the bare future and the scope of a
//! `tokio::task_local!`. `cargo bench --bench idle`.

mod common;

use std::hint::black_box;

use common::{
    clock::Clock,
    measure::{Candidate, Plan, place, report},
    pending::{PendingFor, poll_to_end},
    processes,
    results::{Figure, Key, Sheet},
    table::{pivot, select, spread},
};

const IDLE: Sheet = Sheet {
    name: "idle",
    value: "median_ns",
    ratio: "ratio_to_task_local",
};

/// Polls of one pending request, so that a poll stands out from making and ending the scope.
const PENDING_POLLS: u32 = 64;

tokio::task_local! {
    static LOCAL: u64;
}

fn measure() {
    let plan = Plan::new(Clock::Real);
    for (row, polls) in [("nothing_deferred", 0), ("pending_poll", PENDING_POLLS)] {
        let mut candidates = vec![
            Candidate::once("after", || {
                black_box(poll_to_end(after::scope(PendingFor(black_box(polls)))));
            }),
            Candidate::once("task_local", || {
                black_box(poll_to_end(LOCAL.scope(7, PendingFor(black_box(polls)))));
            }),
            Candidate::once("bare future", || {
                black_box(poll_to_end(PendingFor(black_box(polls))));
            }),
        ];
        let local = place(&candidates, "task_local");
        let calls = plan.calls(&mut candidates[local]);
        let mut samples = plan.sample(calls, &mut candidates);
        for of in samples.iter_mut().flatten() {
            *of /= f64::from(polls.max(1));
        }
        let key = |mode: &str| Key::new(IDLE, "any", 0, 0, &format!("{row}{mode}"));
        for (candidate, of) in candidates.iter().zip(&samples) {
            report(&key(""), candidate.name, of, &samples[local]);
        }
        // What is above the bare future is a wrapper's own cost.
        let bare = samples.pop().expect("the bare future");
        for of in &mut samples {
            for (time, bare) in of.iter_mut().zip(&bare) {
                *time -= bare;
            }
        }
        for (candidate, of) in candidates.iter().zip(&samples) {
            report(&key("_own_cost"), candidate.name, of, &samples[local]);
        }
    }
}

fn tables(figures: &[Figure]) -> String {
    let rows = select(figures, IDLE.name, &[], |_| true);
    pivot(
        &rows,
        "ns, ratio to `task_local`",
        |figure| match figure.key.mode.as_str() {
            "nothing_deferred" => "a scope that defers nothing".into(),
            "nothing_deferred_own_cost" => "the same, less the bare future".into(),
            "pending_poll" => "a pending poll".into(),
            _ => "a pending poll, less the bare future's".into(),
        },
        |figure| format!("{:.2} ns, {}", figure.value, spread(figure)),
    )
}

fn main() {
    processes::run("idle", &[IDLE], measure, tables);
}
