//! What std has on other targets and `wasm32-unknown-unknown` has not: a clock, a timer, standard error. There they are
//! JavaScript's. Everywhere else these are std's own, and a timer of one thread.
//!
//! What else is missing there says so by an error: `thread::Builder::spawn` does, and all who start a thread go on without
//! it.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use self::native::*;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use self::script::*;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod native {
    use std::{fmt, io::Write as _, time::Duration};

    pub(crate) use std::time::Instant;

    use futures_timer::Delay;

    /// A timer that needs no runtime, one thread for the process. `None`: further away than the clock reaches.
    pub(crate) fn timer(duration: Duration) -> Option<Delay> {
        Instant::now()
            .checked_add(duration)
            .map(|_| Delay::new(duration))
    }

    /// A line where the platform shows what has gone wrong.
    pub(crate) fn say(line: fmt::Arguments<'_>) {
        // `eprintln!` would panic when standard error is closed.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod script {
    use std::{fmt, time::Duration};

    use futures_timer::Delay;
    // Std's panics.
    pub(crate) use web_time::Instant;

    /// `setTimeout`. `None`: further away than that reaches, which is 24 days.
    pub(crate) fn timer(duration: Duration) -> Option<Delay> {
        // In whole milliseconds, and not before the time is over. Beyond this type it would fire at once.
        let millis = i32::try_from(duration.as_nanos().div_ceil(1_000_000)).ok()?;
        Some(Delay::new(Duration::from_millis(
            millis.unsigned_abs().into(),
        )))
    }

    /// Standard error goes nowhere here.
    pub(crate) fn say(line: fmt::Arguments<'_>) {
        web_sys::console::error_1(&line.to_string().into());
    }
}
