//! Testing: what a handler defers, and running it.
//!
//! [`testing::capture`](crate::testing::capture) runs a request, and returns its output and a
//! [`Recorder`](crate::testing::Recorder) of what it has deferred. Nothing runs until the test says so.
//!
//! ```
//! use after::testing::capture;
//!
//! async fn purchase(item: &str) -> String {
//!     after::task("receipt").defer(async { println!("sending the receipt") });
//!     format!("you have bought {item}")
//! }
//!
//! #[tokio::main(flavor = "current_thread")] // in a test: `#[tokio::test]`
//! async fn main() {
//!     let (response, recorder) = capture(purchase("tea")).await;
//!     assert_eq!(response, "you have bought tea");
//!     assert_eq!(recorder.names(), ["receipt"]); // deferred, and not run yet
//!     recorder.run().await; // panics if a task fails or panics
//! }
//! ```
//!
//! | | |
//! |---|---|
//! | [`run`](crate::testing::Recorder::run) | runs everything, tasks of tasks included; panics if one failed or panicked |
//! | [`run_within`](crate::testing::Recorder::run_within) | has a limit, and names the tasks that are stuck |
//! | [`runner`](crate::testing::Recorder::runner) | records code that opens scopes of its own: a router with the layer |
//!
//! It works under any executor, and with tokio's clock paused. `docs/testing.md` in the repository goes through it step by
//! step, on a handler and on a router.
