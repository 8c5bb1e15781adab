//! The first part: a load that the machine can bear, of everything that may happen to a request and to a task.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use after::{Runner, Stats};
use axum::Router;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    AnyError,
    clients::{self, Seen},
    kind::Kind,
    live_bytes,
    reports::Reports,
    service::{self, Service},
    table,
    tally::{ENDS, OUTCOMES, Tally, read},
    witness::{Testimony, Witness},
};

/// The limit of tasks that hang.
const TASK_TIMEOUT: Duration = Duration::from_millis(500);

/// How much more may be alive in the end than at half time. At both there is no connection, no client and no task: what is
/// left are caches with a bound of their own (boxes of ended batches, places on the roster, buffers of channels and
/// timers), filled as chance has it. In half an hour a second half has some five million tasks: one leak in twenty
/// thousand of them would be seen.
const TOLERANCE: usize = 64 * 1_024;

/// Where memory is read: at a tenth, at half and at the end.
const STAGES: [(&str, f64); 3] = [("a tenth", 0.1), ("half", 0.4), ("the end", 0.5)];

/// Returns what does not hold.
pub(crate) fn run(time: Duration, reports: Reports) -> Result<Vec<String>, AnyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let witness = Witness::open()?;
    let service = Service::new(witness.rows());
    let tally = Tally::new();
    let runner = Runner::builder()
        .task_timeout(TASK_TIMEOUT)
        .observer(tally.clone())
        .build();
    let router = service.router(&runner);
    let seen = Arc::new(Seen::default());

    let mut live = Vec::new();
    for (stage, share) in STAGES {
        let stage_time = time.mul_f64(share);
        runtime.block_on(serve(&router, stage_time, &seen, &witness))?;
        runtime.block_on(async {
            service::quiet(&service, &runner).await;
            witness.flush().await
        })?;
        live.push((stage, live_bytes()));
    }

    let run = Run {
        stats: runner.stats(),
        reports: reports.count(),
        service,
        tally,
        seen,
        live,
    };
    drop((router, runner, runtime));
    let testimony = witness.testify()?;
    run.print(time, &testimony);
    Ok(run.failures(&testimony))
}

/// A server and its clients, from the first request to the last connection.
async fn serve(
    router: &Router,
    time: Duration,
    seen: &Arc<Seen>,
    witness: &Witness,
) -> Result<(), AnyError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router.clone()).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    let (over, when_over) = oneshot::channel();
    let (seen, rows) = (seen.clone(), witness.rows());
    let until = Instant::now() + time;
    thread::spawn(move || over.send(clients::run(address, until, &seen, &rows)));
    when_over.await??;
    drop(stop);
    server.await??;
    Ok(())
}

/// What there is to see when all is over.
struct Run {
    stats: Stats,
    reports: u64,
    service: Arc<Service>,
    tally: Tally,
    seen: Arc<Seen>,
    live: Vec<(&'static str, usize)>,
}

impl Run {
    fn print(&self, time: Duration, testimony: &Testimony) {
        let seen = &self.seen;
        println!("\nSteady, {time:.0?}");
        table::numbers("requests sent", &[read(&seen.requests)]);
        table::numbers("  answered in full", &[read(&seen.answered)]);
        table::numbers("  client hung up", &[read(&seen.hung_up)]);
        table::numbers("  cut: handler panicked", &[read(&seen.cut)]);
        table::numbers("requests in a handler", &[self.service.requests()]);
        for (outcome, count) in OUTCOMES.iter().zip(self.tally.outcomes()) {
            table::numbers(&format!("  {outcome:?}"), &[count]);
        }

        println!();
        let rows = ["rows: start", "completed"];
        table::heads("tasks", &[&["accepted"][..], &ENDS, &rows].concat());
        let mut all_rows = [0, 0];
        for kind in Kind::ALL {
            let rows = testimony.rows[kind as usize];
            all_rows[0] += rows.started;
            all_rows[1] += rows.completed;
            let figures = [
                &[self.service.accepted(kind)][..],
                &self.tally.of(kind).ends,
                &[rows.started, rows.completed],
            ];
            table::numbers(kind.name(), &figures.concat());
        }
        let sum = self.tally.sum();
        table::numbers("all", &[&[sum.deferred][..], &sum.ends, &all_rows].concat());
        let Stats {
            deferred,
            completed,
            failed,
            panicked,
            timed_out,
            discarded,
            shed,
            lost,
            pending,
            ..
        } = self.stats;
        let ends = [
            deferred, completed, failed, panicked, timed_out, discarded, shed, lost,
        ];
        table::numbers("the Runner's account", &ends);
        table::numbers("  pending", &[pending]);
        table::numbers("reports of failures", &[self.reports]);

        println!();
        for (stage, bytes) in &self.live {
            table::numbers(&format!("live bytes at {stage}"), &[*bytes as u64]);
        }
    }

    /// What should hold and does not.
    fn failures(&self, testimony: &Testimony) -> Vec<String> {
        let mut failures = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                failures.push(format!("steady: {what}"));
            }
        };
        let Stats {
            deferred,
            completed,
            failed,
            panicked,
            timed_out,
            discarded,
            shed,
            lost,
            pending,
            ..
        } = self.stats;
        let ends = [
            completed, failed, panicked, timed_out, discarded, shed, lost,
        ];

        // The account, to the task, against what the handlers and the observer have counted.
        let sum = self.tally.sum();
        expect(
            deferred == ends.iter().sum::<u64>(),
            format!("the account does not balance: {:?}", self.stats),
        );
        expect(pending == 0, format!("{pending} pending after `drain`"));
        expect(
            sum.deferred == deferred && sum.ends == ends,
            format!("observer {sum:?}, account {:?}", self.stats),
        );
        expect(
            self.tally.strangers() == 0,
            format!("{} events of no known task", self.tally.strangers()),
        );
        expect(
            self.tally.outcomes().iter().sum::<u64>() == self.service.requests(),
            format!(
                "requests {}, outcomes {:?}",
                self.service.requests(),
                self.tally.outcomes()
            ),
        );
        for kind in Kind::ALL {
            let count = self.tally.of(kind);
            let name = kind.name();
            let accepted = self.service.accepted(kind);
            expect(
                accepted == count.deferred && accepted == count.ends.iter().sum::<u64>(),
                format!("{name}: accepted {accepted}, {count:?}"),
            );
            // Completed, by the rows completed, by the rows started, by the account started.
            let rows = testimony.rows[kind as usize];
            let order = [count.ends[0], rows.completed, rows.started, count.started];
            expect(
                order.is_sorted(),
                format!("{name}: completed, rows completed, rows started, started: {order:?}"),
            );
            expect(accepted > 0, format!("no task of kind `{name}`"));
        }
        expect(
            testimony.completed_unstarted == 0,
            format!(
                "{} rows completed, not started",
                testimony.completed_unstarted
            ),
        );
        expect(
            testimony.answered_unaudited == 0,
            format!(
                "{} answered requests whose audit never started",
                testimony.answered_unaudited
            ),
        );
        expect(
            self.reports == failed + panicked + timed_out,
            format!(
                "{} reports of {} failures",
                self.reports,
                failed + panicked + timed_out
            ),
        );

        // Nothing is shed below the limits nor lost, and nothing of what may happen is left out.
        expect(shed == 0 && lost == 0, format!("{shed} shed, {lost} lost"));
        expect(
            ends[..5].iter().all(|&count| count > 0),
            format!("an end that did not occur: {ends:?}"),
        );
        expect(
            self.tally.outcomes().iter().all(|&count| count > 0),
            format!("an outcome that did not occur: {:?}", self.tally.outcomes()),
        );
        let seen = &self.seen;
        expect(
            testimony.answered > 0 && read(&seen.hung_up) > 0 && read(&seen.cut) > 0,
            "a habit of the clients that did not occur".into(),
        );
        let refused = read(&seen.refused);
        expect(refused == 0, format!("{refused} connections refused"));

        let (half, end) = (self.live[1].1, self.live[2].1);
        expect(
            end <= half + TOLERANCE,
            format!("live bytes grew from {half} at half time to {end} in the end"),
        );
        failures
    }
}
