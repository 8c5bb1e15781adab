//! What a worker held that is gone: taken over, counted, capped.

mod common;

use std::{
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use after_apalis::{Backoff, Running, TaskBuilder};
use common::{LONG, Receipt, eventually, within};
use tokio::sync::mpsc;

/// The program of an example, which cargo builds with the tests.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

fn crash(url: &str) -> ExitStatus {
    let path = example("crash");
    Command::new(&path)
        .arg(url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn crashed(url: &str) {
    let url = url.to_owned();
    let status = tokio::task::spawn_blocking(move || crash(&url))
        .await
        .unwrap();
    assert!(!status.success(), "it was to kill itself: {status}");
}

every_store! {
    /// The process dies within the job. Another worker takes the job over, as a further attempt.
    the_job_of_a_process_that_died_is_taken_over(database) {
        let jobs = database.jobs().await;
        let _ = jobs.push(Receipt { order: 7 }).await.unwrap();
        crashed(&database.url).await;
        assert_eq!(jobs.counts::<Receipt>().await.unwrap().done, 0);

        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs
            .worker()
            .heartbeat(Duration::from_secs(1), 2)
            .handle(move |receipt: Receipt| {
                let attempt = after::context::get::<Running>().unwrap().attempt;
                sender.send((receipt.order, attempt)).unwrap();
                async {}
            })
            .start()
            .await
            .unwrap();
        assert_eq!(within("the take-over", handled.recv()).await, Some((7, 2)));
        assert!(worker.shutdown(LONG).await.is_clean());
        assert_eq!(jobs.counts::<Receipt>().await.unwrap().done, 1);
    }

    /// apalis gives such a job back for ever, whatever its `max_attempts`.
    a_job_that_kills_its_process_is_dead_after_its_attempts(database) {
        let jobs = database.jobs().await;
        let task = TaskBuilder::new(Receipt { order: 7 }).max_attempts(2).build();
        let _ = jobs.push(task).await.unwrap();
        // The second finds it only once the first one's heartbeats are missed.
        crashed(&database.url).await;
        crashed(&database.url).await;

        let (sender, mut handled) = mpsc::unbounded_channel();
        let worker = jobs
            .worker()
            .heartbeat(Duration::from_secs(1), 2)
            .handle(move |receipt: Receipt| {
                sender.send(receipt.order).unwrap();
                async {}
            })
            .start()
            .await
            .unwrap();
        eventually("it is dead", async || jobs.counts::<Receipt>().await.unwrap().dead == 1).await;
        let dead = jobs.dead::<Receipt>(10).await.unwrap();
        assert_eq!(dead[0].attempts, 2);
        assert!(dead[0].error.contains("it may be what kills the process"), "{}", dead[0].error);
        // The worker lives, and never had that one.
        let _ = jobs.push(Receipt { order: 8 }).await.unwrap();
        assert_eq!(within("the next", handled.recv()).await, Some(8));
        assert!(worker.shutdown(LONG).await.is_clean());
    }

    /// With apalis alone a job that blocks stops the heartbeats, and is started again while it runs. The first worker has
    /// one thread for all that is not on the blocking pool.
    a_job_that_blocks_for_longer_than_heartbeats_may_be_missed_runs_once(database) {
        let jobs = database.jobs().await;
        let runs = Arc::new(AtomicUsize::new(0));
        let build = |jobs: &after_apalis::Jobs, runs: &Arc<AtomicUsize>| {
            let runs = runs.clone();
            jobs.worker().heartbeat(Duration::from_millis(500), 2).handle_blocking(move |_: Receipt| {
                runs.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_secs(4));
            })
        };
        let _ = jobs.push(Receipt { order: 7 }).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let first = {
            let (url, runs) = (database.url.clone(), runs.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let jobs = after_apalis::Jobs::connect(&url).await.unwrap();
                    let worker = build(&jobs, &runs).start().await.unwrap();
                    stopped.await.unwrap();
                    assert!(worker.shutdown(LONG).await.is_clean());
                });
            })
        };
        eventually("it runs", async || runs.load(Ordering::Relaxed) == 1).await;
        let second = build(&jobs, &runs).start().await.unwrap();
        eventually("done", async || jobs.counts::<Receipt>().await.unwrap().done == 1).await;
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        stop.send(()).unwrap();
        tokio::task::spawn_blocking(|| first.join().unwrap()).await.unwrap();
        assert!(second.shutdown(LONG).await.is_clean());
    }

    /// Four seconds of awaiting, three take-over times.
    a_job_that_takes_longer_than_heartbeats_may_be_missed_runs_once(database) {
        let jobs = database.jobs().await;
        let runs = Arc::new(AtomicUsize::new(0));
        let build = || {
            let runs = runs.clone();
            jobs.worker().heartbeat(Duration::from_millis(500), 2).handle(move |_: Receipt| {
                runs.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(4))
            })
        };
        let first = build().start().await.unwrap();
        let second = build().start().await.unwrap();
        let _ = jobs.push(Receipt { order: 7 }).await.unwrap();
        eventually("done", async || jobs.counts::<Receipt>().await.unwrap().done == 1).await;
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(first.shutdown(LONG).await.is_clean());
        assert!(second.shutdown(LONG).await.is_clean());
    }
}

/// Twice as long each time, up to the cap, and never all at the same moment.
#[test]
fn the_backoff_doubles_up_to_its_cap_with_jitter() {
    let backoff = Backoff::default();
    for (attempt, whole) in [(1, 1), (2, 2), (5, 16), (12, 2048), (13, 3600), (200, 3600)] {
        let whole = Duration::from_secs(whole);
        let waits: Vec<_> = (0..100).map(|_| backoff.after(attempt)).collect();
        assert!(
            waits
                .iter()
                .all(|wait| *wait >= whole / 2 && *wait <= whole)
        );
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}

/// The program of the README, word for word, as a process: the job runs, and SIGTERM ends it.
#[cfg(unix)]
#[test]
fn the_program_of_the_readme_sends_the_receipt_and_ends_at_sigterm() {
    use std::io::{BufRead as _, BufReader};

    use nix::{sys::signal, unistd::Pid};

    let source = include_str!("../examples/receipt.rs");
    let (_, program) = source.split_once("\n\n").expect("a header");
    assert!(include_str!("../README.md").contains(program), "{program}");

    let folder = tempfile::tempdir().unwrap();
    let mut process = Command::new(example("receipt"))
        .current_dir(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A worker that does not start the job, or does not end, is ended from outside: the test fails then.
    let pid = Pid::from_raw(process.id().try_into().unwrap());
    let (over, watched) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(LONG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = signal::kill(pid, signal::SIGKILL);
        }
    });
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let first = lines.next().map(Result::unwrap);
    assert_eq!(first.as_deref(), Some("the receipt of order 1"));
    signal::kill(pid, signal::SIGTERM).unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    let status = process.wait().unwrap();
    drop(over);
    assert!(status.success(), "{status}: {rest:?}");
    assert_eq!(rest.len(), 2, "the two reports: {rest:?}");
}
