//! One file for each thing that a service does after its answers.
//!
//! Each has the handler that defers it, to copy, and the same without `after`, to compare: there the client waits. What
//! is in [`timeline::inline`](crate::timeline::inline) there is only shown; it runs as it would without.

pub(crate) mod audit;
pub(crate) mod cleanup;
pub(crate) mod newsletter;
pub(crate) mod profile;
pub(crate) mod purchase;
pub(crate) mod search;
pub(crate) mod thumbnail;
pub(crate) mod webhook;

pub(crate) use self::profile::Profile;
