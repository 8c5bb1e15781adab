//! Why tasks are lost, and what is said of it.

use super::label::Label;

/// Why tasks were dropped unfinished. Each has a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A limit left no room for them: counted as shed, all others as lost.
    Shed,
    /// Their batch was dropped by whom it was given to.
    Dropped,
    /// Their batch was never given to a spawner.
    Held,
    /// As `Dropped`, `Held` and `Pool`, after a shutdown that did not wait any longer.
    CutOff,
    SpawnerPanicked,
    /// Closures, dropped by the pool that was to run them.
    Pool,
}

impl Loss {
    pub(crate) const ALL: [Loss; 6] = [
        Loss::Shed,
        Loss::Dropped,
        Loss::Held,
        Loss::CutOff,
        Loss::SpawnerPanicked,
        Loss::Pool,
    ];

    /// For a field of an event.
    #[cfg(feature = "tracing")]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Loss::Shed => "shed",
            Loss::Dropped => "dropped",
            Loss::Held => "held",
            Loss::CutOff => "cut off",
            Loss::SpawnerPanicked => "spawner panicked",
            Loss::Pool => "blocking pool",
        }
    }

    /// What has happened, and what to do.
    pub(crate) fn explained(self) -> &'static str {
        match self {
            Loss::Shed => {
                "`max_waiting` tasks were waiting already: raise it or `max_running`, or defer less"
            }
            Loss::Dropped => {
                "their runtime or spawner dropped them: await `after::shutdown` before it is dropped"
            }
            Loss::Held => {
                "their batch was dropped by its holder: await it to its end, `release` it, or `run` the recorder"
            }
            Loss::CutOff => {
                "they were dropped after a shutdown had reached its limit: give it a longer one, or end them when \
                 `after::stopping` resolves"
            }
            Loss::SpawnerPanicked => {
                "their spawner panicked when it was given them: repair it, its message is in a line of its own"
            }
            Loss::Pool => {
                "the blocking pool dropped them before they ran: await `after::shutdown` before it is dropped"
            }
        }
    }
}

/// Losses with the same reason.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) count: u64,
    pub(crate) first: Vec<Label>,
}
