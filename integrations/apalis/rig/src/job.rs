use std::time::Duration;

use after_apalis::Job;
use serde::{Deserialize, Serialize};

/// The receipt of an order. Its number says what it does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) order: u64,
}

impl Job for Receipt {
    const NAME: &'static str = "receipt";
}

/// So that lost workers are taken over from several times within a minute. The default is 5 seconds.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
pub(crate) const MISSED: u32 = 3;

impl Receipt {
    /// The transaction is rolled back at its end.
    pub(crate) fn rolls_back(self) -> bool {
        self.order % 5 == 4
    }

    /// Its first attempt fails.
    pub(crate) fn fails_once(self) -> bool {
        self.order % 7 == 1
    }

    /// All of its attempts fail.
    pub(crate) fn fails(self) -> bool {
        self.order % 50 == 3
    }

    /// It kills the process that it runs in.
    pub(crate) fn kills(self) -> bool {
        self.order % 500 == 110
    }

    pub(crate) fn max_attempts(self) -> usize {
        if self.kills() {
            2
        } else if self.fails() {
            3
        } else {
            // Chaos costs attempts too.
            25
        }
    }
}
