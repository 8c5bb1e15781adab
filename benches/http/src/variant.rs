//! What is compared.

use std::{fmt, str::FromStr};

use crate::Failure;

/// What becomes of the three tasks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// There are none.
    Nothing,
    /// Awaited in the handler, one after the other.
    Awaited,
    /// `tokio::spawn` in the handler.
    Spawn,
    /// A task that starts when the response's body is dropped spawns them.
    SpawnAfter,
    /// A task that starts when the response's body is dropped runs their `join!`.
    JoinAfter,
    /// `after::defer`, with `after::scope` in a middleware.
    Scope,
    /// `after::defer`, with `AfterLayer`.
    Layer,
}

impl Variant {
    pub(crate) const ALL: [Variant; 7] = [
        Variant::Nothing,
        Variant::Awaited,
        Variant::Spawn,
        Variant::SpawnAfter,
        Variant::JoinAfter,
        Variant::Scope,
        Variant::Layer,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::Nothing => "nothing",
            Variant::Awaited => "awaited",
            Variant::Spawn => "spawn",
            Variant::SpawnAfter => "spawn-after",
            Variant::JoinAfter => "join-after",
            Variant::Scope => "scope",
            Variant::Layer => "layer",
        }
    }

    /// For a table.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Variant::Nothing => "nothing deferred",
            Variant::Awaited => "awaited in the handler",
            Variant::Spawn => "`tokio::spawn` in the handler",
            Variant::SpawnAfter => "spawns after the response, by hand",
            Variant::JoinAfter => "`join!` after the response, by hand",
            Variant::Scope => "`after::defer`, plain scope",
            Variant::Layer => "`after::defer`, `AfterLayer`",
        }
    }

    pub(crate) fn is_after(self) -> bool {
        matches!(self, Variant::Scope | Variant::Layer)
    }
}

impl FromStr for Variant {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let named = Variant::ALL
            .into_iter()
            .find(|variant| variant.name() == name);
        named.ok_or_else(|| format!("no variant is called {name}").into())
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
