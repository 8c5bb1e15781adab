//! What the user sets, and the service around the runtime's own.

use std::{
    env,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use after::Runner;
use lambda_runtime::{Error, LambdaInvocation};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::future::AfterLambdaFuture;

/// A [`Layer`] for [`lambda_runtime::Runtime`] that makes each invocation a scope, and waits for what it has deferred
/// before the next one is asked for: see the [crate](crate).
///
/// Added last, so that it is outermost. Cheap to clone.
///
/// ```no_run
/// use after_lambda::AfterLambdaLayer;
/// use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
///
/// async fn handler(event: LambdaEvent<String>) -> Result<usize, Error> {
///     after::defer(async { println!("the answer is out") });
///     Ok(event.payload.len())
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), Error> {
///     Runtime::new(service_fn(handler)).layer(AfterLambdaLayer::new()).run().await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct AfterLambdaLayer {
    runner: Option<Runner>,
    margin: Duration,
}

impl AfterLambdaLayer {
    /// On the global [`Runner`], with a margin of 100 ms.
    ///
    /// ```
    /// let layer = after_lambda::AfterLambdaLayer::new();
    /// # drop(layer);
    /// ```
    pub fn new() -> Self {
        AfterLambdaLayer {
            runner: None,
            margin: Duration::from_millis(100),
        }
    }

    /// On this [`Runner`].
    ///
    /// ```
    /// let runner = after::Runner::builder().order(after::Order::Sequential).build();
    /// let layer = after_lambda::AfterLambdaLayer::with_runner(runner);
    /// # drop(layer);
    /// ```
    pub fn with_runner(runner: Runner) -> Self {
        AfterLambdaLayer {
            runner: Some(runner),
            ..AfterLambdaLayer::new()
        }
    }

    /// How long before the invocation's deadline what is unfinished is cut off. Default: 100 ms.
    ///
    /// It is the time for the log, and for asking for the next invocation: at the deadline itself the platform ends the
    /// process, and says of the invocation that it has timed out. A margin as long as the function's time limit leaves no
    /// time at all: everything is lost.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = after_lambda::AfterLambdaLayer::new().margin(Duration::from_millis(500));
    /// # drop(layer);
    /// ```
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }
}

impl Default for AfterLambdaLayer {
    fn default() -> Self {
        AfterLambdaLayer::new()
    }
}

impl<S> Layer<S> for AfterLambdaLayer {
    type Service = AfterLambdaService<S>;

    fn layer(&self, inner: S) -> AfterLambdaService<S> {
        AfterLambdaService {
            inner,
            layer: self.clone(),
            concurrent: is_concurrent(),
        }
    }
}

/// The service of an [`AfterLambdaLayer`]: each of its invocations is a scope.
#[derive(Clone, Debug)]
pub struct AfterLambdaService<S> {
    inner: S,
    layer: AfterLambdaLayer,
    concurrent: bool,
}

/// Whether the platform gives out several invocations at a time, by what the runtime itself goes by.
fn is_concurrent() -> bool {
    let most = env::var("AWS_LAMBDA_MAX_CONCURRENCY").ok();
    most.and_then(|most| most.parse().ok())
        .is_some_and(|most: u32| most > 1)
}

impl<S> Service<LambdaInvocation> for AfterLambdaService<S>
where
    S: Service<LambdaInvocation, Response = (), Error = Error>,
{
    type Response = ();
    type Error = Error;
    type Future = AfterLambdaFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let runner = match &self.layer.runner {
            Some(runner) => runner.clone(),
            None => Runner::global(),
        };
        let scope = runner.open();
        // With others in progress only the own tasks are waited for. The platform does not freeze then.
        let runner = (!self.concurrent).then_some(runner);
        let deadline = invocation.context.deadline();
        // The platform says it in the time of day; what passes from here on is measured by a clock that nobody sets.
        let left = deadline
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let until = Instant::now() + left.saturating_sub(self.layer.margin);
        let id = invocation.context.request_id.clone();
        let inner = &mut self.inner;
        AfterLambdaFuture::begin(scope, runner, id, until, || inner.call(invocation))
    }
}
