//! What this crate does not have, on purpose, and what to do instead.
//!
//! What is deferred stays what it looks like: a future that runs once, after the request.
//!
//! | What you may look for | Why it is not here, and what to do |
//! |---|---|
//! | retries, back-off | they belong to the task: a loop, or a crate such as `backon`, that ends at [`stopping()`]. [Production](super::production) says what a sleeping retry holds |
//! | a delay, "in ten minutes" | a sleep in the task is held in memory, keeps a permit, and a deploy waits for it. For more than seconds: a durable queue, with the time in the job |
//! | a handle to join, a return value | the request has ended, so nobody is there to wait. Await a result that the response needs in the handler; for other work use `tokio::spawn`, or a channel that is moved into the task. In a test a [`Recorder`](crate::testing::Recorder) waits |
//! | cancelling a task that runs | a task whose work may be given up waits for that itself: for [`stopping()`], or for a `CancellationToken` that is moved into it, in a `select!`. Before the request ends [`forget()`] takes it back; a [timeout](TaskBuilder::timeout) ends it |
//! | names made at run time | names become labels of metrics, of which there must be few. What differs by request is a [key](TaskBuilder::key): reports and events have it |
//! | once over all requests | a [key](TaskBuilder::key) is for one request. Keep a set in the state of the service, or give the job of a durable queue a key |
//! | cron, a schedule | a loop in a task of your runtime, with a [`scope()`] for each round: `examples/not_http.rs`; or the platform's scheduler |
//! | spawning outside a scope | [`defer()`] panics there, and [`try_defer`] gives the task back: work that belongs to no request would have no end to wait for. Open a request with [`scope()`] or [`open()`] |
//! | scopes that follow `tokio::spawn` | no runtime tells of its spawns. Take a [`Handle`] along: [`Handle::scope`] around the spawned future |

#[allow(unused_imports)] // for the links
use crate::*;
