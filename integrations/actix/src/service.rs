//! The service: from the call to the response.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, resume_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{Service, ServiceRequest, ServiceResponse},
};
use after::Outcome;
use futures_util::FutureExt as _;

use crate::{
    After,
    body::{self, AfterBody},
};

/// The service that [`After`] makes of another.
#[derive(Debug)]
pub struct AfterMiddleware<S> {
    pub(crate) after: After,
    pub(crate) service: Rc<S>,
}

impl<S, B> Service<ServiceRequest> for AfterMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<AfterBody<B>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let service = self.service.clone();
        let failed = self.after.failed;
        let mut scope = self.after.open();
        Box::pin(async move {
            // The call itself may defer, and panic, too. Dropped here, all of it goes with the scope current.
            let answer = scope.scope(async { service.call(request).await });
            match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(Ok(response)) => {
                    scope.ready().await;
                    Ok(body::in_scope(response, scope, failed))
                }
                Ok(Err(error)) => {
                    scope.end(Outcome::Failed);
                    Err(error)
                }
                Err(payload) => {
                    scope.end(Outcome::Panicked);
                    resume_unwind(payload)
                }
            }
        })
    }
}
