//! What runs a route in the scope, and what keeps the scope until the body takes it.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Mutex, PoisonError},
};

use after::{OpenScope, Outcome};
use rocket::{Data, Request, async_trait, futures::FutureExt as _, route};

use crate::{After, is_success};

/// What a request keeps with it while its scope is in no future and in no body.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Option<(OpenScope, Outcome)>>);

impl Kept {
    pub(crate) fn of<'r>(request: &'r Request<'_>) -> &'r Kept {
        request.local_cache(Kept::default)
    }

    pub(crate) fn put(&self, scope: OpenScope, outcome: Outcome) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.replace((scope, outcome));
        // What ends here, of a route that was handed over twice, may run code of the user's.
        drop(kept);
        drop(before);
    }

    pub(crate) fn take(&self) -> Option<OpenScope> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.map(|(scope, _)| scope)
    }
}

/// Rocket drops the request when its last byte was sent.
impl Drop for Kept {
    fn drop(&mut self) {
        let kept = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((scope, outcome)) = kept.take() {
            scope.end(outcome);
        }
    }
}

/// A route's handler, in the scope.
#[derive(Clone)]
pub(crate) struct Scoped {
    pub(crate) after: After,
    pub(crate) handler: Box<dyn route::Handler>,
}

#[async_trait]
impl route::Handler for Scoped {
    async fn handle<'r>(&self, request: &'r Request<'_>, data: Data<'r>) -> route::Outcome<'r> {
        let kept = Kept::of(request);
        // A route before this one may have forwarded.
        let mut scope = kept.take().unwrap_or_else(|| self.after.open());
        let answer = scope.scope(self.handler.handle(request, data));
        match AssertUnwindSafe(answer).catch_unwind().await {
            Ok(answer) => {
                scope.ready().await;
                let success = matches!(&answer, route::Outcome::Success(response) if is_success(response.status()));
                kept.put(
                    scope,
                    if success {
                        Outcome::Finished
                    } else {
                        Outcome::Failed
                    },
                );
                answer
            }
            Err(payload) => {
                scope.end(Outcome::Panicked);
                resume_unwind(payload)
            }
        }
    }
}
