use std::time::Duration;

/// How long a failed job waits for its next attempt: twice as long each time, up to a cap, and a random part of it, so
/// that jobs that failed together don't come back together.
///
/// ```
/// use std::time::Duration;
/// use after_apalis::Backoff;
///
/// let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// assert!(backoff.after(3) >= Duration::from_secs(2) && backoff.after(3) <= Duration::from_secs(4));
/// assert!(backoff.after(40) <= Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// `base` after the first failure, never more than `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Backoff { base, cap }
    }

    /// After the failure of this attempt, the first being 1: between half and all of what was doubled.
    #[must_use]
    pub fn after(&self, attempt: usize) -> Duration {
        let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = 2u32
            .checked_pow(doublings)
            .and_then(|factor| self.base.checked_mul(factor))
            .map_or(self.cap, |whole| whole.min(self.cap));
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// 1 second, doubled up to an hour: with 25 attempts a job is tried for about ten hours.
impl Default for Backoff {
    fn default() -> Self {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(3600))
    }
}
