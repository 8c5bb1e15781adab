//! One run: a server of its own, a warm-up, and the measured seconds.

use crate::{
    Failure,
    cell::Cell,
    checks::settled,
    generator::{Load, load},
    server::Server,
    usage,
    variant::Variant,
    work::Task,
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) load: Load,
    /// Of the server, for one request and its tasks, in microseconds.
    pub(crate) cpu: f64,
    /// How often a thread of the server went to sleep, for one request.
    pub(crate) sleeps: f64,
    /// Which share of the machine other processes had meanwhile.
    pub(crate) others: f64,
}

pub(crate) fn run(cell: Cell, variant: Variant, task: Task, seconds: u64) -> Result<Run, Failure> {
    let mut server = Server::start(cell, variant, task, None)?;
    let address = server.address.clone();
    let open = cell.connections as u64;
    // The shortest that wrk can.
    let warm_up = load(&address, "/", cell.connections, 1)?;
    let before = settled(&mut server, variant, warm_up.answered, open)?;

    let (busy_before, all_before) = usage::of_machine()?;
    let children_before = usage::of_children()?;
    let load = load(&address, "/", cell.connections, seconds)?;
    let children = usage::of_children()? - children_before;
    let (busy, all) = usage::of_machine()?;

    let answered = warm_up.answered + load.answered;
    let after = settled(&mut server, variant, answered, 2 * open)?;
    let requests = (after.requests - before.requests) as f64;
    let cpu = after.cpu - before.cpu;
    // A tick of /proc/stat is a hundredth of a second.
    let ours = (cpu + children).as_secs_f64() * 100.0;
    Ok(Run {
        load,
        cpu: cpu.as_secs_f64() * 1e6 / requests,
        sleeps: (after.sleeps - before.sleeps) as f64 / requests,
        others: ((busy - busy_before) as f64 - ours).max(0.0) / (all - all_before) as f64,
    })
}
