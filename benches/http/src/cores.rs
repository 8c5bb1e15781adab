//! A core for the server, and one for its clients.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::Failure;

/// Two that this process may run on: for the server, and for the clients. `None` if there is but one.
pub(crate) fn two() -> Result<Option<[usize; 2]>, Failure> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    Ok(cores.next().zip(cores.next()).map(<[usize; 2]>::from))
}

/// Keeps this thread to a core, and what it will start.
pub(crate) fn keep_to(core: usize) -> Result<(), Failure> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    Ok(())
}
