//! A small shop: what a web service does after its answers, with real parts, and a page that shows it.
//!
//! `patterns` has a file for each thing to do; the rest is what a service has around them. See the README.

mod admin;
mod app;
mod assets;
mod config;
mod cross_site;
mod database;
mod events;
mod feed;
mod jobs;
pub mod log;
pub mod neighbours;
mod patterns;
mod reply;
mod service;
mod sessions;
mod shop;
mod timeline;

pub use self::{
    config::{Config, ConfigError},
    feed::{Feed, Phase},
    shop::Shop,
};
