//! Work after the response on AWS Lambda.
mod ending;
mod future;
mod layer;
mod outcome;

pub use self::{
    future::AfterLambdaFuture,
    layer::{AfterLambdaLayer, AfterLambdaService},
    outcome::{OutcomeBody, OutcomeEventFuture, OutcomeFuture, OutcomeLayer, OutcomeService},
};
