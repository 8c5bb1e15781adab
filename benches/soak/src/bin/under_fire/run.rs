//! The runs, and what must come out of them.

use std::{
    collections::BTreeSet,
    os::unix::process::ExitStatusExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::{
    AnyError,
    client::Load,
    process::{Log, Server},
    serve::{ALL_ENDED, LIMIT_REACHED, SECOND_SIGNAL},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Once,
    Twice,
    /// Some tasks never end.
    Stuck,
    Kill,
}

/// What came out of the runs of one plan.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    runs: u64,
    answered: u64,
    completed: u64,
    named: u64,
    lost: u64,
    codes: [u64; 4],
}

pub(crate) fn main(arguments: &[String]) -> Result<(), AnyError> {
    let (mut runs, mut seed) = (20, Rng::new().u64(..));
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--runs" => runs = value.parse()?,
            [name, value] if name == "--seed" => seed = value.parse()?,
            _ => return Err(format!("unknown arguments {pair:?}").into()),
        }
    }
    println!("{runs} runs on each runtime, --seed {seed}");
    let head = "answered  completed   named    lost   exit codes";
    println!("\n{:<10}{:<8}{:>5}  {head}", "runtime", "signal", "runs");
    for runtime in ["tokio", "smol"] {
        let mut sums =
            [Plan::Once, Plan::Twice, Plan::Stuck, Plan::Kill].map(|plan| (plan, Sum::default()));
        let plans = (0..runs).map(|run| match run % 5 {
            0..3 => Plan::Once,
            3 => Plan::Twice,
            _ => Plan::Stuck,
        });
        let kills = (0..(runs / 10).max(2)).map(|_| Plan::Kill);
        for (run, plan) in plans.chain(kills).enumerate() {
            let (_, sum) = &mut sums[plan as usize];
            let seed = seed.wrapping_add(run as u64);
            one(runtime, plan, seed, sum)
                .map_err(|error| format!("{runtime}, {plan:?}, run {run}: {error}"))?;
        }
        for (plan, sum) in &sums {
            let Sum {
                runs,
                answered,
                completed,
                named,
                lost,
                codes,
            } = sum;
            let codes = match plan {
                Plan::Kill => "killed".into(),
                _ => format!("0: {}, 2: {}, 3: {}", codes[0], codes[2], codes[3]),
            };
            println!(
                "{runtime:<10}{:<8}{runs:>5}  {answered:>8}  {completed:>9}  {named:>6}  {lost:>6}   {codes}",
                format!("{plan:?}").to_lowercase()
            );
        }
        let [.., (_, stuck), (_, kill)] = sums;
        if runs >= 5 && stuck.named == 0 {
            return Err("no stuck task was ever named".into());
        }
        if kill.lost == 0 {
            return Err(
                "SIGKILL lost nothing, so nothing was under way: this shows nothing".into(),
            );
        }
    }
    println!(
        "\nevery task of every answered request completed, or is named in the report; SIGKILL shows what is lost without one"
    );
    Ok(())
}

fn one(runtime: &str, plan: Plan, seed: u64, sum: &mut Sum) -> Result<(), AnyError> {
    let mut rng = Rng::with_seed(seed);
    let log = Log::new();
    let limit = match plan {
        Plan::Stuck => Duration::from_millis(300),
        // Not reached: no task takes so long, and a slow machine is no failure.
        _ => Duration::from_secs(30),
    };
    let mut server = Server::start(runtime, &log.path, limit)?;
    let longest_task = match plan {
        Plan::Kill => 200,
        // From tasks that are over at once to tasks that are all still there when the signal comes.
        _ => [0, 5, 60, 200][rng.usize(..4)],
    };
    let load = Arc::new(Load {
        answered: AtomicU64::new(0),
        signalled: AtomicBool::new(false),
        longest_task,
        stuck: (plan == Plan::Stuck).then_some(10),
    });
    let clients = load.start(server.address, seed);

    // A random moment: after so many answers, and a little later.
    let answers = rng.u64(1..300);
    while load.answered.load(Ordering::Relaxed) < answers {
        if clients.iter().all(thread::JoinHandle::is_finished) {
            break;
        }
        thread::sleep(Duration::from_micros(100));
    }
    thread::sleep(Duration::from_micros(rng.u64(..3_000)));
    load.signalled.store(true, Ordering::Release);
    match plan {
        Plan::Kill => server.send(Signal::SIGKILL)?,
        _ => server.send(Signal::SIGTERM)?,
    }
    if plan == Plan::Twice {
        // Two signals that come at once are one. This is printed when the first has been taken.
        let line = server.line()?;
        if line != "stopping\n" {
            return Err(format!("instead of stopping: {line}").into());
        }
        thread::sleep(Duration::from_micros(rng.u64(..20_000)));
        // The process may have ended by itself, and stays to be waited for.
        server.send(Signal::SIGTERM)?;
    }
    let mut answered = Vec::new();
    for client in clients {
        answered.extend(client.join().map_err(|_| "a client has panicked")??);
    }
    let (status, output) = server.end()?;
    let code = status.code();
    let as_planned = match plan {
        Plan::Once => code == Some(ALL_ENDED),
        // The second may have come too late.
        Plan::Twice => matches!(code, Some(ALL_ENDED | SECOND_SIGNAL)),
        Plan::Stuck => code == Some(LIMIT_REACHED),
        Plan::Kill => status.signal() == Some(Signal::SIGKILL as i32),
    };
    if !as_planned {
        return Err(format!("{status}: {output}").into());
    }

    let lines = log.ids()?;
    let completed: BTreeSet<_> = lines.iter().copied().collect();
    if lines.len() != completed.len() {
        return Err("a task has run twice".into());
    }
    let named: BTreeSet<u64> = output
        .lines()
        .filter_map(|line| line.strip_prefix("unfinished work ")?.parse().ok())
        .collect();
    let pending = output
        .lines()
        .find_map(|line| line.strip_prefix("pending "));
    let lost: Vec<_> = answered
        .iter()
        .filter(|id| !completed.contains(id) && !named.contains(id))
        .collect();
    sum.runs += 1;
    sum.answered += answered.len() as u64;
    sum.completed += completed.len() as u64;
    sum.named += named.len() as u64;
    sum.lost += lost.len() as u64;
    if let Some(code) = code {
        sum.codes[code as usize] += 1;
    }
    if plan == Plan::Kill {
        return Ok(());
    }
    if !lost.is_empty() {
        return Err(format!("answered, not completed and not named: {lost:?}: {output}").into());
    }
    // Nothing else is unfinished than what is named.
    let unfinished = output
        .lines()
        .filter(|line| line.starts_with("unfinished "))
        .count();
    if pending != Some(&unfinished.to_string()) {
        return Err(format!("{unfinished} named: {output}").into());
    }
    Ok(())
}
