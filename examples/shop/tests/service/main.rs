//! Each pattern end to end, with and without `after`, and its failures: the real service, its database, its neighbours.

// Some send signals.
#![cfg(unix)]

mod admin;
mod audit;
mod cleanup;
mod cross_site;
mod newsletter;
mod pages;
mod profile;
#[path = "../support/program.rs"]
mod program;
mod purchase;
mod search;
mod shutdown;
mod support;
mod thumbnail;
mod timeline;
mod webhook;
