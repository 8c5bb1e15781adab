//! `wrk`: each of its connections asks again as soon as it is answered.

use std::process::Command;

use crate::Failure;

/// What the clients saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests that were answered.
    pub(crate) answered: u64,
    pub(crate) per_second: f64,
    /// Microseconds.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// Puts a server under load for some seconds.
pub(crate) fn load(
    address: &str,
    path: &str,
    connections: usize,
    seconds: u64,
) -> Result<Load, Failure> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/report.lua");
    let connections = connections.to_string();
    let duration = format!("{seconds}s");
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", &connections, "-d", &duration, "-s", script])
        // An answer that takes longer is an error.
        .args(["--timeout", "10s"])
        .arg(format!("http://{address}{path}"))
        .output()
        .map_err(|error| format!("wrk does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("measured "));
    let numbers: Result<Vec<u64>, _> = line
        .unwrap_or_default()
        .split_whitespace()
        .map(str::parse)
        .collect();
    let Ok([answered, microseconds, p50, p99, errors]) = <[u64; 5]>::try_from(numbers?) else {
        return Err(format!("wrk has said: {text}").into());
    };
    if errors > 0 || answered == 0 {
        return Err(format!("{answered} answers, {errors} errors: {text}").into());
    }
    let per_second = answered as f64 * 1e6 / microseconds as f64;
    Ok(Load {
        answered,
        per_second,
        p50,
        p99,
    })
}
