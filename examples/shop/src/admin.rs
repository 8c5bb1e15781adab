//! What an administrator may look at: the tasks that have not ended, at this moment.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{app::App, reply::Refusal, sessions::User};

#[derive(Serialize)]
pub(crate) struct Unfinished {
    name: &'static str,
    /// Some hold a user's number: one more reason why this is not for everybody.
    key: Option<String>,
    /// Where it was deferred.
    place: String,
    age_ms: u128,
}

pub(crate) async fn unfinished(
    State(app): State<Arc<App>>,
    user: User,
) -> Result<Json<Vec<Unfinished>>, Refusal> {
    if !user.admin {
        return Err(Refusal::Forbidden(
            "Only an administrator may see what is going on.",
        ));
    }
    let tasks = app.runner.unfinished().into_iter();
    let tasks = tasks.map(|task| Unfinished {
        name: task.name,
        key: task.key.map(Into::into),
        place: task.location.to_string(),
        age_ms: task.age.as_millis(),
    });
    Ok(Json(tasks.collect()))
}
