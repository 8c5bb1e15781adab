//! A layer for HTTP services of the [tower] kind: axum, hyper, tonic. Feature `tower`.
//!
//! [tower]: https://docs.rs/tower

mod body;
mod exchange;
mod future;
mod layer;
mod progress;
mod request;
mod service;
mod written;

pub use self::{
    body::AfterBody,
    future::AfterFuture,
    layer::{AfterLayer, HandOver},
    request::RequestHead,
    service::AfterService,
};
