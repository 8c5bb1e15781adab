//! Tests of code that defers: what was deferred, and running it to the end.
//!
//! [`capture`] runs a request and gives back its output and a [`Recorder`] with what it deferred. Nothing has run until
//! the test says so. Code that opens scopes of its own is recorded through [`Recorder::runner`]. All of it works under any
//! runtime, and with tokio's clock paused.
//!
//! ```
//! use after::testing::capture;
//!
//! async fn purchase(item: &str) -> Result<String, String> {
//!     after::task("analytics").defer(async { println!("bought") });
//!     Ok(format!("you have bought {item}"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let (response, recorder) = capture(purchase("tea")).await;
//! assert_eq!(response.unwrap(), "you have bought tea");
//! assert_eq!(recorder.names(), ["analytics"]);
//! recorder.run().await; // panics if a task fails, or if a request is still open
//! # }
//! ```
//!
//! The idea is that of Django's `captureOnCommitCallbacks` and of Cloudflare's `waitOnExecutionContext`.

// To be read in this order: `records`, `recorder`, `failures`; `running`, `run`.
mod failures;
mod recorder;
mod records;
mod run;
mod running;

pub use self::{
    failures::Stuck,
    recorder::{Recorder, capture},
    records::Recorded,
};
